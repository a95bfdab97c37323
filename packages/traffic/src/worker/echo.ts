import { type Control, RECEIVED, SENT, SLICE_MS, stopRequested } from '../control.ts';
import type { EchoParameters, EchoResult } from './tasks.ts';

/** Results of {@link EchoSocket.receive} other than a sequence number. */
export const NOTHING = -1;
export const CORRUPTED = -2;

/** Sends requests and receives replies: the protocol-specific part of {@link exchangeEchoes}. */
export interface EchoSocket {
  /** When the last request was sent and when the last reply was received: performance.now(). */
  sentAt: number;
  arrivedAt: number;
  /** A request that the network rejects is lost. */
  send(sequence: number): void;
  /** Waits for one packet, up to the timeout. Returns its sequence number, {@link NOTHING} or {@link CORRUPTED}. */
  receive(): number;
  setTimeout(milliseconds: number): void;
}

/** Sends a request every `intervalMs` and measures the round trips. Ends early on a stop request. */
export function exchangeEchoes(socket: EchoSocket, parameters: EchoParameters, control: Control): EchoResult {
  const { count, intervalMs, timeoutMs } = parameters;
  const sentAt = new Float64Array(count);
  const rtts = new Float64Array(count).fill(Number.NaN);
  let sent = 0;
  let received = 0;
  let duplicates = 0;
  let corrupted = 0;
  let timeout = 0;
  let unanswered = count - 1;

  while (!stopRequested(control)) {
    const now = performance.now();
    const expiry = sent === 0 ? now : sentAt[sent - 1]! + timeoutMs;
    const idle = sent === 0 || !Number.isNaN(rtts[sent - 1]!) || now >= expiry;
    if (sent === count) {
      // The last request that may still be answered.
      while (unanswered >= 0 && !Number.isNaN(rtts[unanswered]!)) unanswered--;
      if (unanswered < 0 || now >= sentAt[unanswered]! + timeoutMs) break;
    }

    const due = intervalMs > 0 && sent > 0 ? sentAt[sent - 1]! + intervalMs : idle ? now : expiry;
    if (sent < count && now >= due) {
      socket.send(sent);
      sentAt[sent++] = socket.sentAt;
      control.counters[SENT] = sent;
      continue;
    }

    const wanted = Math.min(SLICE_MS, (sent < count ? due : sentAt[unanswered]! + timeoutMs) - now);
    if (wanted !== timeout) {
      timeout = wanted;
      socket.setTimeout(wanted);
    }
    const sequence = socket.receive();
    if (sequence === NOTHING) continue;
    if (sequence === CORRUPTED || sequence >= sent) {
      corrupted++;
    } else if (!Number.isNaN(rtts[sequence]!)) {
      duplicates++;
    } else if (socket.arrivedAt - sentAt[sequence]! <= timeoutMs) {
      rtts[sequence] = socket.arrivedAt - sentAt[sequence]!;
      control.counters[RECEIVED] = ++received;
    }
  }

  return {
    sent,
    received,
    lost: Math.max(0, sent - received - corrupted),
    duplicates,
    corrupted,
    rttsMicroseconds: rtts.filter((rtt) => !Number.isNaN(rtt)).map((rtt) => rtt * 1000),
  };
}
