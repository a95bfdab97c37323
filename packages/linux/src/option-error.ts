/**
 * An option that no machine could satisfy, or that does not fit what it is used with, such as an MTU that is too large for
 * the sections of a host server: `MTU 1: must be 68 to 65521 bytes`. Commands exit with code 2 for it.
 */
export class OptionError extends RangeError {
  /** The option: its name in the API (`mtu`), on a command line (`--mode`), or in a file (`links[2].size`). */
  readonly option: string;

  /** `message`: one line that names the option's value and what it can be. */
  constructor(option: string, message: string) {
    super(message);
    this.name = 'OptionError';
    this.option = option;
  }
}

/** Calls `check`, and returns its result. A RangeError that it throws becomes an {@link OptionError} of the same message. */
export function checkOption<T>(option: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof RangeError) || error instanceof OptionError) throw error;
    throw new OptionError(option, error.message);
  }
}

/**
 * Throws {@link OptionError} unless `value` is a whole number from `minimum` to `maximum`. `what` names it in the message,
 * `unit` follows the range: `MTU 1: must be 68 to 65521 bytes`.
 */
export function checkWholeNumber(
  option: string,
  what: string,
  value: number,
  [minimum, maximum]: readonly [minimum: number, maximum: number],
  unit = '',
): void {
  if (Number.isSafeInteger(value) && value >= minimum && value <= maximum) return;
  throw new OptionError(option, `${what} ${value}: must be ${minimum} to ${maximum}${unit && ` ${unit}`}`);
}
