/** Columns with numbers, in the order in which they are shown. */
export const COLUMNS = [
  'rx',
  'tx',
  'rxBits',
  'txBits',
  'drops',
  'doorbells',
  'interrupts',
  'wakeups',
] as const;
export type Column = (typeof COLUMNS)[number];
