import { readdirSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeEventFd, encodeInit, encodePeerGone } from '../protocol/server-messages.ts';
import { type ReceivedMessage, ServerConnection } from './server-connection.ts';

const openFds = () => readdirSync('/proc/self/fd').length;
const init = encodeInit({
  id: 1,
  maxPeers: 3,
  vectors: 2,
  protocol: 1,
  outputSectionSize: 0x1000,
});

describe('ServerConnection', () => {
  let before: number;
  let server: UnixSocket;
  let client: ServerConnection;
  let events: number[];

  beforeEach(() => {
    before = openFds();
    const [a, b] = UnixSocket.pair();
    server = a;
    client = new ServerConnection(b);
    events = [createEventFd(), createEventFd(), createEventFd()];
  });

  afterEach(() => {
    client.close();
    server.close();
    for (const fd of events) closeFd(fd);
    expect(openFds()).toBe(before);
  });

  function readMessage(): ReceivedMessage {
    const read = client.read();
    if (typeof read === 'string') throw new Error(`unexpected ${read}`);
    return read;
  }

  /** Reads a message that must carry the `index`-th event, and closes what came. */
  function expectEvent(index: number, expected: object): void {
    const { message, fd } = readMessage();
    expect(message).toMatchObject(expected);
    signalEventFd(events[index]!);
    expect(drainEventFd(fd!)).toBe(1n);
    closeFd(fd!);
  }

  it('assigns each descriptor to the message it was sent with, if all arrive before the first read', () => {
    server.send(init, [events[0]!]);
    server.send(encodePeerGone(0));
    server.send(encodeEventFd(0, 0), [events[1]!]);
    server.send(encodePeerGone(2));
    server.send(encodePeerGone(2));
    server.send(encodeEventFd(0, 1), [events[2]!]);
    expectEvent(0, { type: 'init', id: 1, maxPeers: 3 });
    expect(readMessage()).toEqual({ message: { type: 'peer-gone', id: 0 }, fd: null });
    expectEvent(1, { type: 'event-fd', id: 0, vector: 0 });
    expect(readMessage()).toEqual({ message: { type: 'peer-gone', id: 2 }, fd: null });
    expect(readMessage()).toEqual({ message: { type: 'peer-gone', id: 2 }, fd: null });
    expectEvent(2, { type: 'event-fd', id: 0, vector: 1 });
    expect(client.read()).toBe('wait');
    server.close();
    expect(client.read()).toBe('end');
  });

  it('assembles messages that arrive one byte at a time, with the descriptor at any of them', () => {
    const messages: [Uint8Array, number | null][] = [
      [init, 0],
      [encodeEventFd(2, 1), 1],
      [encodePeerGone(2), null],
    ];
    for (const [bytes, event] of messages) {
      for (let i = 0; i < bytes.length; i++) {
        expect(client.read()).toBe('wait');
        const carries = event !== null && i === bytes.length >> 1;
        server.send(bytes.subarray(i, i + 1), carries ? [events[event!]!] : []);
      }
      if (event === null) expect(readMessage()).toEqual({ message: { type: 'peer-gone', id: 2 }, fd: null });
      else expectEvent(event, {});
    }
  });

  it('skips unknown fields at the end of a message', () => {
    const longer = new Uint8Array(init.length + 1000).fill(0xff);
    longer.set(init);
    new DataView(longer.buffer).setUint32(4, longer.length, true);
    server.send(longer, [events[0]!]);
    server.send(encodePeerGone(0));
    expectEvent(0, { type: 'init' });
    expect(readMessage().message).toEqual({ type: 'peer-gone', id: 0 });
  });

  /** What the server sends instead of, or after, a valid INIT, and the text of the error. */
  const violations: [string, () => void, string][] = [
    ['INIT without a descriptor', () => server.send(init), 'INIT without a descriptor'],
    ['INIT with two', () => server.send(init, [events[0]!, events[1]!]), '2 descriptors'],
    [
      'two descriptors, apart',
      () => {
        server.send(init.subarray(0, 20), [events[0]!]);
        server.send(init.subarray(20), [events[1]!]);
      },
      '2 descriptors',
    ],
    ['EVENT_FD first', () => server.send(encodeEventFd(0, 0), [events[0]!]), 'event-fd before INIT'],
    [
      'an unknown type',
      () => server.send(Uint8Array.of(9, 0, 0, 0, 8, 0, 0, 0), [events[0]!]),
      'message type 9',
    ],
    [
      'an end inside INIT',
      () => {
        server.send(init.subarray(0, 9), [events[0]!]);
        server.close();
      },
      'after 9 bytes',
    ],
  ];
  it.each(violations)('rejects %s, and closes everything', (_name, send, text) => {
    send();
    expect(() => client.read()).toThrow(text);
    expect(client.read()).toBe('end');
  });

  const later: [string, () => void, string][] = [
    [
      'EVENT_FD without a descriptor',
      () => server.send(encodeEventFd(0, 0)),
      'EVENT_FD without a descriptor',
    ],
    ['PEER_GONE with one', () => server.send(encodePeerGone(0), [events[1]!]), 'PEER_GONE with a descriptor'],
    ['INIT again', () => server.send(init, [events[1]!]), 'INIT twice'],
    [
      'an ID beyond max_peers',
      () => server.send(encodeEventFd(3, 0), [events[1]!]),
      'id 3: expected less than',
    ],
    ['PEER_GONE beyond max_peers', () => server.send(encodePeerGone(3)), 'id 3: expected less than'],
    [
      'a vector beyond vectors',
      () => server.send(encodeEventFd(0, 2), [events[1]!]),
      'vector 2: expected less',
    ],
  ];
  it.each(later)('rejects %s after INIT, and closes everything', (_name, send, text) => {
    server.send(init, [events[0]!]);
    expectEvent(0, { type: 'init' });
    send();
    expect(() => client.read()).toThrow(text);
  });

  it('close() closes a descriptor whose message is not complete', () => {
    server.send(init.subarray(0, 30), [events[0]!]);
    expect(client.read()).toBe('wait');
    client.close();
    client.close();
  });
});
