import { createHash } from 'node:crypto';
import type { DescriptorStore } from '@ivshmem/linux/process';
import type { Poller } from '@ivshmem/linux/wait';
import type { DescriptorBudget } from '../server/descriptor-budget.ts';
import type { HostServerEvent } from '../server/events.ts';
import { discardServer } from '../server/foundation.ts';
import { createHostServer, type HostServer } from '../server/host-server.ts';
import { reasonOf } from '../server/remedies.ts';
import type { LinkConfiguration } from './configuration.ts';
import type { ActivatedSockets } from './service-manager.ts';

export interface LinkSetOptions {
  readonly budget: DescriptorBudget;
  /** Listening sockets passed by a service manager. */
  readonly activated?: ActivatedSockets | undefined;
  /** Keeps what the peers have of the servers while this process is restarted. */
  readonly store?: DescriptorStore | undefined;
  readonly poller?: Poller;
  readonly log?: ((link: string, event: HostServerEvent) => void) | undefined;
  /** Called with each server before it has clients, to count its events. */
  readonly watch?: ((link: string, server: HostServer) => void) | undefined;
}

/** A configured link and its running server. */
export interface LinkServer {
  readonly configuration: LinkConfiguration;
  readonly server: HostServer;
  /** When it was started. */
  readonly since: Date;
}

/** A configured link that could not be started. */
export interface FailedLink {
  readonly reason: string;
  /** When it failed for this reason first. */
  readonly since: Date;
}

/** Result of a reload: names of links. */
export interface ReloadResult {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** Restarted with new settings. */
  readonly changed: readonly string[];
  readonly kept: readonly string[];
  /** Configured links that could not be started. */
  readonly failed: ReadonlyMap<string, FailedLink>;
}

/** The servers of one process, by name. */
export class LinkSet {
  readonly #options: LinkSetOptions;
  readonly #running = new Map<string, LinkServer>();
  #wanted: readonly LinkConfiguration[] = [];
  #failed: ReadonlyMap<string, FailedLink> = new Map();

  constructor(options: LinkSetOptions) {
    this.#options = options;
  }

  get links(): readonly LinkServer[] {
    return [...this.#running.values()];
  }

  /** Configured links that could not be started. */
  get failed(): ReadonlyMap<string, FailedLink> {
    return this.#failed;
  }

  /**
   * Applies a configuration, the first or a new one. Unchanged links are left alone. A link whose settings change is
   * restarted, which its peers see as a server that disconnects. A link that cannot be started does not affect the others;
   * {@link retry} tries it again.
   */
  reload(configurations: readonly LinkConfiguration[]): ReloadResult {
    this.#wanted = configurations;
    const wanted = new Map(configurations.map((configuration) => [configuration.name, configuration]));
    const added: string[] = [];
    const removed: string[] = [];
    const changed: string[] = [];
    const kept: string[] = [];
    const failed = new Map<string, FailedLink>();
    const running = new Set(this.#running.keys());
    // Removals come first: a new link may use the same socket.
    for (const [name, link] of this.#running) {
      if (wanted.get(name)?.source === link.configuration.source) kept.push(name);
      else this.#stop(name, link);
      if (!wanted.has(name)) removed.push(name);
    }
    for (const [name, configuration] of wanted) {
      if (this.#running.has(name)) continue;
      try {
        this.#start(configuration);
        (running.has(name) ? changed : added).push(name);
      } catch (error) {
        const reason = reasonOf(error);
        const before = this.#failed.get(name);
        failed.set(name, before?.reason === reason ? before : { reason, since: new Date() });
      }
    }
    this.#failed = failed;
    return { added, removed, changed, kept, failed };
  }

  /** Tries again to start the failed links. */
  retry(): ReloadResult {
    return this.reload(this.#wanted);
  }

  #start(configuration: LinkConfiguration): void {
    const { budget, activated, store, poller, log, watch } = this.#options;
    const { name, settings } = configuration;
    const server = createHostServer({
      ...settings,
      budget,
      listener: activated?.listenerFor(settings.socketPath),
      store: store?.scope(scopeOf(name)),
      ...(poller !== undefined && { poller }),
      log: log === undefined ? undefined : (event) => log(name, event),
    });
    watch?.(name, server);
    this.#running.set(name, { configuration, server, since: new Date() });
  }

  /**
   * Removes what an earlier process has left of links that are not configured any more. Returns the paths of their sockets, where
   * known. Throws SystemCallError.
   */
  discardLeft(): string[] {
    const { store } = this.#options;
    const configured = new Set(this.#wanted.map(({ name }) => scopeOf(name)));
    const gone = store?.scopes.filter((scope) => !configured.has(scope)) ?? [];
    const paths = gone.map((scope) => discardServer(store!.scope(scope)) ?? 'a socket of unknown path');
    store?.discardLeft();
    return paths;
  }

  #stop(name: string, { server }: LinkServer, how: 'close' | 'suspend' = 'close'): void {
    this.#running.delete(name);
    server[how]();
  }

  /** Stops all links. With a descriptor store, the next process continues with them. */
  close(): void {
    for (const [name, link] of this.#running) this.#stop(name, link, 'suspend');
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * The scope of a link in the descriptor store. Names may be long, and systemd passes the names of all stored descriptors in one
 * environment variable of at most 128 KiB.
 */
function scopeOf(name: string): string {
  return createHash('sha256').update(name).digest('base64url').slice(0, 6);
}
