import { describe, expect, it } from 'vitest';
import { createScreen, type Output, progressLine } from './screen.ts';

const BAR = '#'.repeat(12) + '.'.repeat(12);

describe('a progress line', () => {
  it('has its longest bar if there is room', () => {
    for (const columns of [41, 200])
      expect(progressLine('500 of 1000', 0.5, columns)).toBe(`  [${BAR}] 500 of 1000`);
    expect(progressLine('500 of 1000', 0.5, 37)).toBe(`  [${BAR.slice(2, -2)}] 500 of 1000`);
  });

  it('fits below every number of columns, and keeps the text as long as it fits', () => {
    const text = 'A to B: 21.34 Gbit/s';
    for (let columns = 1; columns < 120; columns++) {
      const line = progressLine(text, 0.4, columns);
      expect(line.length).toBeLessThan(columns);
      if (columns > text.length + 2) expect(line).toContain(text);
    }
  });

  it.each([
    [-1, 0],
    [0, 0],
    [1, 24],
    [7, 24],
  ])('at %d has %i characters of 24', (part, filled) => {
    expect(progressLine('x', part, 80).split('#').length - 1).toBe(filled);
  });
});

describe('the screen', () => {
  /** What is written, with a resize in between. */
  function written(out: Partial<Output>, env: NodeJS.ProcessEnv, narrow?: number): string {
    let text = '';
    const output = {
      columns: undefined as number | undefined,
      ...out,
      write: (more: string) => {
        text += more;
      },
    };
    const screen = createScreen(output, env);
    screen.heading('Title');
    screen.progress('1 of 2', 0.5);
    if (narrow !== undefined) output.columns = narrow;
    screen.progress('2 of 2', 1);
    screen.line('done');
    return text;
  }

  it('overwrites one line of a terminal, with the width it has at the time', () => {
    const text = written({ isTTY: true, columns: 80 }, { TERM: 'xterm' }, 12);
    expect(text).toMatch(
      // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked at.
      /^\n\x1b\[1mTitle\x1b\[22m\n {2}\[#{12}\.{12}\] 1 of 2\r\x1b\[K {2}2 of 2\r\x1b\[K {2}done\n$/,
    );
  });

  it('takes a terminal of 0 columns for one that does not say', () => {
    expect(written({ isTTY: true, columns: 0 }, { TERM: 'xterm' })).toContain(
      '[############............] 1 of 2',
    );
  });

  it('shows lines alone if it is no terminal, or one that only prints', () => {
    const plain = '\nTitle\n  done\n';
    expect(written({}, { TERM: 'xterm' })).toBe(plain);
    expect(written({ isTTY: true, columns: 80 }, { TERM: 'dumb' })).toBe(plain);
  });

  it('has no bold text with NO_COLOR', () => {
    expect(written({ isTTY: true, columns: 80 }, { TERM: 'xterm', NO_COLOR: '1' })).toMatch(
      /^\nTitle\n {2}\[#/,
    );
  });
});
