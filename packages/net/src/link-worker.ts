import { runBlockingThread } from '@ivshmem/linux/thread';
import { LinkLoop } from './link-loop.ts';
import type { WorkerInput, WorkerMessage } from './link-messages.ts';

// The thread of a link. It ends when it is stopped, or when the link can't go on.

runBlockingThread<WorkerInput, WorkerMessage>((input, stopFd, report) => {
  using loop = new LinkLoop(input, stopFd, report);
  loop.run();
});
