import type { PartReport } from '@ivshmem/monitor';
import { deviceStateText } from './device-events.ts';

/** The state of a part in a few words. */
export function partStateText(part: PartReport): string {
  switch (part.kind) {
    case 'server':
      return `${part.peers.length} of ${part.maxPeers} peers`;
    case 'failure':
      return `failed: ${part.problem}`;
    case 'interface':
      return `${part.carrier ? 'up' : 'down'}: ${part.local}, peer ${part.peer}`;
    case 'device':
      return deviceStateText(part.state);
  }
}

/** What has gone wrong at a part since it started, by its counters; empty if nothing has. */
export function partFaultText(part: PartReport): string {
  if (part.kind !== 'interface' && part.kind !== 'device') return '';
  const counts = new Map<string, number>();
  for (const [name, value] of Object.entries(part.stats)) {
    const label = FAULTS[name] ?? (name.startsWith('drops') ? 'drops' : undefined);
    if (label !== undefined) counts.set(label, (counts.get(label) ?? 0) + value);
  }
  return [...counts]
    .filter(([, count]) => count > 0)
    .map(([label, count]) => `${count} ${label}`)
    .join(', ');
}

/** Counters of faults, of links and devices. */
const FAULTS: Readonly<Record<string, string>> = {
  violations: 'violations',
  invalidPeerStates: 'invalid states',
  refused: 'refused',
};
