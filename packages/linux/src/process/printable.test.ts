import { describe, expect, it } from 'vitest';
import { escapeJson, printable } from './printable.ts';

/** Characters that must not reach a terminal, with their names. */
const unsafe: [string, string][] = [
  ['ESC', '\x1b[2J'],
  ['CSI of C1', '\x9b2J'],
  ['a new line', '\n'],
  ['a carriage return', '\r'],
  ['NUL', '\0'],
  ['DEL', '\x7f'],
  ['a right-to-left override', '\u202e'],
  ['a bidirectional isolate', '\u2066'],
  ['a zero-width space', '\u200b'],
  ['a byte order mark', '\ufeff'],
  ['a line separator', '\u2028'],
  ['a tag of plane 14', '\u{e0041}'],
  ['a lone surrogate', '\ud800'],
  ['a private character', '\ue000'],
];
const FORBIDDEN = /[\p{C}\p{Zl}\p{Zp}]/u;

describe('printable', () => {
  it.each(unsafe)('replaces %s', (_name, text) => {
    const shown = printable(`a${text}b`);
    expect(shown).not.toMatch(FORBIDDEN);
    expect(shown).toMatch(/^a\uFFFD.*b$/);
  });

  it('keeps letters of all scripts, punctuation and emoji', () => {
    const text = 'peer "ä/日本/مرحبا" – 100 % ✓ 🚀 e\u0301';
    expect(printable(text)).toBe(text);
  });

  it('cuts a long text, and says how much is left out', () => {
    expect(printable('x'.repeat(4096))).toBe('x'.repeat(4096));
    const shown = printable('x'.repeat(1_000_000));
    expect(shown).toBe(`${'x'.repeat(4096)}… (995904 characters more)`);
  });
});

describe('escapeJson', () => {
  it.each(unsafe)('escapes %s without changing the value', (_name, text) => {
    const json = escapeJson(JSON.stringify({ [text]: `"\\${text}` }));
    expect(json).not.toMatch(FORBIDDEN);
    expect(JSON.parse(json)).toEqual({ [text]: `"\\${text}` });
  });
});
