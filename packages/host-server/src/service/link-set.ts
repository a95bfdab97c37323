import type { Poller } from '@ivshmem/linux/wait';
import type { DescriptorBudget } from '../server/descriptor-budget.ts';
import type { HostServerEvent } from '../server/events.ts';
import { createHostServer, type HostServer } from '../server/host-server.ts';
import { reasonOf } from '../server/remedies.ts';
import type { LinkConfiguration } from './configuration.ts';
import { type ControlSocket, listenControl } from './control-socket.ts';
import type { ActivatedSockets } from './service-manager.ts';

/** Of a control socket: its listener, and the reserve of that. */
const CONTROL_DESCRIPTORS = 2;

export interface LinkSetOptions {
  readonly budget: DescriptorBudget;
  /** Sockets that a service manager listens at on behalf of this process. */
  readonly activated?: ActivatedSockets | undefined;
  /** Whether each server gets a control socket. */
  readonly control: boolean;
  readonly poller?: Poller;
  readonly log?: ((link: string, event: HostServerEvent) => void) | undefined;
  /** Called with each server before its first client, for whoever counts. */
  readonly watch?: ((link: string, server: HostServer) => void) | undefined;
}

/** A link of the configuration, and the server that runs for it. */
export interface LinkServer {
  readonly configuration: LinkConfiguration;
  readonly server: HostServer;
}

/** What a reload has done, by names of links. */
export interface ReloadResult {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** Stopped and started again with other settings. */
  readonly changed: readonly string[];
  readonly kept: readonly string[];
  /** Those that should run and do not, with the reason. */
  readonly failed: ReadonlyMap<string, string>;
}

interface RunningLink extends LinkServer {
  readonly control: ControlSocket | undefined;
}

/** The servers of one process, by name. */
export class LinkSet {
  readonly #options: LinkSetOptions;
  readonly #running = new Map<string, RunningLink>();
  #wanted: readonly LinkConfiguration[] = [];
  #failed: ReadonlyMap<string, string> = new Map();

  constructor(options: LinkSetOptions) {
    this.#options = options;
  }

  get links(): readonly LinkServer[] {
    return [...this.#running.values()];
  }

  /** Those that should run and do not, with the reason. */
  get failed(): ReadonlyMap<string, string> {
    return this.#failed;
  }

  /**
   * Makes the set what the configuration says, also at the start. Links that stay as they are do not notice; one whose
   * settings change is stopped and started again, which its peers see as a server that is gone. A link that cannot start
   * does not keep the others from it; {@link retry} tries it again.
   */
  reload(configurations: readonly LinkConfiguration[]): ReloadResult {
    this.#wanted = configurations;
    const wanted = new Map(configurations.map((configuration) => [configuration.name, configuration]));
    const added: string[] = [];
    const removed: string[] = [];
    const changed: string[] = [];
    const kept: string[] = [];
    const failed = new Map<string, string>();
    const running = new Set(this.#running.keys());
    // What goes comes first: its socket may be wanted by another one.
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
        failed.set(name, reasonOf(error));
      }
    }
    this.#failed = failed;
    return { added, removed, changed, kept, failed };
  }

  /** Tries again to start those that should run and do not. */
  retry(): ReloadResult {
    return this.reload(this.#wanted);
  }

  #start(configuration: LinkConfiguration): void {
    const { budget, activated, control, poller, log, watch } = this.#options;
    const { name, settings } = configuration;
    const server = createHostServer({
      ...settings,
      budget,
      listener: activated?.listenerFor(settings.socketPath),
      ...(poller !== undefined && { poller }),
      log: log === undefined ? undefined : (event) => log(name, event),
    });
    watch?.(name, server);
    this.#running.set(name, {
      configuration,
      server,
      control: control ? this.#listenControl(server, name) : undefined,
    });
  }

  /** A server without control socket is better than none. */
  #listenControl(server: HostServer, name: string): ControlSocket | undefined {
    const { budget, poller, log } = this.#options;
    try {
      if (!budget.take(CONTROL_DESCRIPTORS))
        throw new Error(`no descriptors left, RLIMIT_NOFILE is ${budget.limit}`);
      try {
        return listenControl(server, name, poller);
      } catch (error) {
        budget.give(CONTROL_DESCRIPTORS);
        throw error;
      }
    } catch (error) {
      log?.(name, { type: 'warning', text: `no control socket, for lists of peers: ${reasonOf(error)}` });
      return undefined;
    }
  }

  #stop(name: string, { server, control }: RunningLink): void {
    this.#running.delete(name);
    if (control !== undefined) {
      control.close();
      this.#options.budget.give(CONTROL_DESCRIPTORS);
    }
    server.close();
  }

  /** Stops all of them. */
  close(): void {
    for (const [name, link] of this.#running) this.#stop(name, link);
  }
}
