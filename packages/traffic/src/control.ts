/**
 * Memory shared by the main thread and the workers of one run: [stop, port, sender is done, –] as Int32, then two
 * counters as Float64. Each counter has one writer; the other threads only read it, as an aligned word.
 */
export interface Control {
  readonly memory: SharedArrayBuffer;
  readonly cells: Int32Array;
  readonly counters: Float64Array;
}

const STOP = 0;
const PORT = 1;
const SENDER_DONE = 2;

/** Indices of {@link Control.counters}: datagrams, or bytes of a stream. */
export const SENT = 0;
export const RECEIVED = 1;

/** Maximum time a worker blocks before it checks the stop flag, in ms. */
export const SLICE_MS = 100;

export function createControl(): Control {
  return attachControl(new SharedArrayBuffer(32));
}

export function attachControl(memory: SharedArrayBuffer): Control {
  return { memory, cells: new Int32Array(memory, 0, 4), counters: new Float64Array(memory, 16, 2) };
}

/** Asks all workers of the run to end. */
export function requestStop({ cells }: Control): void {
  Atomics.store(cells, STOP, 1);
  Atomics.notify(cells, STOP);
  Atomics.notify(cells, PORT);
}

export function stopRequested({ cells }: Control): boolean {
  return Atomics.load(cells, STOP) !== 0;
}

/** Blocks the thread for `milliseconds`, or until a stop is requested. */
export function sleepUnlessStopped({ cells }: Control, milliseconds: number): void {
  Atomics.wait(cells, STOP, 0, milliseconds);
}

/** The server's side of {@link waitForPort}. */
export function publishPort({ cells }: Control, port: number): void {
  Atomics.store(cells, PORT, port);
  Atomics.notify(cells, PORT);
}

/** Blocks until the server listens. Returns its port, or 0 if the run was stopped first. */
export function waitForPort(control: Control): number {
  for (;;) {
    const port = Atomics.load(control.cells, PORT);
    if (port !== 0 || stopRequested(control)) return port;
    Atomics.wait(control.cells, PORT, 0, SLICE_MS);
  }
}

/** Nothing more will be sent: the counter {@link SENT} is final. */
export function publishSenderDone({ cells }: Control): void {
  Atomics.store(cells, SENDER_DONE, 1);
}

export function senderIsDone({ cells }: Control): boolean {
  return Atomics.load(cells, SENDER_DONE) !== 0;
}
