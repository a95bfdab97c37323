import { parentPort, workerData } from 'node:worker_threads';
import { LinkLoop } from './link-loop.ts';
import type { WorkerInput, WorkerMessage } from './link-messages.ts';

// The thread of a link. It blocks in epoll_wait(2) and never turns an event loop; it ends when its stop eventfd is
// signalled, or when the link can't go on.

const input: WorkerInput = workerData;
const tell = (message: WorkerMessage) => parentPort!.postMessage(message);

try {
  using loop = new LinkLoop(input, tell);
  loop.run();
} catch (error) {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  tell({ type: 'failed', message, stack });
}
