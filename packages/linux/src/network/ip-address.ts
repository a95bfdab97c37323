import { isIPv4, isIPv6 } from 'node:net';

export const AF_INET = 2;
export const AF_INET6 = 10;

/** An IP address in the kernel's format. */
export interface IpAddress {
  readonly family: typeof AF_INET | typeof AF_INET6;
  /** 4 or 16 bytes in network order. */
  readonly bytes: Uint8Array;
}

/** An address and the length of its network prefix in bits. */
export interface IpPrefix extends IpAddress {
  /** 0 … 32 or 0 … 128. */
  readonly length: number;
}

function ipv4Bytes(text: string): Uint8Array {
  return Uint8Array.from(text.split('.'), Number);
}

function ipv6Bytes(text: string): Uint8Array {
  // The last 32 bits may be written as an IPv4 address: ::ffff:10.0.0.1.
  const dotted = text.match(/[\d.]+$/)?.[0] ?? '';
  const tail = dotted.includes('.') ? ipv4Bytes(dotted) : new Uint8Array(0);
  const hex = tail.length > 0 ? text.slice(0, -dotted.length).replace(/([^:]):$/, '$1') : text;
  const groups = (part: string) =>
    part
      .split(':')
      .filter(Boolean)
      .flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]);
  const [left, right] = hex.split('::') as [string, string | undefined];
  const bytes = new Uint8Array(16);
  bytes.set(groups(left));
  const rightBytes = [...groups(right ?? ''), ...tail];
  bytes.set(rightBytes, 16 - rightBytes.length);
  return bytes;
}

/** Parses `10.0.0.1` or `fd00::1`. Throws RangeError for anything else, zones (`fe80::1%eth0`) included. */
export function parseIpAddress(text: string): IpAddress {
  if (isIPv4(text)) return { family: AF_INET, bytes: ipv4Bytes(text) };
  if (isIPv6(text) && !text.includes('%')) return { family: AF_INET6, bytes: ipv6Bytes(text) };
  throw new RangeError(`"${text}" is no IP address: write it like 10.0.0.1 or fd00::1`);
}

/** Parses `10.0.0.1/24` or `fd00::1/64`; bits behind the prefix may be set. Throws RangeError for anything else. */
export function parseIpPrefix(text: string): IpPrefix {
  const [address, bits, rest] = text.split('/');
  if (address === undefined || bits === undefined || rest !== undefined || !/^\d{1,3}$/.test(bits)) {
    throw new RangeError(
      `"${text}" is no address with a prefix length: write it like 10.0.0.1/24 or fd00::1/64`,
    );
  }
  const parsed = parseIpAddress(address);
  const length = Number(bits);
  if (length > parsed.bytes.length * 8) {
    throw new RangeError(`"${text}": the prefix length can be 0 to ${parsed.bytes.length * 8}`);
  }
  return { ...parsed, length };
}

/** Whether bits after the prefix are set, as in a host's address, but not in a network's. */
export function hasHostBits({ bytes, length }: IpPrefix): boolean {
  return bytes.some((byte, i) => (byte & (0xff >> Math.min(8, Math.max(0, length - i * 8)))) !== 0);
}
