import type { Guest, Job } from './guest.ts';

const PORT = 5000;
/** As /proc/net/tcp shows a socket that listens at the port. */
const LISTENING = `:${PORT.toString(16).padStart(4, '0').toUpperCase()} [0-9A-F]*:0000 0A`;

/**
 * Has a guest receive one TCP connection and pipe it into a shell command; resolves when a sender can connect.
 * (busybox's nc ends with its standard input: it gets one without an end.)
 */
export async function receive(guest: Guest, into: string): Promise<Job> {
  const job = guest.job(
    `[ -p /tmp/endless ] || mkfifo /tmp/endless; nc -l -p ${PORT} 0<> /tmp/endless | ${into}`,
  );
  await guest.run(`until grep -q '${LISTENING}' /proc/net/tcp*; do sleep 0.1; done`);
  return job;
}

/** Has a guest send what a shell command prints to a receiver. */
export function send(guest: Guest, from: string, address: string, port = PORT): Job {
  return guest.job(`${from} | nc ${address} ${port}`);
}

/** Has a guest make a file of random bytes; returns its SHA-256 in hexadecimal digits. */
export async function randomFile(guest: Guest, path: string, bytes: number): Promise<string> {
  const sum = await guest.run(`head -c ${bytes} /dev/urandom > ${path}; sha256sum < ${path}`);
  return sum.slice(0, 64);
}

/** Sends `bytes` random bytes; returns their SHA-256 as sender and receiver see it, and bytes per second. */
export async function transfer(
  from: Guest,
  to: Guest,
  address: string,
  bytes: number,
): Promise<{ sent: string; received: string; rate: number }> {
  const sent = await randomFile(from, '/tmp/sent', bytes);
  const receiver = await receive(to, 'sha256sum');
  const start = performance.now();
  const sender = send(from, 'cat /tmp/sent', address);
  await Promise.all([sender.exited, receiver.exited]);
  const seconds = (performance.now() - start) / 1000;
  return { sent, received: receiver.output.text.slice(0, 64), rate: bytes / seconds };
}
