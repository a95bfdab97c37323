import { askControl, decodeProcessReport } from '@ivshmem/monitor';
import type { Capture } from '@ivshmem/net/capture';
import type { FoundEnd, FoundLink } from './find-link.ts';

/** Interval for asking the ends for their counters, in ms. */
const INTERVAL = 1000;

/**
 * Asks the ends of a link, which are in other processes, once a second which frames they have dropped, and why. VMs are not
 * asked: their drivers have no control socket.
 */
export function followDrops({ ends }: FoundLink, capture: Capture): { stop(): void } {
  let isAsking = false;
  const ask = async () => {
    if (isAsking) return;
    isAsking = true;
    await Promise.all(ends.map((end) => askEnd(end, capture)));
    isAsking = false;
  };
  const timer = setInterval(ask, INTERVAL);
  void ask();
  return { stop: () => clearInterval(timer) };
}

async function askEnd({ id, tap, control }: FoundEnd, capture: Capture): Promise<void> {
  if (id !== 0 && id !== 1) return;
  try {
    const { parts } = decodeProcessReport(await askControl(control, { verb: 'status' }));
    const part = parts.find((each) => each.kind === 'interface' && each.tap === tap);
    if (part?.kind === 'interface') capture.setDrops(id, part.stats);
  } catch {
    // The end has stopped.
  }
}
