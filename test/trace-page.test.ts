import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { record, withRecording } from '../bench/src/trace/page.ts';

const page = readFileSync(new URL('../docs/trace.md', import.meta.url), 'utf8');

it('docs/trace.md shows what a link does, as it does it now; otherwise, `npm run trace` updates it', () => {
  expect(withRecording(page)).toBe(page);
});

it('each recording is the same', () => {
  const first = record();
  for (let i = 0; i < 20; i++) expect(record()).toEqual(first);
});

it('a part without a place, and a place without a part, are errors', () => {
  expect(() => withRecording('# nothing\n', new Map([['a', ['line']]]))).toThrow('no place for a');
  const place = '<!-- recorded: b -->\n<!-- end -->\n';
  expect(() => withRecording(place, new Map())).toThrow('"b" is not recorded');
  expect(withRecording(place, new Map([['b', ['line']]]))).toBe(
    '<!-- recorded: b -->\n```\nline\n```\n<!-- end -->\n',
  );
});
