import type { Guest, Job } from './guest.ts';

const PORT = 5000;
/** busybox's nc ends with its standard input, so the receiver gets one without an end. */
const ENDLESS = 'mkfifo /tmp/endless 2> /dev/null; exec 0<> /tmp/endless;';

/** Starts to receive in a guest; resolves when a sender can connect. */
export async function receive(guest: Guest, into: string): Promise<Job> {
  const job = guest.job(`${ENDLESS} nc -l -p ${PORT} | ${into}`);
  const listening = `grep -q ':${PORT.toString(16).padStart(4, '0').toUpperCase()} .* 0A ' /proc/net/tcp`;
  await guest.run(`until ${listening}; do sleep 0.1; done`);
  return job;
}

/** Sends what a shell command prints to an address. */
export function send(guest: Guest, from: string, address: string): Job {
  return guest.job(`${from} | nc ${address} ${PORT}`);
}

/** Sends `bytes` random bytes, and returns their SHA-256 as sender and receiver see it. */
export async function sendRandom(
  from: Guest,
  to: Guest,
  address: string,
  bytes: number,
): Promise<{ sent: string; received: string; seconds: number }> {
  const sum = await from.run(`head -c ${bytes} /dev/urandom > /tmp/sent; sha256sum < /tmp/sent`);
  const receiver = await receive(to, 'sha256sum');
  const start = performance.now();
  const sender = send(from, 'cat /tmp/sent', address);
  await Promise.all([sender.exited, receiver.exited]);
  const seconds = (performance.now() - start) / 1000;
  return { sent: sum.trim(), received: receiver.output.text.trim(), seconds };
}
