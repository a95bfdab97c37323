import { isIP } from 'node:net';

/** Where a TCP service listens. */
export interface ListenAddress {
  /** An IPv4 or IPv6 address. */
  readonly address: string;
  /** 0 … 65535; 0 is any that is free. */
  readonly port: number;
}

/**
 * Reads `ADDRESS:PORT`, with brackets around an IPv6 address; `PORT` and `:PORT` mean the loopback address 127.0.0.1,
 * so that nothing is open to the network unless that is said. Null for anything else.
 */
export function parseListenAddress(text: string): ListenAddress | null {
  const [, bracketed, plain, digits] = /^(?:(?:\[(.+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65535) return null;
  if (bracketed !== undefined) return isIP(bracketed) === 6 ? { address: bracketed, port } : null;
  if (plain === undefined || plain === '') return { address: '127.0.0.1', port };
  return isIP(plain) === 4 ? { address: plain, port } : null;
}

/** `127.0.0.1:16646`, `[::1]:16646` */
export function listenAddressText({ address, port }: ListenAddress): string {
  return isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}
