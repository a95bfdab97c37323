/**
 * What may steer a terminal, forge a line of a log, or make a text look like another one: control characters (C0, DEL,
 * C1), invisible and bidirectional formatting, lone surrogates, unassigned and private characters, line separators.
 */
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}]/gu;
/** Characters of a line, at most. */
const LIMIT = 4096;

/**
 * A text from another process, a file or the network as one line for a terminal or a log: each character that is not safe
 * there becomes U+FFFD, and what exceeds 4096 characters is left out, with a note that says how much that is.
 */
export function printable(text: string): string {
  const short = text.slice(0, LIMIT);
  const rest = text.length - short.length;
  return short.replace(UNSAFE, '\uFFFD') + (rest > 0 ? `… (${rest} characters more)` : '');
}

/** The same characters of a JSON text without line breaks, as \u escapes: what a program reads from it stays the same. */
export function escapeJson(json: string): string {
  return json.replace(UNSAFE, (character) => {
    let escaped = '';
    for (let i = 0; i < character.length; i++) {
      escaped += `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`;
    }
    return escaped;
  });
}
