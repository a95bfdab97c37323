import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { End, Rig } from './rig.ts';

/**
 * One side of a TCP connection: sends numbers in order without end, at a limited rate, and checks that those of the other side come
 * in order, too. After SIGTERM it ends its side of the stream, and after that of the other side the program; the last line has the bytes
 * received and the first fault, if any.
 */
const SIDE = `
  const net = require('node:net');
  const [role, address] = process.argv.slice(1);
  let sent = 0, received = 0, fault = null, ending = false;
  let rest = Buffer.alloc(0);
  const finish = (why) => { console.log(JSON.stringify({ received, fault: fault ?? why })); process.exit(); };
  const use = (socket) => {
    socket.setNoDelay();
    console.log('connected');
    const timer = setInterval(() => {
      if (ending) { clearInterval(timer); socket.end(); return; }
      if (socket.writableLength > 1 << 20) return;
      const bytes = Buffer.alloc(16384);
      for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE((sent++ * 2654435761) >>> 0, i);
      socket.write(bytes);
    }, 10);
    socket.on('data', (chunk) => {
      const bytes = Buffer.concat([rest, chunk]);
      const whole = bytes.length & ~3;
      for (let i = 0; i < whole; i += 4, received += 4) {
        if (bytes.readUInt32LE(i) !== ((received / 4) * 2654435761) >>> 0) fault ??= 'wrong at byte ' + received;
      }
      rest = bytes.subarray(whole);
    });
    socket.on('end', () => { socket.end(); finish(null); });
    socket.on('error', (error) => finish(error.message));
  };
  process.on('SIGTERM', () => { ending = true; });
  process.on('SIGUSR2', () => console.log(JSON.stringify({ received, fault })));
  if (role === 'listen') net.createServer({ allowHalfOpen: true }, use).listen(7000, address, () => console.log('listening'));
  else use(net.connect({ port: 7000, host: address, allowHalfOpen: true }));
`;

interface Received {
  /** Bytes. */
  readonly received: number;
  /** The first thing that was wrong. */
  readonly fault: string | null;
}

/** A TCP connection between the two ends of a rig, with traffic whose content is checked, in both directions. */
export class TcpStream {
  readonly #sides: ChildProcess[] = [];
  readonly #output: string[] = ['', ''];

  static async open(rig: Rig): Promise<TcpStream> {
    const stream = new TcpStream();
    stream.#start(rig, 1, 'listen', '10.64.0.2');
    await stream.#line(1, /listening/);
    stream.#start(rig, 0, 'connect', '10.64.0.2');
    await Promise.all([stream.#line(0, /connected/), stream.#line(1, /connected/)]);
    return stream;
  }

  #start(rig: Rig, end: End, role: string, address: string): void {
    const side = rig.inside(end, () =>
      spawn(process.execPath, ['-e', SIDE, role, address], { stdio: ['ignore', 'pipe', 'inherit'] }),
    );
    this.#sides[end] = side;
    side.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#output[end] += text;
    });
  }

  async #line(end: End, pattern: RegExp): Promise<string> {
    for (;;) {
      const line = this.#output[end]!.split('\n')
        .slice(0, -1)
        .findLast((text) => pattern.test(text));
      if (line !== undefined) return line;
      if (this.#sides[end]!.exitCode !== null) throw new Error(`ended: ${this.#output[end]}`);
      await once(this.#sides[end]!.stdout!, 'data');
    }
  }

  /** Resolves when either side has received this many bytes more, in order. */
  async flows(bytes = 100_000): Promise<void> {
    for (const end of [0, 1] as const) {
      const look = async (): Promise<Received> => {
        this.#output[end] = '';
        this.#sides[end]!.kill('SIGUSR2');
        return JSON.parse(await this.#line(end, /received/));
      };
      const { received } = await look();
      for (;;) {
        const now = await look();
        if (now.fault !== null) throw new Error(`TCP at end ${end}: ${now.fault}`);
        if (now.received >= received + bytes) break;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Ends the connection in order. Returns what each side has received. */
  async close(): Promise<Received[]> {
    const ended = this.#sides.map((side) => (side.exitCode === null ? once(side, 'close') : null));
    for (const side of this.#sides) side.kill('SIGTERM');
    await Promise.all(ended);
    return this.#output.map((text) => JSON.parse(text.trim().split('\n').at(-1)!));
  }

  /** Kills what is left of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const side of this.#sides) if (side.exitCode === null) side.kill('SIGKILL');
  }
}
