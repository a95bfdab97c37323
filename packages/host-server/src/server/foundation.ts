import { closeFd } from '@ivshmem/linux';
import type { DescriptorStore } from '@ivshmem/linux/process';
import { isUnixStream, UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { isEventFd } from '@ivshmem/linux/wait';
import { eventName, type KeptDescriptors, socketName } from './kept-descriptors.ts';
import { LinkState, type Tenant } from './link-state.ts';
import type { HostServerSettings } from './options.ts';
import { reasonOf } from './remedies.ts';
import { createSharedMemory, restoreSharedMemory, type SharedMemory } from './shared-memory.ts';

/** A client of an earlier process. */
export interface KeptClient extends Tenant {
  readonly id: number;
  readonly socket: UnixSocket;
  readonly events: readonly number[];
}

/** What a server stands on, either new or left by an earlier process. */
export interface Foundation {
  readonly listener: UnixListener;
  readonly memory: SharedMemory;
  readonly state: LinkState;
  /** Whether an earlier process has left it. */
  readonly isContinued: boolean;
  /** Why what an earlier process has left cannot be used; null if it can, or if there was none. */
  readonly problem: string | null;
}

/**
 * Continues with what an earlier process has left in the descriptor store; otherwise creates everything, and stores it. `given`:
 * a listening socket of a service manager, which keeps it itself. Throws SystemCallError, or Error of `node:fs`, if something
 * cannot be created; the caller keeps `given`, and clears `kept`.
 */
export function layFoundation(
  settings: HostServerSettings,
  kept: KeptDescriptors,
  given: UnixListener | undefined,
): Foundation {
  const left = restore(settings, kept);
  const earlier = typeof left === 'string' ? null : left;
  let { memory, state } = earlier ?? {};
  let listener: UnixListener | undefined;
  try {
    // The socket comes first: bind(2) shows whether another server with the same settings is running.
    listener = listen(settings, kept, given, state?.hasAccess(settings) ?? false);
    memory ??= createSharedMemory(settings.sharedMemory, settings.size);
    state ??= LinkState.create(settings, kept.exists);
  } catch (error) {
    if (listener !== given) listener?.close();
    memory?.close();
    state?.close();
    throw error;
  }
  if (earlier === null) kept.clear();
  state.setAccess(settings);
  if (listener !== given) kept.put('listener', listener.fd);
  for (const [name, fd] of memory.kept) kept.put(name, fd);
  if (state.fd !== undefined) kept.put('state', state.fd);
  return {
    listener,
    memory,
    state,
    isContinued: earlier !== null,
    problem: typeof left === 'string' ? left : null,
  };
}

/** Returns what is left; null if nothing is, or in one line why it is unusable. */
function restore(
  settings: HostServerSettings,
  kept: KeptDescriptors,
): { readonly memory: SharedMemory; readonly state: LinkState } | string | null {
  if (kept.left.length === 0) return null;
  const fd = kept.take('state');
  if (fd === undefined) return 'the stored state is missing';
  const state = LinkState.adopt(fd, settings);
  if (typeof state === 'string') return state;
  try {
    return { memory: restoreSharedMemory(settings.sharedMemory, settings.size, kept), state };
  } catch (error) {
    state.close();
    return reasonOf(error);
  }
}

/** `hasAccess`: the permissions of the socket file that is left are right. */
function listen(
  { socketPath, mode, group }: HostServerSettings,
  kept: KeptDescriptors,
  given: UnixListener | undefined,
  hasAccess: boolean,
): UnixListener {
  const fd = kept.take('listener');
  if (fd !== undefined) {
    if (given !== undefined) {
      closeFd(fd);
    } else {
      try {
        const left = UnixListener.restore(fd);
        if (hasAccess && left.path === socketPath) return left;
        left.close();
      } catch {
        // Its file is gone.
      }
    }
    kept.remove('listener');
  }
  // The kernel caps the backlog at net.core.somaxconn.
  return given ?? UnixListener.listen(socketPath, { mode, group, backlog: 4096 });
}

/**
 * Removes what an earlier process has left of a server that is not started any more, its socket file included. Returns the path of
 * that, if there is one. Throws SystemCallError.
 */
export function discardServer(store: DescriptorStore): string | undefined {
  const fd = store.take('listener');
  let path: string | undefined;
  if (fd !== undefined) {
    try {
      using listener = UnixListener.restore(fd);
      path = listener.path;
    } catch {
      // Its file is gone.
    }
    store.remove('listener');
  }
  store.discardLeft();
  return path;
}

/**
 * Takes the descriptors of the clients in `state`. `lost` are the clients of which one is missing; those cannot be served any
 * more. `accepted` are clients that have no ID yet: nothing was sent to them.
 */
export function takeClients(
  { maxPeers, vectors }: HostServerSettings,
  kept: KeptDescriptors,
  state: LinkState,
): {
  readonly clients: readonly KeptClient[];
  readonly lost: readonly (Tenant & { readonly id: number })[];
  readonly accepted: readonly { readonly serial: number; readonly socket: UnixSocket }[];
} {
  const clients: KeptClient[] = [];
  const lost: (Tenant & { id: number })[] = [];
  for (let id = 0; id < maxPeers; id++) {
    const tenant = state.tenant(id);
    if (tenant === null) continue;
    const { serial } = tenant;
    const socket = takeSocket(kept, serial);
    const events = Array.from({ length: vectors }, (_, vector) =>
      takeIf(kept, eventName(serial, vector), isEventFd),
    ).filter((event) => event !== undefined);
    if (socket !== undefined && events.length === vectors) {
      clients.push({ ...tenant, id, socket, events });
      continue;
    }
    socket?.close();
    for (const event of events) closeFd(event);
    lost.push({ ...tenant, id });
  }
  const accepted = kept.left
    .filter((name) => /^[1-9]\d{0,9}$/.test(name))
    .flatMap((name) => {
      const serial = Number(name);
      const socket = takeSocket(kept, serial);
      return socket === undefined ? [] : [{ serial, socket }];
    });
  kept.discardLeft();
  return { clients, lost, accepted };
}

function takeSocket(kept: KeptDescriptors, serial: number): UnixSocket | undefined {
  const fd = takeIf(kept, socketName(serial), isUnixStream);
  return fd === undefined ? undefined : new UnixSocket(fd);
}

/** Takes a descriptor; closes it, and returns undefined, if it is not what it should be. */
function takeIf(kept: KeptDescriptors, name: string, isRight: (fd: number) => boolean): number | undefined {
  const fd = kept.take(name);
  if (fd === undefined || isRight(fd)) return fd;
  closeFd(fd);
  kept.remove(name);
  return undefined;
}
