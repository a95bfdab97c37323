import { describe, expect, it } from 'vitest';
import { SystemCallError } from '../errors.ts';
import { OptionError } from '../option-error.ts';
import { errorOf, errorRecord } from './error-record.ts';

/** The error that arrives at the other thread. */
const carried = (thrown: unknown) => errorOf(structuredClone(errorRecord(thrown)));

class OwnError extends Error {
  override readonly name = 'OwnError';
  readonly code = 'OWN';
  readonly buffer = new SharedArrayBuffer(1);
}

describe('an error that is carried as plain data', () => {
  it.each([
    new SystemCallError('bind', '/run/x.sock', 98, 'another server answers there'),
    new OptionError('mtu', 'MTU 1: must be 68 to 65521 bytes'),
    new RangeError('too large'),
    new TypeError('no string'),
    new Error('plain'),
  ])('keeps class, properties and stack: %s', (error) => {
    const result = carried(error);
    expect(result).toBeInstanceOf(error.constructor);
    expect(Object.getPrototypeOf(result)).toBe(Object.getPrototypeOf(error));
    expect({ ...result }).toEqual({ ...error });
    expect([result.name, result.message, result.stack]).toEqual([error.name, error.message, error.stack]);
    expect(String(result)).toBe(String(error));
  });

  it('keeps name and code of an unknown class, but only plain values', () => {
    const result = carried(new OwnError('of its own'));
    expect(Object.getPrototypeOf(result)).toBe(Error.prototype);
    expect({ ...result }).toEqual({ name: 'OwnError', code: 'OWN' });
  });

  it('keeps its causes', () => {
    const cause = new SystemCallError('connect', '/run/x.sock', 2);
    const { cause: carriedCause } = carried(new Error('no server', { cause }));
    expect(carriedCause).toBeInstanceOf(SystemCallError);
    expect(carriedCause).toMatchObject({ code: 'ENOENT', errno: 2, subject: '/run/x.sock' });
  });

  it('is created even if something else was thrown', () => {
    expect(carried('words')).toMatchObject({ name: 'Error', message: 'words' });
  });
});
