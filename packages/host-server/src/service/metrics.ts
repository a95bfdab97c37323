import { readdirSync, readFileSync } from 'node:fs';
import { stateName } from '@ivshmem/transport/protocol';
import { Counter, Gauge, Registry } from 'prom-client';
import type { DescriptorBudget } from '../server/descriptor-budget.ts';
import type { DepartureCause, HostServerEvent, RefusalCause } from '../server/events.ts';
import type { HostServer } from '../server/host-server.ts';

const STATES = ['RESET', 'INIT', 'READY', 'RUN', 'other'] as const;
const DEPARTURES: readonly DepartureCause[] = ['disconnected', 'sent-data', 'not-reading'];
const REFUSALS: readonly RefusalCause[] = ['not-allowed', 'no-free-id', 'descriptors', 'gone', 'error'];

/** Prometheus metrics of the servers of a process. */
export interface ServerMetrics {
  /** Content type of {@link text}. */
  readonly contentType: string;
  /** All metrics in the text format of Prometheus. */
  text(): Promise<string>;
  /** Counts events of a server until it is closed. If it has the name of an earlier server, its counters continue. */
  watch(link: string, server: HostServer): void;
}

export function createMetrics(budget: DescriptorBudget): ServerMetrics {
  const registry = new Registry();
  const registers = [registry];
  const servers = new Map<string, HostServer>();
  const counter = <Label extends string>(name: string, help: string, ...labels: Label[]) =>
    new Counter({ name, help, labelNames: ['link', ...labels], registers });
  /** A value read from each server when the metrics are scraped. */
  const gauge = (name: string, help: string, value: (server: HostServer) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['link'],
      registers,
      collect() {
        this.reset();
        for (const [link, server] of servers) this.set({ link }, value(server));
      },
    });

  const joins = counter('ivshmem_joins_total', 'Peers accepted.');
  const departures = counter(
    'ivshmem_departures_total',
    'Peers disconnected, by cause: disconnected, sent-data, not-reading.',
    'cause',
  );
  const evictions = counter(
    'ivshmem_evictions_total',
    'Peers evicted because they sent data or did not read.',
  );
  const refusals = counter('ivshmem_refusals_total', 'Connections refused, by cause.', 'cause');
  const warnings = counter('ivshmem_warnings_total', 'Warnings in the log.');
  gauge('ivshmem_peers', 'Connected peers.', ({ peers }) => peers.length);
  gauge('ivshmem_peers_max', 'Maximum number of peers.', ({ options }) => options.maxPeers);
  gauge('ivshmem_shared_memory_bytes', 'Size of the shared memory.', ({ options }) => options.size);
  gauge('ivshmem_queued_messages', 'Messages pending for peers.', ({ waiting }) => waiting.messages);
  gauge('ivshmem_queued_bytes', 'Bytes pending for peers.', ({ waiting }) => waiting.bytes);
  new Gauge({
    name: 'ivshmem_peer_states',
    help: 'Connected peers by the value of their state register, named as in protocol 0x0001.',
    labelNames: ['link', 'state'],
    registers,
    collect() {
      this.reset();
      for (const [link, server] of servers) {
        for (const state of STATES) this.set({ link, state }, 0);
        for (const { state } of server.peers) {
          // The peer writes the register: unknown values must not become labels.
          this.inc({ link, state: state < STATES.length - 1 ? stateName(state) : 'other' });
        }
      }
    },
  });
  const single = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  single('ivshmem_descriptors_left', 'Descriptors left for peers.', () => budget.left);
  single('process_max_fds', 'RLIMIT_NOFILE.', () => budget.limit);
  single('process_open_fds', 'Open descriptors.', () => readdirSync('/proc/self/fd').length - 1);
  single('process_resident_memory_bytes', 'Resident memory.', residentBytes);
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system time.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  single(
    'process_start_time_seconds',
    'Start time of the process since 1970.',
    () => Date.now() / 1000 - process.uptime(),
  );

  const count = (link: string, event: HostServerEvent) => {
    switch (event.type) {
      case 'peer-joined':
        joins.inc({ link });
        return;
      case 'peer-gone':
        departures.inc({ link, cause: event.cause });
        if (event.cause !== 'disconnected') evictions.inc({ link });
        return;
      case 'refused':
        refusals.inc({ link, cause: event.cause });
        return;
      case 'warning':
        warnings.inc({ link });
        return;
    }
  };

  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    watch(link, server) {
      servers.set(link, server);
      // Created at 0: a counter that appears with its first event hides that event from rate().
      for (const total of [joins, evictions, warnings]) total.inc({ link }, 0);
      for (const cause of DEPARTURES) departures.inc({ link, cause }, 0);
      for (const cause of REFUSALS) refusals.inc({ link, cause }, 0);
      server.events$.subscribe({
        next: (event) => count(link, event),
        complete: () => {
          if (servers.get(link) === server) servers.delete(link);
        },
      });
    },
  };
}

function residentBytes(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
}
