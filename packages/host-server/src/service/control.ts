import { ControlServer, handleStatus, type PartReport } from '@ivshmem/monitor';
import { handleObserve } from '../server/observe.ts';
import { reasonOf } from '../server/remedies.ts';
import { serverReport } from '../server/server-report.ts';
import type { LinkSet } from './link-set.ts';
import type { ServerLog } from './log.ts';

/** Opens the control socket of a process with host servers. Returns undefined, and logs why, if that is not possible. */
export function openControl(links: LinkSet, log: ServerLog): ControlServer | undefined {
  try {
    const control = ControlServer.listen('server');
    handleStatus(control, 'server', () => ({ ready: true, parts: reports(links) }));
    handleObserve(control, () => links.links.map(({ server }) => server));
    return control;
  } catch (error) {
    log.note('warn', reasonOf(error), { type: 'no-control' });
    return undefined;
  }
}

function reports(links: LinkSet): PartReport[] {
  const failures = [...links.failed].map(([name, { reason, since }]): PartReport => {
    return { kind: 'failure', name, link: name, socket: null, problem: reason, since: since.toISOString() };
  });
  const servers = links.links.map(({ configuration: { name }, server, since }) => {
    // Without a configuration file, a link has the name of its socket.
    return serverReport(server, name === server.options.socketPath ? null : name, since);
  });
  return [...servers, ...failures];
}
