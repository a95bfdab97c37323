import { recv, send } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import { MSG_NOSIGNAL } from '@ivshmem/linux/network';
import {
  type Control,
  publishSenderDone,
  RECEIVED,
  SENT,
  SLICE_MS,
  senderIsDone,
  sleepUnlessStopped,
  stopRequested,
  waitForPort,
} from '../control.ts';
import { NumberedPayload } from '../numbered-payload.ts';
import { ArrivalWindow } from './arrival-window.ts';
import { datagramErrno, isTimeout } from './network-errors.ts';
import type { UdpReceiverResult, UdpReceiverTask, UdpSenderTask } from './tasks.ts';
import { DATAGRAM_CAPACITY, openUdp, serveUdp } from './udp-socket.ts';

/** Once all are sent, the receiver stops after this time without an arrival, in ms. */
const DRAIN_MS = 300;
const STALL_MS = 10_000;
/** Spin for shorter pauses: this is about the shortest sleep. */
const SPIN_MS = 0.2;

/** Returns how many datagrams were sent. */
export function udpSender(task: UdpSenderTask, control: Control): number {
  const port = waitForPort(control);
  if (port === 0) return 0;
  using socket = openUdp(task.address);
  socket.connect(task.address, port);
  using payload = new NumberedPayload(task.size, task.token);
  using memory = mapPrivate(DATAGRAM_CAPACITY);
  const bytes = Buffer.from(memory.buffer);
  payload.write(bytes, 0, 0);

  const { fd } = socket;
  const start = performance.now();
  const deadline = start + task.seconds * 1000;
  const perMillisecond = task.rate / 1000;
  let now = start;
  let moved = start;
  let sent = 0;
  while (sent < task.count && !stopRequested(control)) {
    now = performance.now();
    if (now >= deadline) break;
    const pause = sent / perMillisecond - (now - start);
    if (pause > 0) {
      if (pause > SPIN_MS) sleepUnlessStopped(control, Math.min(pause - SPIN_MS / 2, SLICE_MS));
      continue;
    }
    if (task.verify) payload.write(bytes, 0, sent);
    else payload.number(bytes, 0, sent);
    if (send(fd, memory.address, task.size, MSG_NOSIGNAL) === -1) {
      if (isTimeout(datagramErrno('send', task.address))) {
        if (now - moved > STALL_MS) {
          throw new Error(
            `UDP to ${task.address}: nothing could be sent for ${STALL_MS / 1000} s: is the link up?`,
          );
        }
        continue;
      }
    }
    moved = now;
    control.counters[SENT] = ++sent;
  }
  publishSenderDone(control);
  return sent;
}

export function udpReceiver(task: UdpReceiverTask, control: Control): UdpReceiverResult {
  using socket = serveUdp(task.address, control);
  using payload = new NumberedPayload(task.size, task.token);
  using memory = mapPrivate(DATAGRAM_CAPACITY);
  const bytes = Buffer.from(memory.buffer);
  const window = new ArrivalWindow();

  const { fd } = socket;
  const { verify } = task;
  let corrupted = 0;
  let first = 0;
  let last = 0;
  let quietSince = 0;
  while (!stopRequested(control)) {
    const length = recv(fd, memory.address, DATAGRAM_CAPACITY, 0);
    if (length >= 0) {
      last = performance.now();
      if (first === 0) first = last;
      quietSince = 0;
      const sequence = payload.read(bytes, 0, length, verify);
      if (sequence === -1) corrupted++;
      else window.arrive(sequence);
      control.counters[RECEIVED] = window.received;
    } else {
      datagramErrno('recv', task.address);
    }
    if (!senderIsDone(control)) continue;
    if (window.received + corrupted >= control.counters[SENT]!) break;
    if (length >= 0) continue;
    const now = performance.now();
    if (quietSince === 0) quietSince = now;
    else if (now - quietSince > DRAIN_MS) break;
  }
  const { received, reordered, duplicates } = window;
  return { received, reordered, duplicates, corrupted, seconds: (last - first) / 1000 };
}
