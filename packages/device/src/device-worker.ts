import { parentPort, workerData } from 'node:worker_threads';
import { DeviceLoop } from './device-loop.ts';
import type { WorkerInput, WorkerMessage } from './device-messages.ts';

// The thread of a device. A VMM whose request is not answered within five seconds is lost for good, so it does nothing
// else: it blocks in epoll_wait(2), never turns an event loop, and ends when its stop eventfd is signalled.

const input: WorkerInput = workerData;
const tell = (message: WorkerMessage) => parentPort!.postMessage(message);

try {
  using loop = new DeviceLoop(input, tell);
  loop.run();
} catch (error) {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  tell({ type: 'failed', message, stack });
}
