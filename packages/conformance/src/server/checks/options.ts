import { UnixSocket } from '@ivshmem/linux/socket';
import { Failure } from '../../check.ts';
import { poll } from '../../pace.ts';
import type { ServerCheck, ServerContext, ServerSettings } from '../subject.ts';

const OPTIONS = 'docs/host-server.md, "Options"';

/** The server ends, or at least does not begin to serve. */
async function expectRejected({ start, pace, journal }: ServerContext, settings: Partial<ServerSettings>) {
  journal.note(`start with ${JSON.stringify(settings)}`);
  const server = start(settings);
  const outcome = await poll(pace.limit, () => {
    if (server.ending !== undefined) return 'ended';
    try {
      UnixSocket.connect(server.socket).close();
      return 'serves';
    } catch {
      return undefined;
    }
  });
  if (outcome === 'ended' && server.ending !== 'exit code 0') return;
  throw new Failure(
    'the end of the server, with an exit code other than 0',
    server.ending ?? 'a server that runs',
  );
}

function rejects(name: string, sentence: string, ...wrong: readonly Partial<ServerSettings>[]): ServerCheck {
  return {
    id: `server.options.${name}`,
    sentence,
    source: OPTIONS,
    level: 'SHOULD',
    startsServers: true,
    async run(context) {
      for (const settings of wrong) await expectRejected(context, settings);
    },
  };
}

/** Options that no peer could use. */
export const optionChecks: readonly ServerCheck[] = [
  rejects('too-few-peers', 'Fewer than 2 peers are rejected at startup.', { maxPeers: 1 }),
  rejects('too-many-peers', 'More peers than the state table has entries are rejected at startup.', {
    maxPeers: 1025,
    size: 1 << 27,
  }),
  rejects('no-vectors', 'Peers without a vector are rejected at startup.', { vectors: 0 }),
  rejects('no-room', 'Output sections that do not fit into the memory are rejected at startup.', {
    size: 1 << 16,
    sectionSize: 1 << 16,
  }),
  rejects('not-whole-pages', 'Output sections that are no multiple of a page are rejected at startup.', {
    sectionSize: 0x1800,
  }),
  rejects('wide-protocol', 'A protocol type of more than 16 bits is rejected at startup.', {
    protocol: 0x10001,
  }),
];
