/**
 * What a driver does, as single steps: between any two of them the other peer, the host server or a crash may come.
 * `SET` + n writes the state register (the table entry only; the interrupt is `RING`), `REMEMBER` + n the driver's memory.
 */
export const Op = {
  SET: 0,
  RING: 4,
  INITIALISE: 5,
  START: 6,
  STOP: 7,
  CARRIER_ON: 8,
  CARRIER_OFF: 9,
  /** As `INITIALISE`, but when the driver starts: it does not know whether the other side's data path still runs. */
  CLEAR: 10,
  REMEMBER: 16,
} as const;

/** Writes the state register, and then interrupts the peer. */
export function publish(state: number): number[] {
  return [Op.SET + state, Op.RING];
}

/** What a driver can see when it decides. */
export interface View {
  /** What it remembers, 0 to 7. */
  readonly memory: number;
  /** Its own state register, 0 to 3. */
  readonly own: number;
  /** The peer's state table entry, 0 to 3. */
  readonly peer: number;
  /** Whether its network interface has been brought up. */
  readonly up: boolean;
  /** Whether its data path runs. */
  readonly running: boolean;
  /** Whether its carrier is on. */
  readonly carrier: boolean;
}

/** What a driver does about what it sees: at once it remembers something, then it works the list off. */
export interface Decision {
  readonly memory?: number;
  readonly ops: readonly number[];
}

export const NOTHING: Decision = { ops: [] };

/** The rules that one driver follows. */
export interface Rules {
  readonly name: string;
  /**
   * A guest's device has taken in all that the server had to say on connection before its driver starts, and loses
   * interrupts until then. A process starts at once, and reads the server's messages one after the other.
   */
  readonly guest: boolean;
  /** Memory of a driver that has just started. */
  readonly boot: number;
  /** What a driver does when it starts, before it evaluates; its state register is RESET by then. */
  readonly start?: readonly number[];
  /** Its link, and its state register, do not follow its interface. */
  readonly ignoresInterface?: boolean;
  /** Evaluates again after everything that it has done. */
  readonly repeats?: boolean;
  /** Rings the peer on learning that its device has connected; a guest does not learn it. */
  readonly ringsOnJoin?: boolean;
  /** Rings the peer when the driver starts. */
  readonly ringsOnStart?: boolean;
  /** Rings the peer whenever its timer makes it evaluate. */
  readonly ringsOnPoll?: (view: View) => boolean;
  /** Whether a timer makes it evaluate, depending on its memory; absent if there is no timer. */
  readonly polls?: (memory: number) => boolean;
  /** Whether an interrupt leads to an evaluation at all; absent if every one does. */
  readonly heeds?: (view: View) => boolean;
  evaluate(view: View): Decision;
  /** It has polled for some time without an answer; absent if it makes no difference. */
  readonly insist?: (view: View) => Decision;
  /** The data path has found a violation; absent if the driver only logs them. */
  readonly fault?: (view: View) => Decision;
  /** Whether the interface is not brought up at this moment; absent if it may be brought up at any. */
  readonly staysDown?: (view: View) => boolean;
  /** The interface is brought up; absent if that just leads to an evaluation. */
  readonly open?: (view: View) => Decision;
  /** The interface is taken down; absent if that just leads to an evaluation. */
  readonly close?: (view: View) => Decision;
}
