const SUFFIXES = 'BKMGTPE';

/**
 * Parses a count like strtoull(3) with base 0: decimal, hexadecimal after 0x, or octal after 0. Returns null for anything
 * else, and above 2^53 - 1.
 */
export function parseCount(text: string): number | null {
  const octal = /^0[0-7]+$/.test(text);
  const value = octal
    ? Number.parseInt(text, 8)
    : /^(0x[0-9a-f]+|0|[1-9]\d*)$/i.test(text)
      ? Number(text)
      : Number.NaN;
  return Number.isSafeInteger(value) ? value : null;
}

/**
 * Parses a size in bytes like QEMU: with a suffix of B, K, M, G, T, P or E in either case, and a fraction only with a suffix
 * above B. Returns null for anything else, and above 2^53 - 1.
 */
export function parseSize(text: string): number | null {
  const [, number, fraction, suffix] = /^(0x[0-9a-f]+|\d+(\.\d+)?)([bkmgtpe])?$/i.exec(text) ?? [];
  const power = SUFFIXES.indexOf((suffix ?? 'b').toUpperCase());
  const value = number === undefined ? Number.NaN : Math.floor(Number(number) * 1024 ** power);
  return Number.isSafeInteger(value) && !(power === 0 && fraction !== undefined) ? value : null;
}

/** Parses permissions of three octal digits, such as `660`. Returns null for anything else. */
export function parseMode(text: string): number | null {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : null;
}
