import { openOutput, printable } from '@ivshmem/linux/process';
import { ControlServer, handleStatus, type PartReport, type ProcessReport } from '@ivshmem/monitor';
import type { RunningOptions } from './options/running.ts';

/** What a command that keeps running shows of itself. */
export interface ProcessMonitor extends AsyncDisposable {
  /** Undefined if this process has no control socket. */
  readonly control: ControlServer | undefined;
}

/**
 * Opens the control socket of this process, and serves metrics if asked for. What cannot be opened is reported on standard
 * error: the command runs without it. `current` is called for each request.
 */
export async function openProcessMonitor(
  command: string,
  { metrics }: Pick<RunningOptions, 'metrics'>,
  current: () => Pick<ProcessReport, 'ready' | 'parts'>,
): Promise<ProcessMonitor> {
  const control = openControl(command);
  if (control !== undefined) handleStatus(control, command, current);
  const http = metrics === undefined ? undefined : await serveMetrics(metrics, () => current().parts);
  return {
    control,
    async [Symbol.asyncDispose]() {
      control?.close();
      await http?.close();
    },
  };
}

function openControl(command: string): ControlServer | undefined {
  try {
    return ControlServer.listen(command);
  } catch (error) {
    // A user may have no runtime directory at all, which is no fault.
    if (process.env.IVSHMEM_RUNTIME_DIR) complain((error as Error).message);
    return undefined;
  }
}

async function serveMetrics(
  address: NonNullable<RunningOptions['metrics']>,
  parts: () => readonly PartReport[],
) {
  const { createRegistry, HttpService, metricsText } = await import('@ivshmem/monitor/http');
  const pages = { metrics: metricsText(createRegistry(parts)), problems: () => [] };
  const service = new HttpService(address, pages, { note: (_level, text) => complain(text) });
  await service.start();
  return service;
}

/** One line on standard error, which is not waited for. */
function complain(text: string): void {
  const stderr = openOutput(2);
  stderr.write(`${printable(`ivshmem: ${text}`)}\n`);
  void stderr.close();
}
