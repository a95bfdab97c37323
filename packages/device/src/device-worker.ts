import { runBlockingThread } from '@ivshmem/linux/thread';
import { DeviceLoop } from './device-loop.ts';
import type { WorkerInput, WorkerMessage } from './device-messages.ts';

// The thread of a device. A VMM gives up on a device that does not answer within five seconds, so the thread does nothing
// else.

runBlockingThread<WorkerInput, WorkerMessage>((input, stopFd, tell) => {
  using loop = new DeviceLoop(input, stopFd, tell);
  loop.run();
});
