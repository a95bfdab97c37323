const SUFFIXES = 'BKMGTPE';

/**
 * A count as strtoull(3) with base 0 reads it: decimal, 0x hexadecimal, or octal after a 0. Null for anything else, and
 * for what a number does not hold exactly.
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

/** A size in bytes, as QEMU reads it: fractions are for suffixes, suffixes for any case. Null for anything else. */
export function parseSize(text: string): number | null {
  const [, number, fraction, suffix] = /^(0x[0-9a-f]+|\d+(\.\d+)?)([bkmgtpe])?$/i.exec(text) ?? [];
  const power = SUFFIXES.indexOf((suffix ?? 'b').toUpperCase());
  const value = number === undefined ? Number.NaN : Math.floor(Number(number) * 1024 ** power);
  return Number.isSafeInteger(value) && !(power === 0 && fraction !== undefined) ? value : null;
}

/** Permissions, in octal digits. Null for anything else. */
export function parseMode(text: string): number | null {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : null;
}
