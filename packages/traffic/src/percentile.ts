/**
 * The smallest of `values` that at least `p` percent of them do not exceed (nearest rank); NaN if there are none.
 * Throws RangeError if `p` is not 0 to 100.
 */
export function percentile(values: ArrayLike<number>, p: number): number {
  if (!(p >= 0 && p <= 100)) throw new RangeError(`percentile ${p}: must be 0 to 100`);
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN;
}
