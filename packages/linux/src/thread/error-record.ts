import { SystemCallError } from '../errors.ts';
import { OptionError } from '../option-error.ts';

/** An error as plain data: a structured clone loses its class and its properties. */
export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  /** Its own properties, such as `code`. */
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly cause: ErrorRecord | undefined;
}

/** The classes that are kept, by name. An error of any other class becomes an Error with the same name. */
const CLASSES: Readonly<Record<string, { readonly prototype: Error }>> = {
  SystemCallError,
  OptionError,
  RangeError,
  TypeError,
};

/** Converts a thrown value to plain data. */
export function errorRecord(thrown: unknown): ErrorRecord {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const { name, message, stack, cause } = error;
  const properties = Object.fromEntries(
    Object.entries(error).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value)),
  );
  return { name, message, stack, properties, cause: cause instanceof Error ? errorRecord(cause) : undefined };
}

/** Restores the error of a record. */
export function errorOf({ name, message, stack, properties, cause }: ErrorRecord): Error {
  const error = new Error(message, cause && { cause: errorOf(cause) });
  const known = CLASSES[name];
  if (known !== undefined) Object.setPrototypeOf(error, known.prototype);
  if (error.name !== name) error.name = name;
  if (stack !== undefined) error.stack = stack;
  return Object.assign(error, properties);
}
