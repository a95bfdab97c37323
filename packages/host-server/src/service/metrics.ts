import type { PartReport } from '@ivshmem/monitor';
import { createRegistry, type MetricsText, metricsText, singleGauge } from '@ivshmem/monitor/http';
import { stateName } from '@ivshmem/transport/protocol';
import { Counter, Gauge } from 'prom-client';
import type { DescriptorBudget } from '../server/descriptor-budget.ts';
import type { DepartureCause, HostServerEvent, RefusalCause } from '../server/events.ts';
import type { HostServer } from '../server/host-server.ts';

const STATES = ['RESET', 'INIT', 'READY', 'RUN', 'other'] as const;
const DEPARTURES: readonly DepartureCause[] = ['disconnected', 'sent-data', 'not-reading'];
const REFUSALS: readonly RefusalCause[] = ['not-allowed', 'no-free-id', 'descriptors', 'gone', 'error'];

/** Metrics of a process with servers. */
export interface ServerMetrics extends MetricsText {
  /** Counts events of a server until it is closed. If it has the name of an earlier server, its counters continue. */
  watch(link: string, server: HostServer): void;
}

/** `parts` are those of the process besides its servers. */
export function createMetrics(
  budget: DescriptorBudget,
  parts: () => readonly PartReport[] = () => [],
): ServerMetrics {
  const registry = createRegistry(parts);
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
  singleGauge(registry, 'ivshmem_descriptors_left', 'Descriptors left for peers.', () => budget.left);

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
    ...metricsText(registry),
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
