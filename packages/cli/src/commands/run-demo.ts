import { once } from 'node:events';
import { missingNetworkPrivilege } from '@ivshmem/linux/network';
import { openOutput } from '@ivshmem/linux/process';
import { type DemoResult, gbits, runDemo } from '../demo/demo.ts';
import { createScreen, noScreen, type Screen } from '../demo/screen.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit.ts';
import { jsonLine } from '../output/json-line.ts';
import { openStopSignal } from '../stop-signal.ts';
import { isInsideUserNamespace, runInUserNamespace, userNamespaceProblem } from '../user-namespace.ts';
import type { DemoOptions } from './demo.ts';

/** Runs the demo here if the privileges suffice, else in a user namespace. */
export async function demo({ json, offload }: DemoOptions): Promise<number> {
  const isInside = isInsideUserNamespace();
  using stopping = openStopSignal(isInside);
  const { signal } = stopping;
  const missing = missingNetworkPrivilege();
  if (missing !== null) {
    if (process.getuid?.() !== 0 && !isInside) return await demoInUserNamespace(missing, signal);
    throw new Error(`The demo can't run here. ${missing}`);
  }
  // The demo ends even if its output is a stopped terminal or a pipe that nothing reads.
  await using output = openOutput(1);
  const { isTTY } = process.stdout;
  const terminal = {
    isTTY,
    get columns() {
      return process.stdout.columns;
    },
    write: output.write,
  };
  const screen = json ? noScreen : createScreen(terminal);
  try {
    const result = await runDemo(screen, offload, signal);
    if (json) output.write(jsonLine(result));
    else summarise(screen, result);
    return EXIT_OK;
  } catch (error) {
    if (!signal.aborted) throw error;
    screen.heading('Stopped. Nothing is left behind.');
    return EXIT_FAILURE;
  }
}

/** `missing` says which privilege this process lacks. */
async function demoInUserNamespace(missing: string, signal: AbortSignal): Promise<number> {
  const problem = userNamespaceProblem();
  if (problem !== null) {
    const { reason, remedy } = problem;
    throw new Error(
      `The demo can't run here. ${missing} User namespaces can't be made either (${reason}): ${remedy}.`,
    );
  }
  const [code] = await once(runInUserNamespace(['pipe', 'inherit', 'inherit'], signal), 'exit');
  return code ?? EXIT_FAILURE;
}

function summarise(screen: Screen, { linkUpMs, ping, tcp, crash }: DemoResult): void {
  screen.heading('Summary');
  screen.table([
    ['link up after', `${linkUpMs} ms`],
    ['ping', `${ping.sent} sent, ${ping.lost} lost`],
    ['round trip', `${ping.p50.toFixed(0)} µs (p50), ${ping.p99.toFixed(0)} µs (p99)`],
    ...tcp.map(({ mtu, aToB, bToA }): [string, string] => [
      `TCP at MTU ${mtu}`,
      `${gbits(aToB * 1e9)} A to B, ${gbits(bToA * 1e9)} B to A`,
    ]),
    ['after a SIGKILL', `noticed in ${crash.noticedMs} ms, link up again after ${crash.downMs} ms`],
  ]);
}
