import { dump } from '../../bytes.ts';
import { expectEqual, expectThat } from '../../check.ts';
import { awaitAnswer } from '../../pace.ts';
import type { ServerClient } from '../client.ts';
import { EVENT_FD, PEER_GONE } from '../message.ts';
import type { ServerCheck } from '../subject.ts';
import { joinPair } from './pair.ts';

const MESSAGES = 'docs/protocol-0x0001.md, section 11';

/** Rings a doorbell, and expects one interrupt of that vector, and none of any other at any of the clients. */
function expectDoorbell(
  clients: readonly ServerClient[],
  from: ServerClient,
  to: ServerClient,
  vector: number,
): void {
  for (const client of clients) client.interrupts();
  from.ring(to.id, vector);
  for (const client of clients) {
    const expected = Array.from({ length: client.vectors }, (_, i) => Number(client === to && i === vector));
    const came = client.interrupts();
    const what = `interrupts of peer ${client.id} after peer ${from.id} rang vector ${vector} of peer ${to.id}:`;
    expectEqual(what, came.join(' '), expected.join(' '));
  }
}

/** The order of messages to clients that connect, and their descriptors. */
export const orderChecks: readonly ServerCheck[] = [
  {
    id: 'server.order.alone',
    sentence: 'The first client gets INIT, then the eventfds of its own vectors, from vector 0.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first }) {
      await first.join([]);
    },
  },
  {
    id: 'server.order.newcomer',
    sentence: 'A client gets the eventfds of the peers that are connected already, then its own.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first, join, needPeers }) {
      await first.join([]);
      await join([0]);
      needPeers(3);
      await join([0, 1]);
    },
  },
  {
    id: 'server.order.others',
    sentence: 'Each connected client gets the eventfds of a newcomer once, from vector 0.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first, join, needPeers }) {
      await first.join([]);
      needPeers(3);
      const second = await join([0]);
      await join([0, 1]);
      for (const id of [1, 2]) await first.expectEvents(id);
      await second.expectEvents(2);
    },
  },
  {
    id: 'server.order.lengths',
    sentence: 'EVENT_FD has 16 bytes and PEER_GONE 12, and their len says so.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first, join }) {
      await first.join([]);
      (await join([0])).disconnect();
      await first.expectEvents(1);
      await first.expectGone(1);
      for (const message of first.log) {
        const size = message.type === EVENT_FD ? 16 : message.type === PEER_GONE ? 12 : 40;
        expectEqual(`len of ${message}:`, message.length, size, [dump('the message', message.bytes)]);
      }
    },
  },
  {
    id: 'server.order.descriptors',
    sentence: 'INIT and EVENT_FD carry exactly one descriptor, PEER_GONE carries none.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first, join, pace }) {
      const second = await join([0]);
      second.disconnect();
      await awaitAnswer(
        pace,
        () => {
          first.pump();
          return first.pending.some(({ type }) => type === PEER_GONE) || undefined;
        },
        'PEER_GONE',
        () => first.pending.join('; '),
      );
      for (const message of [...second.log, ...first.pending]) {
        const count = message.type === PEER_GONE ? 0 : 1;
        expectEqual(`descriptors of ${message}:`, message.fds.length, count, [
          dump('the message', message.bytes),
        ]);
      }
    },
  },
  {
    id: 'server.order.one-per-read',
    sentence:
      'A read(2) returns one message, even to a client that reads late: others assign any descriptor to it.',
    source: 'docs/host-server.md, "Limits"',
    level: 'SHOULD',
    async run(context) {
      const { pace, join } = context;
      const { first, second } = await joinPair(context);
      second.disconnect();
      // PEER_GONE has arrived, and stays unread while the next client joins.
      await awaitAnswer(
        pace,
        () => first.socket.peek() === 'data' || undefined,
        'PEER_GONE of peer 1',
        () => 'nothing',
      );
      await join([0]);
      const read = async () => {
        const bytes = new Uint8Array(4096);
        const fds: number[] = [];
        const count = await awaitAnswer(
          pace,
          () => {
            const received = first.socket.receive(bytes, fds);
            return received === -1 ? undefined : received;
          },
          'a message',
          () => 'nothing',
        );
        first.own(fds);
        return { bytes: bytes.subarray(0, count), fds };
      };
      const sizes = { 1: 16, 2: 12 } as Record<number, number>;
      for (let i = 0; i < 1 + first.vectors; i++) {
        const { bytes, fds } = await read();
        const size = sizes[bytes[0]!] ?? 0;
        const expected = `${size} bytes of one message`;
        expectThat(bytes.length === size, expected, `${bytes.length} bytes, ${fds.length} descriptors`, [
          dump('the read', bytes),
        ]);
      }
    },
  },
  {
    id: 'server.doorbell.eventfds',
    sentence: 'Each vector of each peer has an eventfd of its own.',
    source: MESSAGES,
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      for (const to of [first, second]) {
        for (let vector = 0; vector < to.vectors; vector++) expectDoorbell([first, second], to, to, vector);
      }
    },
  },
  {
    id: 'server.doorbell.crossing',
    sentence:
      'An eventfd that a client gets for a vector of another peer interrupts that vector of that peer, and no other.',
    source: MESSAGES,
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      for (let vector = 0; vector < first.vectors; vector++) {
        expectDoorbell([first, second], first, second, vector);
        expectDoorbell([first, second], second, first, vector);
      }
    },
  },
];
