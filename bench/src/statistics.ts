/** The middle one of some figures, and their spread. */
export interface Figure {
  readonly median: number;
  readonly minimum: number;
  readonly maximum: number;
}

export function summarise(values: readonly number[]): Figure {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, minimum: sorted[0]!, maximum: sorted.at(-1)! };
}

/** `12.40 (11.90 to 12.61)` */
export function show({ median, minimum, maximum }: Figure, digits = 2): string {
  return `${median.toFixed(digits)} (${minimum.toFixed(digits)} to ${maximum.toFixed(digits)})`;
}

/** Each figure by the one at the same place in `others`: what was measured in the same round is compared. */
export function ratios(values: readonly number[], others: readonly number[]): Figure {
  return summarise(values.map((value, round) => value / others[round]!));
}
