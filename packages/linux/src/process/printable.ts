/**
 * Characters that can control a terminal, forge a log line, or disguise a text: control characters (C0, DEL,
 * C1), invisible and bidirectional formatting, lone surrogates, unassigned and private characters, line separators.
 */
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}]/gu;
/** Maximum number of characters in a line. */
const LIMIT = 4096;

/**
 * Makes a text from another process, a file or the network safe as one line for a terminal or a log: unsafe characters become
 * U+FFFD, and text beyond 4096 characters is cut, with a note of its length.
 */
export function printable(text: string): string {
  const short = text.slice(0, LIMIT);
  const rest = text.length - short.length;
  return short.replace(UNSAFE, '\uFFFD') + (rest > 0 ? `… (${rest} characters more)` : '');
}

/** Replaces the same characters in a JSON text without line breaks by \u escapes, which do not change its value. */
export function escapeJson(json: string): string {
  return json.replace(UNSAFE, (character) => {
    let escaped = '';
    for (let i = 0; i < character.length; i++) {
      escaped += `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`;
    }
    return escaped;
  });
}
