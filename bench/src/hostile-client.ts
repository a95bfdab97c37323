import { ftruncateSync } from 'node:fs';
import { connect } from 'node:net';
import { closeFd, write } from '@ivshmem/linux';
import { fileLength, mapShared } from '@ivshmem/linux/memory';
import { UnixSocket } from '@ivshmem/linux/socket';
import { controlSockets } from '@ivshmem/monitor';
import { ServerConnection } from '@ivshmem/transport';

/**
 * A process full of clients that misbehave, in every way at once: arguments are the sockets of the links, separated by
 * commas, the port of the metrics, and how many connections die each second. It is ended by a signal.
 */
const [paths, port, deaths] = process.argv.slice(2);
const sockets = paths!.split(',');
const random = (limit: number) => Math.floor(Math.random() * limit);
const anyPath = () => sockets[random(sockets.length)]!;

/** The server may do anything to a client of this kind. */
function attempt(action: () => void): void {
  try {
    action();
  } catch {
    // The server may reject it, be full, or disconnect it.
  }
}

function every(milliseconds: number, action: () => void): void {
  setInterval(() => attempt(action), milliseconds);
}

/** Connections kept open on purpose; if there are too many, the oldest is closed. */
class Hoard<Item> {
  readonly #items: Item[] = [];
  readonly #limit: number;
  readonly #drop: (item: Item) => void;
  constructor(limit: number, drop: (item: Item) => void) {
    this.#limit = limit;
    this.#drop = drop;
  }
  add(item: Item): void {
    this.#items.push(item);
    if (this.#items.length > this.#limit) this.#drop(this.#items.shift()!);
  }
}

// Clients that connect and die at once, thousands each second.
const BURST = 25;
every((1000 * BURST) / Number(deaths), () => {
  const path = anyPath();
  for (let i = 0; i < BURST; i++) attempt(() => UnixSocket.connect(path).close());
});

// Clients that never read, more than there are IDs and descriptors.
const silent = new Hoard<UnixSocket>(40, (socket) => socket.close());
every(50, () => silent.add(UnixSocket.connect(anyPath())));

// Clients that send: garbage, a message of the server's own, half a message.
const talkers = new Hoard<UnixSocket>(8, (socket) => socket.close());
every(40, () => {
  const socket = UnixSocket.connect(anyPath());
  socket.send(crypto.getRandomValues(new Uint8Array(1 + random(4096))));
  talkers.add(socket);
});

// Clients that attack what they receive: the memory and the eventfds of all peers.
interface Robber {
  readonly connection: ServerConnection;
  readonly fds: number[];
}
const robbers = new Hoard<Robber>(6, ({ connection, fds }) => {
  connection.close();
  for (const fd of fds) closeFd(fd);
});
const most = new BigUint64Array([0xffff_ffff_ffff_fffen]);
const noise = crypto.getRandomValues(new Uint8Array(4096));
every(100, () => {
  const robber: Robber = { connection: ServerConnection.connect(anyPath()), fds: [] };
  robbers.add(robber);
  setTimeout(() => attempt(() => rob(robber)), 30);
});

function rob({ connection, fds }: Robber): void {
  let memory = -1;
  for (let read = connection.read(); typeof read === 'object'; read = connection.read()) {
    if (read.fd === null) continue;
    fds.push(read.fd);
    if (read.message.type === 'init') memory = read.fd;
  }
  if (memory === -1) return;
  for (const length of [0, 2 ** 30]) attempt(() => ftruncateSync(memory, length));
  const size = fileLength(memory);
  using mapping = mapShared(memory, size, { write: true });
  const bytes = new Uint8Array(mapping.buffer);
  for (let offset = 0; offset < size; offset += noise.length) bytes.set(noise, offset);
  // The value of an eventfd from which another signal would block, were it not for O_NONBLOCK.
  using buffer = mapShared(memory, 4096, { write: true });
  new BigUint64Array(buffer.buffer)[0] = most[0]!;
  for (const fd of fds) if (fd !== memory) write(fd, buffer.address, 8);
}

// Clients of the control socket and the metrics that send requests and do not read the replies.
const askers = new Hoard<UnixSocket>(20, (socket) => socket.close());
const [control] = controlSockets();
every(50, () => askers.add(UnixSocket.connect(control!.path)));
const requests = new Hoard<ReturnType<typeof connect>>(20, (socket) => socket.destroy());
every(100, () => {
  const socket = connect(Number(port), '127.0.0.1');
  socket.on('error', () => {});
  socket.pause();
  socket.write(['GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n', 'GET /metr', 'NONSENSE\r\n\r\n'][random(3)]!);
  requests.add(socket);
});
