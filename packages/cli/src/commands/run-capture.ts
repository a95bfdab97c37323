import { readFileSync } from 'node:fs';
import { observeServer } from '@ivshmem/host-server';
import { closeFd, OptionError } from '@ivshmem/linux';
import { openOutput, printable } from '@ivshmem/linux/process';
import { type Capture, type CaptureCounters, startCapture } from '@ivshmem/net/capture';
import { followDrops } from '../capture/drops.ts';
import { runExtcap } from '../capture/extcap.ts';
import { type FoundLink, findLink } from '../capture/find-link.ts';
import { type ByteOutput, openByteOutput } from '../capture/write-all.ts';
import { EXIT_OK } from '../exit.ts';
import { openStopSignal } from '../stop-signal.ts';
import type { CaptureOptions } from './capture.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

/** Captures a link, or answers Wireshark. */
export async function capture(link: string | undefined, options: CaptureOptions): Promise<number> {
  const answered = await runExtcap(options, version);
  if (answered) return EXIT_OK;
  const wanted = options.extcapInterface ?? link;
  if (wanted === undefined) throw new OptionError('link', 'which link? "ivshmem status" shows all of them');
  const path = options.fifo ?? options.write;
  if (path === '-' && process.stdout.isTTY) {
    throw new OptionError('--write', 'standard output is a terminal: use -w FILE, or a pipe to a program');
  }
  using stopping = openStopSignal(false);
  const found = await findLink(wanted);
  const stop = stopping.signal;
  try {
    using output = await openByteOutput(path, stop);
    await captureLink(found, output, { stop, snapLength: options.snapshotLength });
  } catch (error) {
    if (!stop.aborted) throw error;
  }
  return EXIT_OK;
}

interface CaptureRun {
  readonly stop: AbortSignal;
  readonly snapLength: number | undefined;
}

/** Captures until `stop`, or until nothing reads the output any more. */
async function captureLink(
  link: FoundLink,
  output: ByteOutput,
  { stop, snapLength }: CaptureRun,
): Promise<void> {
  const leaving = new AbortController();
  const updates = observeServer(link.server, link.socket, leaving.signal);
  const first = await updates.next();
  if (first.done) throw new Error(`${link.name}: its host server has ended`);
  const { memory, doorbells, maxPeers, outputSectionSize } = first.value;
  await using stderr = openOutput(2);
  const note = (text: string) => stderr.write(`${printable(`${link.name}: ${text}`)}\n`);
  await using running = await startCapture({
    ...{ memory, maxPeers, outputSectionSize, link: link.name },
    application: `ivshmem capture ${version}`,
    ...(snapLength !== undefined && { snapLength }),
  });
  running.setDoorbells(doorbells);
  const close = () => void running.close();
  stop.addEventListener('abort', close);
  if (stop.aborted) close();
  const drops = followDrops(link, running);
  const following = followServer(updates, running).then(
    () => note('its host server has ended; the peers may go on without it'),
    () => {},
  );
  try {
    for await (const chunk of running.bytes()) if (!(await output.write(chunk, stop))) break;
  } finally {
    stop.removeEventListener('abort', close);
    leaving.abort();
    drops.stop();
    await running.close();
    await following;
  }
  const failure = await running.closed;
  if (failure !== null) throw failure;
  const [there, back] = running.counters();
  note(`peer 0 to 1: ${countersText(there)}; peer 1 to 0: ${countersText(back)}`);
}

/** Passes on the doorbells of peers that connect later. */
async function followServer(updates: ReturnType<typeof observeServer>, running: Capture): Promise<void> {
  for await (const { memory, doorbells } of updates) {
    closeFd(memory);
    running.setDoorbells(doorbells);
  }
}

function countersText({ frames, bytes, missed, invalid }: CaptureCounters): string {
  const more = invalid > 0 ? `, ${invalid} invalid descriptors` : '';
  return `${frames} frames of ${bytes} bytes captured, ${missed} missed${more}`;
}
