import { runBlockingThread } from '@ivshmem/linux/thread';
import { DeviceLoop } from './device-loop.ts';
import type { WorkerInput, WorkerMessage } from './device-messages.ts';

// The thread of a device. A VMM whose request is not answered within five seconds is lost for good, so it does nothing
// else.

runBlockingThread<WorkerInput, WorkerMessage>((input, stopFd, tell) => {
  using loop = new DeviceLoop(input, stopFd, tell);
  loop.run();
});
