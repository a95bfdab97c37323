import * as libc from '../libc.ts';

const CLOCK_REALTIME = 0;

const time = new BigInt64Array(2);
const bytes = new Uint8Array(time.buffer);

/** CLOCK_REALTIME, in ns since 1970. Node has it in ms only. */
export function realTime(): bigint {
  libc.clockGettime(CLOCK_REALTIME, bytes);
  return time[0]! * 1_000_000_000n + time[1]!;
}
