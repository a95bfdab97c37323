import { closeFd } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import { expectThat, Failure } from '../../check.ts';
import { awaitAnswer, delay, now } from '../../pace.ts';
import type { ServerClient } from '../client.ts';
import { EVENT_FD, PEER_GONE } from '../message.ts';
import type { ServerCheck, ServerContext } from '../subject.ts';
import { joinPair } from './pair.ts';

const MESSAGES = 'docs/protocol-0x0001.md, section 11';
const SECURITY = 'docs/host-server.md, "Security"';
/** Joins and departures that a client does not read: more messages than any reasonable queue holds. */
const MANY = 60;
/** So many of these at least, however slow the server is. */
const FEW = 20;

/**
 * Reads what a client has received about others that came and went: for each peer its eventfds from vector 0, then PEER_GONE,
 * then perhaps the same again. `expected` peers are connected at the end. Throws Failure for any other order, and if it does
 * not come to that.
 */
async function expectBalanced(client: ServerClient, { pace }: ServerContext, expected: readonly number[]) {
  const vectors = new Map<number, number>();
  const isThere = () =>
    vectors.size === expected.length && expected.every((id) => vectors.get(id) === client.vectors);
  const read = () => {
    client.pump();
    for (let next = client.pending.shift(); next !== undefined; next = client.pending.shift()) {
      const known = vectors.get(next.peer) ?? 0;
      if (next.type === EVENT_FD && next.vector === known) vectors.set(next.peer, known + 1);
      else if (next.type === PEER_GONE && known === client.vectors) vectors.delete(next.peer);
      else
        throw new Failure(
          `the next vector of peer ${next.peer}, ${known}, or PEER_GONE after the last`,
          `${next}`,
        );
    }
    if (client.hasEnded) throw new Failure('the connection to go on', 'its end');
    return isThere() || undefined;
  };
  const description = () => `peers ${[...vectors.keys()].join(', ') || 'none'}`;
  await awaitAnswer(
    pace,
    read,
    `announcements that leave peers ${expected.join(', ') || 'none'}`,
    description,
  );
}

/** A client joins, and its announcement reaches `witness`: the server works. */
async function expectService(context: ServerContext, witness: ServerClient): Promise<ServerClient> {
  const client = await context.connect();
  const init = await client.expectInit();
  const id = init.u32(16);
  await expectBalanced(witness, context, [id]);
  return client;
}

/** Clients that behave badly, or leave at the worst moment. */
export const clientChecks: readonly ServerCheck[] = [
  {
    id: 'server.clients.full',
    sentence:
      'Without a free ID, the connection is closed without a message, and the other clients are not disturbed.',
    source: MESSAGES,
    level: 'MUST',
    settings: { maxPeers: 2 },
    async run(context) {
      const { connect, journal, join } = context;
      const { first, second } = await joinPair(context);
      journal.note('one client more than -n');
      await (await connect()).expectEnd();
      second.disconnect();
      await first.expectGone(1);
      await join([0]);
      await first.expectEvents(1);
    },
  },
  {
    id: 'server.clients.leaves-at-once',
    sentence: 'Clients that leave before they are accepted, or before they have read, take no ID for good.',
    source: SECURITY,
    level: 'MUST',
    hostile: true,
    async run(context) {
      const { first, connect } = context;
      await first.join([]);
      for (let i = 0; i < 3 * first.maxPeers; i++) (await connect()).disconnect();
      await expectFree(context);
    },
  },
  {
    id: 'server.clients.leaves-at-each-step',
    sentence: 'A client can leave after any message that it reads; the others see whole announcements.',
    source: SECURITY,
    level: 'MUST',
    hostile: true,
    async run(context) {
      const { first, connect, journal } = context;
      await first.join([]);
      for (let read = 0; read <= 1 + 2 * first.vectors; read++) {
        journal.note(`a client leaves after ${read} messages`);
        const client = await connect();
        for (let i = 0; i < read; i++) if ((await client.next('a message')) === 'end') break;
        client.disconnect();
      }
      await expectFree(context);
    },
  },
  {
    id: 'server.clients.sends',
    sentence: 'A client that sends data is disconnected; the others are not disturbed.',
    source: SECURITY,
    level: 'SHOULD',
    hostile: true,
    async run(context) {
      const { first, join, journal, pace, random } = context;
      await first.join([]);
      const sender = await join([0]);
      const bytes = new Uint8Array(24);
      random.fill(bytes);
      journal.note('peer 1 sends 24 random bytes');
      sender.socket.send(bytes);
      await awaitAnswer(
        pace,
        () => sender.hasEnded || undefined,
        'the end of its connection',
        () => 'nothing',
      );
      await expectBalanced(first, context, []);
      await expectService(context, first);
    },
  },
  {
    id: 'server.clients.sends-descriptors',
    sentence: 'A client that sends descriptors does not disturb the server.',
    source: SECURITY,
    level: 'MUST',
    hostile: true,
    async run(context) {
      const { first, join, journal } = context;
      await first.join([]);
      const sender = await join([0]);
      journal.note('peer 1 sends 1 byte with 20 descriptors');
      sender.socket.send(
        Uint8Array.of(0),
        Array.from({ length: 20 }, () => first.memory),
      );
      sender.disconnect();
      await expectBalanced(first, context, []);
      await expectService(context, first);
    },
  },
  {
    id: 'server.clients.late-reader',
    sentence: 'A client that reads late gets all messages, in order.',
    source: MESSAGES,
    level: 'MUST',
    async run(context) {
      const { first, join, journal, needPeers } = context;
      await first.join([]);
      needPeers(3);
      const second = await join([0]);
      journal.note('peer 0 reads nothing while 20 clients join and leave');
      for (let i = 0; i < 20; i++) {
        (await join([0, 1])).disconnect();
        await second.expectEvents(2);
        await second.expectGone(2);
      }
      await join([0, 1]);
      await second.expectEvents(2);
      await expectBalanced(first, context, [1, 2]);
    },
  },
  {
    id: 'server.clients.does-not-read',
    sentence: 'The other clients do not wait for one that does not read.',
    source: SECURITY,
    level: 'MUST',
    hostile: true,
    settings: { vectors: 16 },
    async run(context) {
      const { first, connect, join, journal } = context;
      await first.join([]);
      journal.note('peer 1 reads nothing while 20 clients with 16 vectors join and leave');
      await connect();
      await first.expectEvents(1);
      for (let i = 0; i < 20; i++) {
        (await join([0, 1])).disconnect();
        await first.expectEvents(2);
        await first.expectGone(2);
      }
    },
  },
  {
    id: 'server.clients.unread-bounded',
    sentence:
      'A client that does not read is disconnected, or gets only what is still of use when it reads: messages do not pile up.',
    source: 'docs/host-server.md, "Limits"',
    level: 'SHOULD',
    hostile: true,
    settings: { vectors: 16 },
    async run(context) {
      const { first, connect, journal, pace } = context;
      await first.join([]);
      const silent = await connect();
      await first.expectEvents(1);
      journal.note(`peer 1 reads nothing while up to ${MANY} clients with 16 vectors join and leave`);
      const began = now();
      let joins = 0;
      for (; joins < MANY && (joins < FEW || now() - began < 2 * pace.limit); joins++) {
        const client = await connect();
        await client.expectInit();
        client[Symbol.dispose]();
        first.pump();
        const isGone = first.pending.some(({ type, peer }) => type === PEER_GONE && peer === 1);
        if (isGone) return;
        first.discard();
      }
      let messages = 0;
      for (let last = now(); !silent.hasEnded && now() - last < pace.quiet; await delay(1)) {
        if (silent.pending.length > 0) last = now();
        messages += silent.pending.length;
        silent.discard();
      }
      const missed = joins * (1 + first.vectors);
      expectThat(messages < missed / 2, `less than half of ${missed} messages`, `${messages}`);
    },
  },
  {
    id: 'server.limits.1024-peers',
    sentence: 'With -n 1024, 1024 clients get IDs 0 to 1023, and each the eventfds of all.',
    source: 'docs/host-server.md, "Limits"',
    level: 'MUST',
    settings: { maxPeers: 1024, vectors: 1, sectionSize: 4096, size: 1 << 23 },
    async run({ settings, connect, pace, journal }) {
      const { maxPeers } = settings!;
      const clients: Counter[] = [];
      // The client with ID 0 is there already.
      for (let id = 1; id < maxPeers; id++) {
        const client = new Counter((await connect()).socket);
        clients.push(client);
        await awaitAnswer(
          pace,
          () => {
            client.read();
            return client.events === id + 1 || undefined;
          },
          `${id + 1} eventfds for the client with ID ${id}`,
          () => `${client.events} eventfds for the client with ID ${client.id}`,
        );
        if (client.id !== id) throw new Failure(`ID ${id}`, `ID ${client.id}`);
        for (const other of clients) other.read();
        if (id % 128 === 0) journal.note(`${id} clients are connected`);
      }
      await awaitAnswer(
        pace,
        () => {
          for (const client of clients) client.read();
          return clients.every(({ events }) => events === maxPeers) || undefined;
        },
        `${maxPeers} eventfds for each client`,
        () => `${Math.min(...clients.map(({ events }) => events))} for one of them`,
      );
    },
  },
];

/** All IDs but that of the first client are free: as many clients can join, and each is announced. */
async function expectFree(context: ServerContext): Promise<void> {
  const { first, connect, pace } = context;
  const began = now();
  const joined: ServerClient[] = [];
  while (joined.length < first.maxPeers - 1) {
    const client = await connect();
    const next = await client.next('INIT');
    if (next !== 'end') {
      joined.push(client);
      continue;
    }
    const isLate = now() - began > pace.limit;
    expectThat(
      !isLate,
      `${first.maxPeers - 1} free IDs`,
      `${joined.length}, although their clients have left`,
    );
    await delay(5);
  }
  await expectBalanced(
    first,
    context,
    joined.map((_, index) => index + 1),
  );
}

/** A client that counts messages of its server, and keeps nothing. */
class Counter {
  id = -1;
  events = 0;
  readonly #socket: UnixSocket;
  readonly #bytes = new Uint8Array(40);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #fds: number[] = [];

  constructor(socket: UnixSocket) {
    this.#socket = socket;
  }

  read(): void {
    for (;;) {
      const received = this.#socket.receive(this.#bytes.subarray(0, this.id === -1 ? 40 : 16), this.#fds);
      for (const fd of this.#fds.splice(0)) closeFd(fd);
      if (received === -1) return;
      if (received === 0) throw new Failure('the connection to go on', 'its end');
      if (this.id === -1) this.id = this.#view.getUint32(16, true);
      else if (this.#view.getUint32(0, true) === EVENT_FD) this.events++;
      else throw new Failure('EVENT_FD', `type ${this.#view.getUint32(0, true)}`);
    }
  }
}
