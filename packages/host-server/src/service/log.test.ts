import { describe, expect, it, vi } from 'vitest';
import { plainLog, structuredLog } from './log.ts';

describe('log', () => {
  const collect = () => {
    let text = '';
    return {
      write(more: string) {
        text += more;
      },
      lines: () => text.trimEnd().split('\n'),
    };
  };

  it('is JSON with level, link and the fields of the event', () => {
    const output = collect();
    const log = structuredLog(output, { pretty: false, verbose: false });
    const since = new Date(0);
    const reason = 'not reading: 9 messages';
    log.event('blue', { type: 'peer-gone', id: 3, cause: 'not-reading', reason, since });
    log.event('blue', { type: 'warning', text: 'something' });
    log.note('debug', 'not for everybody');
    log.note('error', 'no configuration', { type: 'reload-failed' });
    const time = expect.any(Number);
    expect(output.lines().map((line) => JSON.parse(line))).toEqual([
      {
        level: 'warn',
        time,
        link: 'blue',
        type: 'peer-gone',
        id: 3,
        cause: 'not-reading',
        reason,
        since: since.toISOString(),
        msg: 'peer 3 gone: not reading: 9 messages',
      },
      { level: 'warn', time, link: 'blue', type: 'warning', text: 'something', msg: 'something' },
      { level: 'error', time, type: 'reload-failed', msg: 'no configuration' },
    ]);
  });

  it('writes no terminal control sequences', () => {
    const output = collect();
    structuredLog(output, { pretty: true, verbose: true }).note('debug', 'bind /tmp/\x1b[2J\n: EACCES');
    expect(output.lines()).toEqual([expect.stringMatching(/ debug bind \/tmp\/\uFFFD\[2J\uFFFD: EACCES$/)]);
  });

  it('suppresses lines beyond its limit, and logs their number', () => {
    vi.useFakeTimers({ now: 5_000_000 });
    try {
      const output = collect();
      const log = structuredLog(output, { pretty: false, verbose: false });
      for (let i = 0; i < 1000; i++) {
        log.event('blue', { type: 'refused', credentials: null, cause: 'no-free-id', reason: 'full' });
      }
      expect(output.lines()).toHaveLength(200);
      log.note('error', 'something that matters');
      expect(output.lines()).toHaveLength(201);
      vi.advanceTimersByTime(1000);
      expect(JSON.parse(output.lines().at(-1)!)).toMatchObject({ type: 'suppressed', suppressed: 800 });
      log.event('blue', { type: 'closed' });
      expect(output.lines()).toHaveLength(203);
    } finally {
      vi.useRealTimers();
    }
  });

  it('suppresses them in plain text, too', () => {
    vi.useFakeTimers({ now: 5_000_000 });
    try {
      const output = collect();
      const log = plainLog(output, true);
      for (let i = 0; i < 1000; i++) {
        log.event('blue', {
          type: 'refused',
          credentials: null,
          cause: 'no-free-id',
          reason: `\x1b[2J\n${i}`,
        });
      }
      expect(output.lines()).toHaveLength(200);
      expect(output.lines()[7]).toBe('connection refused: \uFFFD[2J\uFFFD7');
      vi.advanceTimersByTime(1000);
      expect(output.lines().slice(200)).toEqual(['800 lines suppressed']);
    } finally {
      vi.useRealTimers();
    }
  });

  it('escapes terminal control sequences in JSON', () => {
    const output = collect();
    const log = structuredLog(output, { pretty: false, verbose: false });
    log.event('b\x9b\u202e', { type: 'warning', text: 'a\x7f\u2028' });
    const [line] = output.lines();
    expect(line).not.toMatch(/\p{C}|\p{Zl}/u);
    expect(JSON.parse(line!)).toMatchObject({ link: 'b\x9b\u202e', text: 'a\x7f\u2028' });
  });

  it('is as plain as that of the original server', () => {
    const output = collect();
    const quiet = plainLog(output, false);
    quiet.event('x', { type: 'closed' });
    quiet.event('x', { type: 'listening', socketPath: '/s', memory: 'm', size: 5 });
    expect(output.lines()).toEqual(['listening at /s: 5 bytes, m']);
  });
});
