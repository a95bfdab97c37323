import { readdirSync, readFileSync } from 'node:fs';
import { openFilesLimit } from '@ivshmem/linux/process';
import { Counter, Gauge, Registry } from 'prom-client';
import { linkName, type PartReport, partName } from '../report/report.ts';
import { DEVICE_METRICS, INTERFACE_METRICS, type PartMetric } from './part-metrics.ts';

/** Metrics of a process in the text format of Prometheus. */
export interface MetricsText {
  readonly contentType: string;
  text(): Promise<string>;
}

/**
 * Metrics of the interfaces and devices of a process, and of the process itself, in a new registry. `parts` is called when the
 * metrics are read: nothing runs in between.
 */
export function createRegistry(parts: () => readonly PartReport[]): Registry {
  const registry = new Registry();
  addParts(registry, 'interface', INTERFACE_METRICS, () =>
    parts().filter((part) => part.kind === 'interface'),
  );
  addParts(registry, 'device', DEVICE_METRICS, () => parts().filter((part) => part.kind === 'device'));
  addProcess(registry);
  return registry;
}

export function metricsText(registry: Registry): MetricsText {
  return { contentType: registry.contentType, text: () => registry.metrics() };
}

/** A gauge without labels, read when the metrics are. */
export function singleGauge(registry: Registry, name: string, help: string, value: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(value());
    },
  });
}

function addParts<Part extends PartReport>(
  registry: Registry,
  kind: 'interface' | 'device',
  metrics: readonly PartMetric<Part>[],
  parts: () => readonly Part[],
): void {
  for (const { name, help, label, samples } of metrics) {
    const labelNames = ['link', kind, ...(label === undefined ? [] : [label])];
    const options = { name: `ivshmem_${kind}_${name}`, help, labelNames, registers: [registry] };
    const collect = (add: (labels: Record<string, string>, value: number) => void) => {
      for (const part of parts()) {
        const own = { link: linkName(part), [kind]: partName(part) };
        for (const [value, text] of samples(part)) {
          add(label === undefined ? own : { ...own, [label]: text! }, value);
        }
      }
    };
    // A counter continues where its part is: it is set anew each time.
    if (name.endsWith('_total')) {
      new Counter({
        ...options,
        collect() {
          this.reset();
          collect((labels, value) => this.inc(labels, value));
        },
      });
    } else {
      new Gauge({
        ...options,
        collect() {
          this.reset();
          collect((labels, value) => this.set(labels, value));
        },
      });
    }
  }
}

function addProcess(registry: Registry): void {
  singleGauge(
    registry,
    'process_open_fds',
    'Open descriptors.',
    () => readdirSync('/proc/self/fd').length - 1,
  );
  singleGauge(registry, 'process_max_fds', 'RLIMIT_NOFILE.', () => openFilesLimit().soft);
  singleGauge(registry, 'process_resident_memory_bytes', 'Resident memory.', residentBytes);
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system time.',
    registers: [registry],
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  singleGauge(
    registry,
    'process_start_time_seconds',
    'Start time of the process since 1970.',
    () => Date.now() / 1000 - process.uptime(),
  );
}

function residentBytes(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
}
