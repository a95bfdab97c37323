import { fstatSync } from 'node:fs';
import { F_SEAL_SHRINK, sealsOf } from '@ivshmem/linux/memory';
import { dump } from '../../bytes.ts';
import { expectEqual, expectThat } from '../../check.ts';
import type { ServerClient } from '../client.ts';
import { INIT_FIELDS, STATE_TABLE_SIZE } from '../message.ts';
import { type ServerCheck, type ServerSettings, USUAL_SETTINGS } from '../subject.ts';

const MESSAGES = 'docs/protocol-0x0001.md, section 11';
const OPTIONS = 'docs/host-server.md, "Options"';

const initOf = async (client: ServerClient) => await client.expectInit();

/** INIT reports a setting of the server. */
function reports(
  name: string,
  field: keyof typeof INIT_FIELDS,
  option: string,
  value: keyof ServerSettings,
  settings: Partial<ServerSettings>,
): ServerCheck {
  return {
    id: `server.init.${name}`,
    sentence: `INIT reports the value of ${option}.`,
    source: OPTIONS,
    level: 'MUST',
    settings,
    async run({ first }) {
      const init = await initOf(first);
      const expected = { ...USUAL_SETTINGS, ...settings }[value];
      expectEqual(`${field}`, init.u32(INIT_FIELDS[field]), expected, [dump('INIT', init.bytes)]);
    },
  };
}

/** What INIT says, and the memory that comes with it. */
export const initChecks: readonly ServerCheck[] = [
  {
    id: 'server.init.first',
    sentence: 'The first message to a client is INIT, with one descriptor.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first }) {
      await first.expectInit();
    },
  },
  {
    id: 'server.init.length',
    sentence: 'INIT has 40 bytes, and its len says so.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first }) {
      const init = await initOf(first);
      expectEqual('len', init.length, 40, [dump('INIT', init.bytes)]);
    },
  },
  {
    id: 'server.init.version',
    sentence: 'version and compatible_version are 2.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first }) {
      const init = await initOf(first);
      const bytes = [dump('INIT', init.bytes)];
      expectEqual('compatible_version', init.u32(INIT_FIELDS.compatibleVersion), 2, bytes);
      expectEqual('version', init.u32(INIT_FIELDS.version), 2, bytes);
    },
  },
  {
    id: 'server.init.ranges',
    sentence:
      'max_peers is 2 to 1024, vectors is 1 to 1024, protocol has 16 bits, and id is below max_peers.',
    source: MESSAGES,
    level: 'MUST',
    async run({ first }) {
      const init = await initOf(first);
      const bytes = [dump('INIT', init.bytes)];
      const inRange = (name: keyof typeof INIT_FIELDS, minimum: number, maximum: number) => {
        const value = init.u32(INIT_FIELDS[name]);
        expectThat(
          value >= minimum && value <= maximum,
          `${name} ${minimum} to ${maximum}`,
          `${value}`,
          bytes,
        );
      };
      inRange('maxPeers', 2, 1024);
      inRange('vectors', 1, 1024);
      inRange('protocol', 0, 0xffff);
      inRange('id', 0, first.maxPeers - 1);
    },
  },
  reports('maximum-peers', 'maxPeers', '-n', 'maxPeers', { maxPeers: 7 }),
  reports('vectors', 'vectors', '-V', 'vectors', { vectors: 5 }),
  reports('protocol', 'protocol', '-P', 'protocol', { protocol: 0x4711 }),
  {
    id: 'server.init.section-size',
    sentence: 'INIT reports the value of -o, in 64 bits.',
    source: OPTIONS,
    level: 'MUST',
    settings: { sectionSize: 0x9000 },
    async run({ first }) {
      const init = await initOf(first);
      expectEqual('output_section_size', init.sectionSize, 0x9000, [dump('INIT', init.bytes)]);
    },
  },
  {
    id: 'server.init.virtio',
    sentence:
      'With a virtio protocol, peer 0 gets the type of the back end (bit 14 set), peer 1 that of the front end.',
    source: OPTIONS,
    level: 'MUST',
    settings: { protocol: 0x8003, maxPeers: 2 },
    async run({ first, join }) {
      await first.join([]);
      const second = await join([0]);
      for (const [client, type] of [
        [first, 0xc003],
        [second, 0x8003],
      ] as const) {
        expectEqual(`protocol of peer ${client.id}`, client.init.u32(INIT_FIELDS.protocol), type, [
          dump('INIT', client.init.bytes),
        ]);
      }
    },
  },
  {
    id: 'server.memory.size',
    sentence: 'The memory has the size of -l, rounded up to a power of two.',
    source: OPTIONS,
    level: 'MUST',
    settings: { size: 0xa0000 },
    async run({ first }) {
      await initOf(first);
      expectEqual('size of the memory', fstatSync(first.memory).size, 0x100000);
    },
  },
  {
    id: 'server.memory.room',
    sentence:
      'The memory has room for the state table and all output sections; their sizes are multiples of a page.',
    source: 'docs/protocol-0x0001.md, section 3',
    level: 'MUST',
    async run({ first }) {
      const init = await initOf(first);
      const { size } = fstatSync(first.memory);
      const needed = STATE_TABLE_SIZE + first.maxPeers * init.sectionSize;
      const bytes = [dump('INIT', init.bytes)];
      expectThat(size >= needed && size % 4096 === 0, `memory of at least ${needed} bytes`, `${size}`, bytes);
      expectThat(
        init.sectionSize % 4096 === 0,
        'sections of whole pages',
        `${init.sectionSize} bytes`,
        bytes,
      );
    },
  },
  {
    id: 'server.memory.shared',
    sentence: 'All clients get the same memory, and can write to it.',
    source: 'docs/protocol-0x0001.md, section 11',
    level: 'MUST',
    async run({ first, join, random }) {
      await first.join([]);
      const second = await join([0]);
      const sent = new Uint8Array(64);
      random.fill(sent);
      const end = fstatSync(first.memory).size - sent.length;
      first.write(end, sent);
      const seen = second.read(end, sent.length);
      expectThat(Buffer.compare(sent, seen) === 0, 'the bytes that the other client wrote', 'others', [
        dump('written', sent),
        dump('read', seen),
      ]);
    },
  },
  {
    id: 'server.memory.zero',
    sentence: 'A client that is alone finds the whole memory zero.',
    source: 'docs/host-server.md, "Security"',
    level: 'SHOULD',
    async run({ first }) {
      await initOf(first);
      const bytes = first.read(0, fstatSync(first.memory).size);
      const at = bytes.findIndex((byte) => byte !== 0);
      expectThat(
        at === -1,
        'zeros',
        `another byte at ${at}`,
        at === -1 ? [] : [dump('memory', bytes, at & ~15, 16)],
      );
    },
  },
  {
    id: 'server.memory.sealed',
    sentence:
      'A client cannot truncate the memory (F_SEAL_SHRINK), which would kill all that have it mapped.',
    source: 'docs/protocol-0x0001.md, section 10',
    level: 'SHOULD',
    async run({ first }) {
      await initOf(first);
      expectThat(
        (sealsOf(first.memory) & F_SEAL_SHRINK) !== 0,
        'F_SEAL_SHRINK',
        `seals ${sealsOf(first.memory)}`,
      );
    },
  },
];
