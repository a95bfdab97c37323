import { State } from '@ivshmem/transport/protocol';
import { type Driver, driver, viewIndex } from './driver.ts';
import { Field, get, Phase, set } from './peer-state.ts';
import { Op, type Rules } from './rules.ts';

/** What can happen. The last five come from outside: they may happen at any time, and need never happen. */
export const EVENTS = [
  'evaluates',
  'polls',
  'takes an interrupt',
  'goes on',
  "reads the server's message",
  'connects',
  'starts its driver',
  'has waited long enough',
  'brings its interface up',
  'is noticed to be gone by the server',
  'takes its interface down',
  'crashes',
  'reboots',
  'finds a protocol violation',
  'gets a spurious interrupt',
] as const;
export type Event = (typeof EVENTS)[number];
const event = (name: Event): number => EVENTS.indexOf(name);
const EVALUATE = event('evaluates');
const POLL = event('polls');
const TAKE = event('takes an interrupt');
const GO_ON = event('goes on');
const READ = event("reads the server's message");
const CONNECT = event('connects');
const BOOT = event('starts its driver');
const INSIST = event('has waited long enough');
const OPEN = event('brings its interface up');
const NOTICE = event('is noticed to be gone by the server');
const CLOSE = event('takes its interface down');
const CRASH = event('crashes');
const REBOOT = event('reboots');
const FAULT = event('finds a protocol violation');
const SPURIOUS = event('gets a spurious interrupt');
export const FIRST_FROM_OUTSIDE = CLOSE;

/** Called for every possible next state. `event` is an index of {@link EVENTS}, `who` the peer concerned. */
export type Emit = (event: number, who: number, peer0: number, peer1: number) => void;

type EmitOne = (event: number, me: number, other: number) => void;

/**
 * Two peers, the host server between them, and everything that can go wrong. Source of the server's behaviour: the
 * order of its messages; a client that does not read is at most `backlog` messages behind (at most 15). With `atomic`,
 * an evaluation is one step: nothing else happens between what a driver sees and what it does about it.
 */
export class System {
  readonly #drivers: readonly [Driver, Driver];
  readonly #backlog: number;
  readonly #atomic: boolean;

  constructor(rules0: Rules, rules1: Rules, backlog: number, atomic = false) {
    this.#drivers = [driver(rules0), driver(rules1)];
    this.#backlog = backlog;
    this.#atomic = atomic;
  }

  /** One interface is down, and to the other side the link is up. */
  isDownUnnoticed(peer0: number, peer1: number): boolean {
    if (this.#drivers.some(({ rules }) => rules.ignoresInterface)) return false;
    return isUnnoticed(peer0, peer1) || isUnnoticed(peer1, peer0);
  }

  /** Both drivers up, at RUN, with carrier: what everything has to lead to. */
  isLinkUp(peer0: number, peer1: number): boolean {
    return this.#isUp(0, peer0) && this.#isUp(1, peer1);
  }

  #isUp(who: 0 | 1, peer: number): boolean {
    return (
      get(peer, Field.PHASE) === Phase.ALIVE &&
      get(peer, Field.UP) === 1 &&
      get(peer, Field.STATE) === State.RUN &&
      get(peer, Field.RUNNING) === 1 &&
      get(peer, Field.CARRIER) === 1 &&
      !this.#drivers[who].programs[get(peer, Field.PROGRAM)]!.includes(Op.SET + State.RESET)
    );
  }

  /** The program that a peer is at, for invariants and for traces. */
  currentOp(who: 0 | 1, peer: number): number {
    const program = this.#drivers[who].programs[get(peer, Field.PROGRAM)]!;
    return program[get(peer, Field.POSITION)] ?? -1;
  }

  /** What is wrong with a state, which must never be; null if nothing is. */
  violation(peer0: number, peer1: number): string | null {
    return this.#violationOf(0, peer0, peer1) ?? this.#violationOf(1, peer1, peer0);
  }

  #violationOf(who: 0 | 1, me: number, other: number): string | null {
    if (get(me, Field.PHASE) !== Phase.ALIVE) return null;
    const what = this.#faultOf(who, me, other);
    return what && `${this.#drivers[who].rules.name} ${what}`;
  }

  #faultOf(who: 0 | 1, me: number, other: number): string | null {
    const op = this.currentOp(who, me);
    const running = get(me, Field.RUNNING) === 1;
    if (op === Op.INITIALISE && running) return 'initialises its section while its data path runs on it';
    if (op === Op.INITIALISE && get(other, Field.RUNNING) === 1) {
      return 'initialises its section while the data path of the other side runs on it';
    }
    if (op === Op.START && running) return 'starts a data path that runs';
    if (op === Op.STOP && !running) return 'stops a data path that does not run';
    if (!this.#drivers[who].rules.repeats) return null;
    const state = get(me, Field.STATE);
    if (running && state < State.READY) return 'runs its data path below READY';
    if (!running && state === State.RUN && op !== Op.SET + State.RESET)
      return 'is at RUN without a data path';
    return get(me, Field.CARRIER) === 1 && !running ? 'has a carrier without a data path' : null;
  }

  /** Emits every state that can follow. */
  next(peer0: number, peer1: number, emit: Emit): void {
    this.#step(0, peer0, peer1, (event, me, other) => emit(event, 0, me, other));
    this.#step(1, peer1, peer0, (event, me, other) => emit(event, 1, other, me));
  }

  #step(who: 0 | 1, me: number, other: number, emit: EmitOne): void {
    const driver = this.#drivers[who];
    const { rules } = driver;
    const phase = get(me, Field.PHASE);
    const view = viewIndex(me, get(other, Field.STATE));

    if (phase === Phase.GONE || phase === Phase.DEAD) {
      this.#stepAbsent(driver, phase, other, emit);
      return;
    }
    const queue = get(me, Field.QUEUE);
    if (queue > 0) this.#readMessage(who, me, other, emit);
    if (phase === Phase.CONNECTED) {
      emit(BOOT, boot(driver, me), rules.ringsOnStart ? this.#ring(who, me, other) : other);
      emit(CRASH, set(set(0, Field.PHASE, Phase.DEAD), Field.STATE, get(me, Field.STATE)), other);
      return;
    }

    if (get(me, Field.IRQ) === 1) {
      const heeds = driver.heeds === null || driver.heeds[view] === 1;
      const taken = set(me, Field.IRQ, 0);
      emit(TAKE, heeds ? set(taken, Field.WORK, 1) : taken, other);
    }
    const program = get(me, Field.PROGRAM);
    if (program !== 0) this.#goOn(who, me, other, emit);
    else {
      if (get(me, Field.WORK) === 1) this.#act(who, EVALUATE, driver.evaluate, me, other, emit);
      if (driver.polls[get(me, Field.MEMORY)]) {
        const rung = driver.ringsOnPoll[view] === 1 ? this.#ring(who, me, other) : other;
        this.#act(who, POLL, driver.evaluate, me, rung, emit);
        if (driver.insist !== null) this.#act(who, INSIST, driver.insist, me, rung, emit);
      }
      if (get(me, Field.UP) === 1) emit(CLOSE, switched(me, 0, other, driver.close), other);
      else if (driver.staysDown[view] === 0) emit(OPEN, switched(me, 1, other, driver.open), other);
      if (driver.fault !== null && get(me, Field.RUNNING) === 1) {
        emit(FAULT, begin(me, driver.fault[view]!), other);
      }
    }
    emit(SPURIOUS, this.#interrupt(who, me), other);
    emit(CRASH, set(set(0, Field.PHASE, Phase.DEAD), Field.STATE, get(me, Field.STATE)), other);
    const rebooted = set(set(0, Field.PHASE, Phase.CONNECTED), Field.QUEUE, queue);
    emit(REBOOT, rebooted, get(me, Field.STATE) === State.RESET ? other : this.#ring(who, me, other));
  }

  /** The server notices that a peer is gone, or the peer connects again: the other one learns of it. */
  #stepAbsent(driver: Driver, phase: number, other: number, emit: EmitOne): void {
    const otherPhase = get(other, Field.PHASE);
    const listens = otherPhase >= Phase.CONNECTED;
    const queue = get(other, Field.QUEUE);
    if (listens && queue === this.#backlog) return;
    const told = listens ? set(other, Field.QUEUE, queue + 1) : other;
    if (phase === Phase.DEAD) emit(NOTICE, 0, told);
    else if (driver.rules.guest) emit(CONNECT, set(0, Field.PHASE, Phase.CONNECTED), told);
    else emit(CONNECT, set(boot(driver, 0), Field.QUEUE, otherPhase === Phase.GONE ? 0 : 1), told);
  }

  #readMessage(who: 0 | 1, me: number, other: number, emit: EmitOne): void {
    const { rules } = this.#drivers[who];
    const queue = get(me, Field.QUEUE);
    // The last message in the queue has the current state.
    const joined = (get(other, Field.PHASE) !== Phase.GONE) === (queue % 2 === 1);
    const read = set(me, Field.QUEUE, queue - 1);
    if (!joined) emit(READ, this.#interrupt(who, read), other);
    else if (get(me, Field.PHASE) === Phase.ALIVE && rules.ringsOnJoin) {
      emit(READ, set(read, Field.WORK, 1), this.#ring(who, read, other));
    } else emit(READ, read, other);
  }

  /** Begins what `decisions` answer to what there is to see. */
  #act(who: 0 | 1, event: number, decisions: Int32Array, from: number, peer: number, emit: EmitOne): void {
    const view = viewIndex(from, get(peer, Field.STATE));
    let me = begin(set(from, Field.WORK, 0), decisions[view]!);
    let other = peer;
    if (this.#atomic) {
      const keep: EmitOne = (_, nextMe, nextOther) => {
        me = nextMe;
        other = nextOther;
      };
      while (get(me, Field.PROGRAM) !== 0) this.#goOn(who, me, other, keep);
    }
    emit(event, me, other);
  }

  #goOn(who: 0 | 1, me: number, other: number, emit: EmitOne): void {
    const { programs, rules } = this.#drivers[who];
    const program = programs[get(me, Field.PROGRAM)]!;
    const position = get(me, Field.POSITION);
    const op = program[position]!;
    let after = set(me, Field.POSITION, position + 1);
    if (position + 1 === program.length) {
      after = set(set(me, Field.PROGRAM, 0), Field.POSITION, 0);
      if (rules.repeats) after = set(after, Field.WORK, 1);
    }
    if (op >= Op.REMEMBER) after = set(after, Field.MEMORY, op - Op.REMEMBER);
    else if (op < Op.SET + 4) after = set(after, Field.STATE, op - Op.SET);
    else if (op === Op.START || op === Op.STOP) after = set(after, Field.RUNNING, Number(op === Op.START));
    else if (op === Op.CARRIER_ON || op === Op.CARRIER_OFF) {
      after = set(after, Field.CARRIER, Number(op === Op.CARRIER_ON));
    }
    emit(GO_ON, after, op === Op.RING ? this.#ring(who, me, other) : other);
  }

  /** Interrupts the other peer; in vain if its eventfds have not arrived, or no driver runs. */
  #ring(who: 0 | 1, me: number, other: number): number {
    const hasEventFds = get(me, Field.QUEUE) === 0 && get(other, Field.PHASE) !== Phase.GONE;
    return hasEventFds ? this.#interrupt(who === 0 ? 1 : 0, other) : other;
  }

  #interrupt(who: 0 | 1, peer: number): number {
    if (get(peer, Field.PHASE) !== Phase.ALIVE) return peer;
    return set(peer, this.#drivers[who].heeds === null ? Field.WORK : Field.IRQ, 1);
  }
}

function isUnnoticed(me: number, other: number): boolean {
  return (
    get(me, Field.PHASE) === Phase.ALIVE &&
    get(me, Field.UP) === 0 &&
    get(other, Field.PHASE) === Phase.ALIVE &&
    get(other, Field.UP) === 1 &&
    get(other, Field.RUNNING) === 1 &&
    get(other, Field.CARRIER) === 1
  );
}

/** A driver that starts: its state is RESET, and it evaluates once. */
function boot({ start }: Driver, peer: number): number {
  let booted = begin(set(peer, Field.PHASE, Phase.ALIVE), start);
  booted = set(booted, Field.WORK, 1);
  return set(booted, Field.UP, 1);
}

/** A driver whose interface is brought up (1) or taken down (0), which `decisions` answer. */
function switched(peer: number, up: number, other: number, decisions: Int32Array | null): number {
  const after = set(peer, Field.UP, up);
  const decision = decisions?.[viewIndex(after, get(other, Field.STATE))];
  return decision === undefined ? set(after, Field.WORK, 1) : begin(after, decision);
}

function begin(peer: number, decision: number): number {
  return set(set(peer, Field.PROGRAM, decision >> 3), Field.MEMORY, decision & 7);
}
