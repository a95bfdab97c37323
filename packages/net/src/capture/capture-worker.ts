import { runBlockingThread } from '@ivshmem/linux/thread';
import type { CaptureMessage } from './capture.ts';
import type { CaptureInput } from './capture-input.ts';
import { CaptureLoop } from './capture-loop.ts';

// The thread of a capture. It ends when it is stopped.

runBlockingThread<CaptureInput, CaptureMessage>((input, stopFd, report) => {
  using loop = new CaptureLoop(input, stopFd, () => report({ type: 'data' }));
  loop.run(() => report({ type: 'up' }));
});
