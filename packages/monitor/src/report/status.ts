import { SystemCallError } from '@ivshmem/linux';
import { askControl } from '../control/control-client.ts';
import type { ControlServer } from '../control/control-server.ts';
import { type ControlSocketEntry, controlSockets } from '../control/directory.ts';
import { decodeProcessReport, type ProcessReport } from './report.ts';

const VERB = 'status';
/** Processes asked at the same time. */
const BATCH = 64;

/** A process that was found by its control socket. */
export interface FoundProcess {
  /** Name of its control socket, such as `net-4711`. */
  readonly name: string;
  /** Its user, as the kernel reports it; -1 if it could not be reached. */
  readonly uid: number;
  /** Null if the process did not answer. */
  readonly report: ProcessReport | null;
  /** Why it did not; null if it did. */
  readonly problem: string | null;
}

/** Result of {@link findProcesses}. */
export interface FoundProcesses {
  readonly processes: readonly FoundProcess[];
  /** Number of processes of other users, which this one may not ask. */
  readonly hidden: number;
}

/** Answers the verb `status` of a process. `current` is called for each request. */
export function handleStatus(
  control: ControlServer,
  command: string,
  current: () => Pick<ProcessReport, 'ready' | 'parts'>,
): void {
  const since = new Date().toISOString();
  control.handle(VERB, (): ProcessReport => ({ command, pid: process.pid, since, ...current() }));
}

/** Asks all processes whose control sockets this user may use. */
export async function findProcesses(): Promise<FoundProcesses> {
  const sockets = controlSockets();
  const found: (FoundProcess | 'hidden' | 'ended')[] = [];
  for (let at = 0; at < sockets.length; at += BATCH) {
    found.push(...(await Promise.all(sockets.slice(at, at + BATCH).map(ask))));
  }
  return {
    processes: found.filter((each) => typeof each === 'object'),
    hidden: found.filter((each) => each === 'hidden').length,
  };
}

async function ask({ path, name }: ControlSocketEntry): Promise<FoundProcess | 'hidden' | 'ended'> {
  let uid = -1;
  try {
    const connected = (credentials: { uid: number }) => {
      uid = credentials.uid;
    };
    const data = await askControl(path, { verb: VERB }, { connected });
    return { name, uid, report: decodeProcessReport(data), problem: null };
  } catch (error) {
    if (error instanceof SystemCallError) {
      if (error.code === 'EACCES') return 'hidden';
      // Since the directory was read.
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') return 'ended';
    }
    const problem =
      error instanceof TypeError ? `${path}: invalid report: ${error.message}` : (error as Error).message;
    return { name, uid, report: null, problem };
  }
}
