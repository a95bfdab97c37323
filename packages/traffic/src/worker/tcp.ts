import { constants } from 'node:os';
import { errno, recv, SystemCallError, send } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import { type IpSocket, MSG_NOSIGNAL, openIpSocket, parseIpAddress } from '@ivshmem/linux/network';
import {
  type Control,
  publishPort,
  RECEIVED,
  SENT,
  SLICE_MS,
  stopRequested,
  waitForPort,
} from '../control.ts';
import { PATTERN_LENGTH, Pattern } from '../pattern.ts';
import { CONGESTION_CONTROL, IPPROTO_TCP } from '../tcp-options.ts';
import { isTimeout } from './network-errors.ts';
import type { TcpClientTask, TcpServerResult, TcpServerTask } from './tasks.ts';

const TCP_MAXSEG = 2;
const { ECONNRESET } = constants.errno;

const BUFFER_SIZE = 256 * 1024;
/** A transfer fails after this time without a byte, a connection or the end of the stream. */
const STALL_MS = 10_000;

function openTcp(task: TcpClientTask | TcpServerTask): IpSocket {
  const socket = openIpSocket(parseIpAddress(task.address).family, 'tcp', SLICE_MS);
  if (task.maxSegment !== null) socket.setOption(IPPROTO_TCP, TCP_MAXSEG, task.maxSegment);
  return socket;
}

function stalled(task: TcpClientTask | TcpServerTask, what: string): Error {
  return new Error(`${what} ${task.address}: nothing moved for ${STALL_MS / 1000} s: is the link up?`);
}

/** Returns how many bytes were sent. */
export function tcpClient(task: TcpClientTask, control: Control): number {
  const port = waitForPort(control);
  if (port === 0) return 0;
  using pattern = new Pattern(BUFFER_SIZE);
  using socket = openTcp(task);
  if (task.congestionControl !== null) socket.setOption(...CONGESTION_CONTROL, task.congestionControl);
  const started = performance.now();
  while (!socket.connect(task.address, port)) {
    if (stopRequested(control)) return 0;
    if (performance.now() - started > STALL_MS) throw stalled(task, 'TCP connection to');
  }
  let sent = 0;
  try {
    sent = sendStream(socket, pattern, task, control);
    if (!stopRequested(control)) {
      socket.shutdownWrite();
      awaitEnd(socket, task, control);
    }
  } catch (error) {
    socket.abort();
    throw error;
  }
  if (stopRequested(control)) socket.abort();
  return sent;
}

function sendStream(socket: IpSocket, pattern: Pattern, task: TcpClientTask, control: Control): number {
  const { fd } = socket;
  const start = performance.now();
  const deadline = start + task.seconds * 1000;
  let now = start;
  let moved = start;
  let sent = 0;
  while (sent < task.bytes && now < deadline && !stopRequested(control)) {
    // Without verification always the same buffer, so that the test measures the link and not the cache.
    const from = task.verify ? pattern.address + (sent % PATTERN_LENGTH) : pattern.address;
    const written = send(fd, from, Math.min(BUFFER_SIZE, task.bytes - sent), MSG_NOSIGNAL);
    now = performance.now();
    if (written >= 0) {
      sent += written;
      control.counters[SENT] = sent;
      moved = now;
      continue;
    }
    const number = errno();
    if (!isTimeout(number)) throw new SystemCallError('send', task.address, number);
    if (now - moved > STALL_MS) throw stalled(task, 'TCP stream to');
  }
  return sent;
}

/** Waits until the server has received everything and closed, so that the connection does not linger. */
function awaitEnd(socket: IpSocket, task: TcpClientTask, control: Control): void {
  using memory = mapPrivate(1);
  let seen = control.counters[RECEIVED]!;
  let moved = performance.now();
  while (!stopRequested(control)) {
    if (recv(socket.fd, memory.address, 1, 0) === 0) return;
    const number = errno();
    if (number === ECONNRESET) return;
    if (!isTimeout(number)) throw new SystemCallError('recv', task.address, number);
    const now = performance.now();
    const received = control.counters[RECEIVED]!;
    if (received !== seen) {
      seen = received;
      moved = now;
    }
    if (now - moved > STALL_MS) throw stalled(task, 'end of the TCP stream to');
  }
}

export function tcpServer(task: TcpServerTask, control: Control): TcpServerResult | null {
  using listener = openTcp(task);
  listener.bind(task.address, 0);
  listener.listen();
  publishPort(control, listener.localPort);
  const started = performance.now();
  let accepted = listener.accept();
  for (; accepted === null; accepted = listener.accept()) {
    if (stopRequested(control)) return null;
    if (performance.now() - started > 2 * STALL_MS) throw stalled(task, 'TCP server on');
  }
  using connection = accepted;
  try {
    const result = receiveStream(connection, task, control);
    if (stopRequested(control)) connection.abort();
    return result;
  } catch (error) {
    connection.abort();
    throw error;
  }
}

function receiveStream(connection: IpSocket, task: TcpServerTask, control: Control): TcpServerResult {
  using memory = mapPrivate(BUFFER_SIZE);
  using pattern = new Pattern(task.verify ? BUFFER_SIZE : 0);
  const data = Buffer.from(memory.buffer);
  const { fd } = connection;
  const { verify } = task;
  const start = performance.now();
  let moved = start;
  let bytes = 0;
  let intact = true;
  while (!stopRequested(control)) {
    const length = recv(fd, memory.address, BUFFER_SIZE, 0);
    if (length > 0) {
      if (verify && intact) intact = pattern.matches(data, 0, length, bytes);
      bytes += length;
      control.counters[RECEIVED] = bytes;
      moved = 0;
      continue;
    }
    const now = performance.now();
    if (length === 0) return { bytes, seconds: (now - start) / 1000, intact };
    const number = errno();
    if (!isTimeout(number)) throw new SystemCallError('recv', task.address, number);
    // The clock is read only when no data is pending.
    if (moved === 0) moved = now;
    else if (now - moved > STALL_MS) throw stalled(task, 'TCP stream from');
  }
  return { bytes, seconds: (performance.now() - start) / 1000, intact };
}
