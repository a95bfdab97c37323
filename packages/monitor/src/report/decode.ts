/** Checks a value from another process. Returns it, of its type, or throws TypeError. Unknown fields are left out. */
export type Decoder<T> = (value: unknown) => T;

/** The type that a decoder returns. */
export type Decoded<D> = D extends Decoder<infer T> ? T : never;

function check(isValid: boolean, expected: string): asserts isValid {
  if (!isValid) throw new TypeError(`not ${expected}`);
}

export const text: Decoder<string> = (value) => {
  check(typeof value === 'string', 'a text');
  return value;
};

export const wholeNumber: Decoder<number> = (value) => {
  check(Number.isSafeInteger(value), 'a whole number');
  return value as number;
};

export const flag: Decoder<boolean> = (value) => {
  check(typeof value === 'boolean', 'true or false');
  return value;
};

/** A point in time, as text of ISO 8601. */
export const time: Decoder<string> = (value) => {
  check(typeof value === 'string' && !Number.isNaN(Date.parse(value)), 'a time');
  return value;
};

/** Exactly this text. */
export function literal<const T extends string>(expected: T): Decoder<T> {
  return (value) => {
    check(value === expected, expected);
    return expected;
  };
}

export function nullable<T>(decoder: Decoder<T>): Decoder<T | null> {
  return (value) => (value === null ? null : decoder(value));
}

export function list<T>(decoder: Decoder<T>): Decoder<readonly T[]> {
  return (value) => {
    check(Array.isArray(value), 'a list');
    return (value as unknown[]).map(decoder);
  };
}

/** An object with any names, such as counters. */
export function dictionary<T>(decoder: Decoder<T>): Decoder<Readonly<Record<string, T>>> {
  return (value) => {
    check(typeof value === 'object' && value !== null && !Array.isArray(value), 'an object');
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, decoder(each)]));
  };
}

/** An object with these fields. */
export function shape<S extends Record<string, Decoder<unknown>>>(
  fields: S,
): Decoder<{ readonly [name in keyof S]: Decoded<S[name]> }> {
  return (value) => {
    check(typeof value === 'object' && value !== null, 'an object');
    return Object.fromEntries(
      Object.entries(fields).map(([name, decoder]) => {
        return [name, decoder((value as Record<string, unknown>)[name])];
      }),
    ) as { readonly [name in keyof S]: Decoded<S[name]> };
  };
}

/** One of several kinds of object, selected by the field `kind`. */
export function byKind<D extends Record<string, Decoder<unknown>>>(
  decoders: D,
): Decoder<Decoded<D[keyof D]>> {
  return (value) => {
    const { kind } = (value ?? {}) as { kind?: unknown };
    check(typeof kind === 'string' && Object.hasOwn(decoders, kind), 'of a known kind');
    return decoders[kind]!(value) as Decoded<D[keyof D]>;
  };
}
