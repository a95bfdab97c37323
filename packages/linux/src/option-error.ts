/**
 * An option that is invalid on any machine, or that does not fit the object it is used with, such as an MTU that is too
 * large for the sections of a host server: `MTU 1: must be 68 to 65521 bytes`. Commands exit with code 2 for it.
 */
export class OptionError extends RangeError {
  /** The option: its name in the API (`mtu`), on a command line (`--mode`), or in a file (`links[2].size`). */
  readonly option: string;

  /** `message`: one line with the option's value and the values that are allowed. */
  constructor(option: string, message: string) {
    super(message);
    this.name = 'OptionError';
    this.option = option;
  }
}

/** Returns the result of `check`. If it throws a RangeError, throws an {@link OptionError} with the same message. */
export function checkOption<T>(option: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof RangeError) || error instanceof OptionError) throw error;
    throw new OptionError(option, error.message);
  }
}

/**
 * Throws {@link OptionError} unless `value` is an integer from `minimum` to `maximum`. `what` names it in the message,
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
