import { parseMode, parseSize } from '@ivshmem/host-server/sizes';
import { type ListenAddress, parseListenAddress } from '@ivshmem/monitor/listen-address';
import { InvalidArgumentError } from 'commander';

/** An option's value as a whole number. */
export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

function numberUpTo(most: number): (text: string) => number {
  return (text) => {
    const value = wholeNumber(text);
    if (value < 1 || value > most) throw new InvalidArgumentError(`It must be 1 to ${most}.`);
    return value;
  };
}

/** Options of `supervise`. */
export const descriptorCount = numberUpTo(65_536);
export const tryCount = numberUpTo(1_000_000);

/** An option's value as the interval of a timer. */
export function seconds(text: string): number {
  const value = wholeNumber(text);
  if (value < 1 || value > 86_400) throw new InvalidArgumentError('It must be 1 to 86400 seconds.');
  return value;
}

/** An option's value as a number of bytes. */
export function size(text: string): number {
  const bytes = parseSize(text);
  if (bytes === null) throw new InvalidArgumentError('It must be a size, such as 512K or 4M.');
  return bytes;
}

/** An option's value as the permissions of a socket. */
export function octalMode(text: string): number {
  const mode = parseMode(text);
  if (mode === null) throw new InvalidArgumentError('It must be permissions in octal, such as 660.');
  return mode;
}

/** An option's value as the address of a TCP service. */
export function listenAddress(text: string): ListenAddress {
  const address = parseListenAddress(text);
  if (address === null)
    throw new InvalidArgumentError(
      'It must be a port, or an IP address and a port, such as 16646 or [::1]:16646.',
    );
  return address;
}

/** Appends each value of an option that may be repeated. */
export function collect(text: string, previous: readonly string[] = []): string[] {
  return [...previous, text];
}
