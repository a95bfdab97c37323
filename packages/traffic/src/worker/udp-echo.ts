import { randomInt } from 'node:crypto';
import { recv, send } from '@ivshmem/linux';
import { type Mapping, mapPrivate } from '@ivshmem/linux/memory';
import { type IpSocket, MSG_NOSIGNAL } from '@ivshmem/linux/network';
import { setReceiveTimeout } from '@ivshmem/linux/socket';
import { type Control, publishSenderDone, senderIsDone, stopRequested, waitForPort } from '../control.ts';
import { NumberedPayload } from '../numbered-payload.ts';
import { CORRUPTED, type EchoSocket, exchangeEchoes, NOTHING } from './echo.ts';
import { datagramErrno } from './network-errors.ts';
import type { EchoResult, UdpEchoClientTask, UdpEchoServerTask } from './tasks.ts';
import { DATAGRAM_CAPACITY, openUdp, serveUdp } from './udp-socket.ts';

class UdpEcho implements EchoSocket {
  sentAt = 0;
  arrivedAt = 0;
  readonly #socket: IpSocket;
  readonly #address: string;
  readonly #payload: NumberedPayload;
  readonly #memory: Mapping = mapPrivate(DATAGRAM_CAPACITY);
  readonly #bytes = Buffer.from(this.#memory.buffer);

  constructor(socket: IpSocket, address: string, size: number) {
    this.#socket = socket;
    this.#address = address;
    this.#payload = new NumberedPayload(size, randomInt(2 ** 32));
  }

  send(sequence: number): void {
    this.#payload.write(this.#bytes, 0, sequence);
    this.sentAt = performance.now();
    if (send(this.#socket.fd, this.#memory.address, this.#payload.size, MSG_NOSIGNAL) === -1) {
      datagramErrno('send', this.#address);
    }
  }

  receive(): number {
    const length = recv(this.#socket.fd, this.#memory.address, DATAGRAM_CAPACITY, 0);
    this.arrivedAt = performance.now();
    if (length === -1) {
      datagramErrno('recv', this.#address);
      return NOTHING;
    }
    const sequence = this.#payload.read(this.#bytes, 0, length, true);
    return sequence === -1 ? CORRUPTED : sequence;
  }

  setTimeout(milliseconds: number): void {
    setReceiveTimeout(this.#socket.fd, milliseconds);
  }

  close(): void {
    this.#payload.close();
    this.#memory.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export function udpEchoClient(task: UdpEchoClientTask, control: Control): EchoResult | null {
  const port = waitForPort(control);
  if (port === 0) return null;
  using socket = openUdp(task.address);
  socket.connect(task.address, port);
  using echo = new UdpEcho(socket, task.address, task.size);
  try {
    return exchangeEchoes(echo, task, control);
  } finally {
    publishSenderDone(control);
  }
}

/** Echoes the datagrams of the first client that sends one. */
export function udpEchoServer(task: UdpEchoServerTask, control: Control): null {
  using socket = serveUdp(task.address, control);
  using memory = mapPrivate(DATAGRAM_CAPACITY);
  const { fd } = socket;
  const { address } = memory;
  const done = () => stopRequested(control) || senderIsDone(control);
  while (!socket.connectToSender()) if (done()) return null;
  while (!done()) {
    const length = recv(fd, address, DATAGRAM_CAPACITY, 0);
    if (length === -1) datagramErrno('recv', task.address);
    else if (send(fd, address, length, MSG_NOSIGNAL) === -1) datagramErrno('send', task.address);
  }
  return null;
}
