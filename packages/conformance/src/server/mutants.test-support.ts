import { writeSync } from 'node:fs';
import { createMemfd } from '@ivshmem/linux/memory';
import { createEventFd } from '@ivshmem/linux/wait';
import type { Mutant } from '../mutant.test-support.ts';
import { EVENT_FD, INIT, INIT_FIELDS, type Message, PEER_GONE } from './message.ts';
import type { Outgoing, ProxyClient, ServerFault, ServerProxy } from './proxy.test-support.ts';
import type { ServerSettings } from './subject.ts';

export interface ServerMutant extends Mutant, ServerFault {}

/** The message with a u32 changed. */
function set(message: Outgoing, offset: number, value: number): Outgoing {
  const bytes = message.bytes.slice();
  new DataView(bytes.buffer).setUint32(offset, value, true);
  return { bytes, fds: message.fds };
}

/** Changes a field of INIT. */
const initField = (offset: number, value: (before: number, message: Message) => number): ServerFault => ({
  message: (message) =>
    message.type === INIT ? [set(message, offset, value(message.u32(offset), message))] : [message],
});

/** Changes messages of one type. */
const each = (
  type: number,
  change: (message: Message, client: ProxyClient, proxy: ServerProxy) => readonly Outgoing[],
): ServerFault => ({
  message: (message, client, proxy) => (message.type === type ? change(message, client, proxy) : [message]),
});

/** Longer by some bytes, and its len says so. */
function longer(message: Outgoing, by: number): Outgoing {
  const bytes = new Uint8Array(message.bytes.length + by);
  bytes.set(message.bytes);
  return set({ bytes, fds: message.fds }, 4, bytes.length);
}

/** Writes to the shared memory, through the descriptor of a client's INIT. */
function writeMemory({ init }: ProxyClient, offset: number, bytes: readonly number[]): void {
  writeSync(init!.fds[0]!, Uint8Array.from(bytes), 0, bytes.length, offset);
}

function sectionOf(message: Message, id: number, size: number): number {
  return size - (message.u32(INIT_FIELDS.maxPeers) - id) * message.sectionSize;
}

const clamp = (key: keyof ServerSettings, to: (settings: ServerSettings) => number): ServerFault => ({
  settings: (settings) => ({ ...settings, [key]: to(settings) }),
});

/** A descriptor of the proxy, made once. */
function once(proxy: ServerProxy, name: string, make: () => number): number {
  const known = proxy.memory.get(name);
  if (known !== undefined) return known;
  const fd = make();
  proxy.memory.set(name, fd);
  proxy.fds.push(fd);
  return fd;
}

/** Memory in place of the server's own. */
const withMemory = (size: number, isFor: (id: number) => boolean = () => true): ServerFault =>
  each(INIT, (message, client, proxy) =>
    isFor(client.id)
      ? [{ bytes: message.bytes, fds: [once(proxy, 'memory', () => createMemfd('mutant', size))] }]
      : [message],
  );

/** Keeps messages back until the one that `ends` accepts, which goes first. */
const after = (
  holds: (m: Message, c: ProxyClient) => boolean,
  ends: (m: Message, c: ProxyClient) => boolean,
): ServerFault => ({
  message(message, client) {
    if (holds(message, client)) {
      client.held.push(message);
      return [];
    }
    return ends(message, client) ? [message, ...client.held.splice(0)] : [message];
  },
});

const initMutants: readonly ServerMutant[] = [
  {
    fault: 'INIT comes after the first eventfd',
    check: 'server.init.first',
    ...after(
      ({ type }) => type === INIT,
      ({ type }) => type === EVENT_FD,
    ),
  },
  {
    fault: 'INIT carries no descriptor',
    check: 'server.init.first',
    ...each(INIT, ({ bytes }) => [{ bytes, fds: [] }]),
  },
  {
    fault: 'INIT has 48 bytes',
    check: 'server.init.length',
    ...each(INIT, (message) => [longer(message, 8)]),
  },
  { fault: 'compatible_version is 1', check: 'server.init.version', ...initField(12, () => 1) },
  { fault: 'version is 0', check: 'server.init.version', ...initField(8, () => 0) },
  {
    fault: 'the protocol type has 17 bits',
    check: 'server.init.ranges',
    ...initField(28, (before) => before | 0x10000),
  },
  { fault: 'max_peers is 2000', check: 'server.init.ranges', ...initField(20, () => 2000) },
  {
    fault: 'max_peers is one too small',
    check: 'server.init.maximum-peers',
    ...initField(20, (before) => before - 1),
  },
  {
    fault: 'vectors is one too large',
    check: 'server.init.vectors',
    ...initField(24, (before) => before + 1),
  },
  {
    fault: 'the protocol type loses its upper byte',
    check: 'server.init.protocol',
    ...initField(28, (before) => before & 0xff),
  },
  {
    fault: 'output_section_size is in pages',
    check: 'server.init.section-size',
    ...initField(32, (before) => before / 4096),
  },
  {
    fault: 'output_section_size has garbage in its upper half',
    check: 'server.init.section-size',
    ...initField(36, () => 1),
  },
  {
    fault: 'both virtio peers get the type of the front end',
    check: 'server.init.virtio',
    ...initField(28, (before) => before & ~0x4000),
  },
  {
    fault: 'the virtio roles are exchanged',
    check: 'server.init.virtio',
    ...initField(28, (before) => before ^ 0x4000),
  },
  { fault: 'the size of the memory is not rounded up', check: 'server.memory.size', ...withMemory(0xa0000) },
  { fault: 'the sections do not fit into the memory', check: 'server.memory.room', ...withMemory(0x10000) },
  {
    fault: 'sections are no multiple of a page',
    check: 'server.memory.room',
    ...initField(32, (before) => before - 64),
  },
  {
    fault: 'the second client gets memory of its own',
    check: 'server.memory.shared',
    ...withMemory(1 << 20, (id) => id === 1),
  },
  {
    fault: 'new memory is not zero',
    check: 'server.memory.zero',
    ...each(INIT, (message, client) => {
      writeMemory(client, 0x8765, [1]);
      return [message];
    }),
  },
  {
    fault: 'clients can truncate the memory',
    check: 'server.memory.sealed',
    server: { sharedMemory: { kind: 'memfd', seal: false } },
  },
];

const orderMutants: readonly ServerMutant[] = [
  {
    fault: 'vector 1 comes before vector 0',
    check: 'server.order.alone',
    ...after(
      ({ type, vector }) => type === EVENT_FD && vector === 0,
      ({ type, vector }) => type === EVENT_FD && vector === 1,
    ),
  },
  {
    fault: 'the last vector is not sent',
    check: 'server.order.alone',
    ...each(EVENT_FD, (message) => (message.vector === 1 ? [] : [message])),
  },
  {
    fault: 'a client gets its own eventfds before those of the others',
    check: 'server.order.newcomer',
    ...after(
      ({ type, peer }, { id }) => type === EVENT_FD && peer < id,
      ({ type, peer, vector }, { id }) => type === EVENT_FD && peer === id && vector === 1,
    ),
  },
  {
    fault: 'a newcomer is not sent the eventfds of the peers before it',
    check: 'server.order.newcomer',
    ...each(EVENT_FD, (message, { id }) => (message.peer < id ? [] : [message])),
  },
  {
    fault: 'a newcomer is announced twice',
    check: 'server.order.others',
    ...each(EVENT_FD, (message, { id }) => (message.peer > id ? [message, message] : [message])),
  },
  {
    fault: 'a newcomer is announced to peer 0 only',
    check: 'server.order.others',
    ...each(EVENT_FD, (message, { id }) => (message.peer > id && id > 0 ? [] : [message])),
  },
  {
    fault: 'PEER_GONE has 16 bytes',
    check: 'server.order.lengths',
    ...each(PEER_GONE, (message) => [longer(message, 4)]),
  },
  {
    fault: 'EVENT_FD has 20 bytes',
    check: 'server.order.lengths',
    ...each(EVENT_FD, (message) => [longer(message, 4)]),
  },
  {
    fault: 'PEER_GONE carries a descriptor',
    check: 'server.order.descriptors',
    ...each(PEER_GONE, ({ bytes }, client) => [{ bytes, fds: client.init!.fds }]),
  },
  {
    fault: 'an EVENT_FD carries two descriptors',
    check: 'server.order.descriptors',
    ...each(EVENT_FD, ({ bytes, fds }) => [{ bytes, fds: [...fds, ...fds] }]),
  },
  {
    fault: 'messages follow a PEER_GONE that the client has not read',
    check: 'server.order.one-per-read',
    ignoresUnread: true,
  },
  {
    fault: 'all vectors of a peer share one eventfd',
    check: 'server.doorbell.eventfds',
    ...each(EVENT_FD, ({ bytes, fds, peer, vector }, _client, proxy) => {
      const first = `first of ${peer}`;
      if (vector === 0) proxy.memory.set(first, fds[0]!);
      return [{ bytes, fds: [proxy.memory.get(first)!] }];
    }),
  },
  {
    fault: 'the other peers get the eventfds of a wrong vector',
    check: 'server.doorbell.crossing',
    ...each(EVENT_FD, (message, { id }, proxy) => {
      const key = `${message.peer}.${message.vector}`;
      if (message.peer === id) proxy.memory.set(key, message.fds[0]!);
      const other = proxy.memory.get(`${message.peer}.${1 - message.vector}`);
      return message.peer !== id && other !== undefined
        ? [{ bytes: message.bytes, fds: [other] }]
        : [message];
    }),
  },
  {
    fault: 'the other peers get eventfds that interrupt no peer',
    check: 'server.doorbell.crossing',
    ...each(EVENT_FD, (message, { id }, proxy) => {
      if (message.peer === id) return [message];
      return [
        {
          bytes: message.bytes,
          fds: [once(proxy, `${id}.${message.peer}.${message.vector}`, createEventFd)],
        },
      ];
    }),
  },
];

const departureMutants: readonly ServerMutant[] = [
  {
    fault: 'a departure is not announced',
    check: 'server.departure.announced',
    ...each(PEER_GONE, () => []),
  },
  {
    fault: 'a departure is announced twice',
    check: 'server.departure.announced',
    ...each(PEER_GONE, (message) => [message, message]),
  },
  {
    fault: 'PEER_GONE names the ID after that of the departed peer',
    check: 'server.departure.announced',
    ...each(PEER_GONE, (message) => [set(message, 8, message.peer + 1)]),
  },
  {
    fault: 'the state of a departed peer stays',
    check: 'server.departure.state',
    ...each(PEER_GONE, (message, client) => {
      writeMemory(client, 4 * message.peer, [3]);
      return [message];
    }),
  },
  {
    fault: 'a departure sets all states to 0',
    check: 'server.departure.other-states',
    ...each(PEER_GONE, (message, client) => {
      writeMemory(
        client,
        0,
        Array.from({ length: 32 }, () => 0),
      );
      return [message];
    }),
  },
  {
    fault: 'the state entry is not cleared for the next peer',
    check: 'server.departure.next-state',
    ...each(INIT, (message, client) => {
      if (client.id > 0) writeMemory(client, 4 * client.id, [3]);
      return [message];
    }),
  },
  {
    fault: 'IDs are skipped',
    check: 'server.departure.lowest-id',
    message: (message) => {
      const offset = message.type === INIT ? 16 : 8;
      const id = message.u32(offset);
      return [id < 2 ? message : set(message, offset, 5 - id)];
    },
  },
  {
    fault: 'a new peer gets the eventfds of its predecessor',
    check: 'server.departure.new-eventfds',
    ...each(EVENT_FD, ({ bytes, peer, vector }, _client, proxy) => [
      { bytes, fds: [once(proxy, `${peer}.${vector}`, createEventFd)] },
    ]),
  },
  {
    fault: 'the output section is not cleared for the next peer',
    check: 'server.departure.section',
    ...each(INIT, (message, client) => {
      const end = sectionOf(message, client.id + 1, 1 << 20);
      if (client.id > 0) writeMemory(client, end - 4, [1, 2, 3, 4]);
      return [message];
    }),
  },
  {
    fault: 'a departure clears the sections of all peers',
    check: 'server.departure.others-memory',
    ...each(PEER_GONE, (message, client) => {
      writeMemory(
        client,
        4096,
        Array.from({ length: (1 << 20) - 4096 }, () => 0),
      );
      return [message];
    }),
  },
  {
    fault: 'the memory keeps its content when all peers have left',
    check: 'server.departure.all',
    ...each(INIT, (message, client) => {
      if (client.id === 0) writeMemory(client, 0x1234, [0x55]);
      return [message];
    }),
  },
];

const clientMutants: readonly ServerMutant[] = [
  {
    fault: 'a client without an ID is left without an answer',
    check: 'server.clients.full',
    onEnd() {},
  },
  {
    fault: 'one client too many ends all connections',
    check: 'server.clients.full',
    onEnd(_client, proxy) {
      for (const client of [...proxy.clients]) proxy.close(client);
    },
  },
  {
    fault: 'a client that leaves before it has read keeps its ID',
    check: 'server.clients.leaves-at-once',
    keeps: ({ passed }) => passed.length <= 5,
  },
  {
    fault: 'a client that leaves between two messages keeps its ID',
    check: 'server.clients.leaves-at-each-step',
    keeps: ({ passed }) => passed.length > 0,
  },
  { fault: 'data of clients has no effect', check: 'server.clients.sends', ignoresData: true },
  {
    fault: 'descriptors of a client end the server',
    check: 'server.clients.sends-descriptors',
    onDescriptors(proxy) {
      for (const client of [...proxy.clients]) proxy.close(client);
    },
  },
  {
    fault: 'messages that a client does not read at once are lost',
    check: 'server.clients.late-reader',
    dropsUnread: true,
  },
  {
    fault: 'one client that does not read keeps all others waiting',
    check: 'server.clients.does-not-read',
    waitsForSlowest: true,
  },
  {
    fault: 'messages pile up for a client that does not read',
    check: 'server.clients.unread-bounded',
    queuesUnread: true,
  },
  {
    fault: 'there are no more than 64 peers, whatever -n says',
    check: 'server.limits.1024-peers',
    ...clamp('maxPeers', ({ maxPeers }) => Math.min(maxPeers, 64)),
  },
];

const optionMutants: readonly ServerMutant[] = [
  {
    fault: '-n 1 starts a server for two peers',
    check: 'server.options.too-few-peers',
    ...clamp('maxPeers', ({ maxPeers }) => Math.max(maxPeers, 2)),
  },
  {
    fault: '-n 1025 starts a server for 1024 peers',
    check: 'server.options.too-many-peers',
    ...clamp('maxPeers', ({ maxPeers }) => Math.min(maxPeers, 1024)),
  },
  {
    fault: '-V 0 starts a server with one vector',
    check: 'server.options.no-vectors',
    ...clamp('vectors', ({ vectors }) => Math.max(vectors, 1)),
  },
  {
    fault: 'sections that do not fit are accepted',
    check: 'server.options.no-room',
    ...clamp('sectionSize', ({ size, sectionSize }) => Math.min(sectionSize, size / 16)),
  },
  {
    fault: 'sections are rounded down to whole pages',
    check: 'server.options.not-whole-pages',
    ...clamp('sectionSize', ({ sectionSize }) => sectionSize - (sectionSize % 4096)),
  },
  {
    fault: 'the protocol type is cut to 16 bits',
    check: 'server.options.wide-protocol',
    ...clamp('protocol', ({ protocol }) => protocol & 0xffff),
  },
];

export const serverMutants: readonly ServerMutant[] = [
  ...initMutants,
  ...orderMutants,
  ...departureMutants,
  ...clientMutants,
  ...optionMutants,
];
