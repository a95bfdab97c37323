import { describe, expect, it } from 'vitest';
import { listenAddressText, parseListenAddress } from './listen-address.ts';

describe('listen addresses', () => {
  it.each([
    ['9100', '127.0.0.1', 9100],
    [':9100', '127.0.0.1', 9100],
    ['0.0.0.0:80', '0.0.0.0', 80],
    ['10.1.2.3:0', '10.1.2.3', 0],
    ['[::1]:65535', '::1', 65535],
    ['[::]:9100', '::', 9100],
  ])('%s', (text, address, port) => {
    expect(parseListenAddress(text)).toEqual({ address, port });
    expect(parseListenAddress(listenAddressText({ address, port }))).toEqual({ address, port });
  });

  it.each([
    '',
    ':',
    '65536',
    '-1',
    'localhost:80',
    '::1:80',
    '[127.0.0.1]:80',
    '1.2.3:80',
    '[::1]',
    '80x',
    ' 80',
  ])('%j is none', (text) => expect(parseListenAddress(text)).toBeNull());
});
