import { isIP } from 'node:net';

/** The address of a TCP service. */
export interface ListenAddress {
  /** An IPv4 or IPv6 address. */
  readonly address: string;
  /** 0 … 65535; 0 chooses a free port. */
  readonly port: number;
}

/**
 * Parses `ADDRESS:PORT`, with brackets around an IPv6 address; `PORT` and `:PORT` use 127.0.0.1, so that the service is
 * open to the network only if an address is given. Returns null for anything else.
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
