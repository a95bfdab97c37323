import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostServer, type HostServer } from '@ivshmem/host-server';
import { openPort, Peer, type Port } from '@ivshmem/transport';
import { announceMtu } from '@ivshmem/transport/protocol';
import { Recorder, Relay, recordPort, SteppedPoller } from './recorder.ts';

/** Of each output section, in bytes: the smallest, so that all of it can be shown. */
const SECTION = 0x1000;

/** A peer of the host server that runs only when one of its functions is called. */
class Actor implements Disposable {
  readonly name: string;
  readonly relay: Relay;
  readonly poller = new SteppedPoller();
  readonly #socketPath: string;
  readonly #recorder: Recorder;
  #peer: Peer | undefined;

  constructor(name: string, directory: string, serverPath: string, recorder: Recorder) {
    this.name = name;
    this.#recorder = recorder;
    this.#socketPath = join(directory, name.replace(' ', '-'));
    this.relay = new Relay(this.#socketPath, serverPath, name, recorder);
  }

  get peer(): Peer {
    return this.#peer!;
  }

  connect(): void {
    const source = { type: 'server', socketPath: this.#socketPath } as const;
    openPort(source, this.poller, (opened) => {
      if (opened instanceof Error) throw opened;
      this.#begin(opened);
    });
  }

  #begin(port: Port): void {
    recordPort(port, this.name, this.#recorder);
    const peer = new Peer(port, this.poller);
    this.#peer = peer;
    peer.begin({
      announce: () => announceMtu(peer.own, peer.layout, { bytes: peer.layout.defaultMtu, set: false }),
      start: () => this.#note('starts its data path'),
      stop: () => this.#note('stops its data path'),
      carrier: (on) => this.#note(`carrier ${on ? 'on' : 'off'}`),
    });
  }

  /** A line, after those for the stores before. */
  #note(what: string): void {
    this.#recorder.stores(this.name);
    this.#recorder.add(this.name, what);
  }

  /** Handles what has arrived, messages and interrupts, and then the rings. Returns whether anything had arrived. */
  step(): boolean {
    if (!this.poller.step()) return false;
    this.#recorder.stores(this.name);
    if (this.#peer?.running) this.#receive(this.#peer);
    return true;
  }

  #receive(peer: Peer): void {
    peer.tx.reclaim();
    for (let n = peer.rx.available(); n > 0 && peer.rx.next(); n--) {
      const { offset, length } = peer.rx;
      this.#recorder.add(
        this.name,
        `takes ${length} bytes at 0x${offset.toString(16)} of section ${peer.other}`,
      );
      this.#recorder.stores(this.name);
    }
    peer.flush();
    this.#recorder.stores(this.name);
    peer.sleep();
    this.#recorder.stores(this.name);
  }

  /** Sends frames with these texts in one burst. */
  send(...texts: readonly string[]): void {
    const { peer } = this;
    for (const text of texts) {
      const header = Buffer.from([2, 0, 0, 0, 0, peer.other, 2, 0, 0, 0, 0, peer.port.id, 0x88, 0xb5]);
      const frame = Buffer.concat([header, Buffer.from(text)]);
      const slot = peer.tx.reserve(frame.length);
      new Uint8Array(peer.own.buffer).set(frame, slot);
      this.#recorder.stores(this.name);
      peer.tx.commit(frame.length);
      this.#recorder.stores(this.name);
    }
    peer.flush();
    this.#recorder.stores(this.name);
  }

  /** What its timer does. */
  poll(): void {
    this.#recorder.add(this.name, 'polls');
    this.peer.poll();
    this.#recorder.stores(this.name);
  }

  setEnabled(on: boolean): void {
    this.#recorder.add(
      this.name,
      on ? 'is enabled: its interface is up again' : 'is disabled: its interface is down',
    );
    this.peer.setEnabled(on);
    this.#recorder.stores(this.name);
  }

  leave(): void {
    this.peer.close();
    this.#recorder.stores(this.name);
  }

  [Symbol.dispose](): void {
    this.#peer?.close();
    this.poller[Symbol.dispose]();
    this.relay[Symbol.dispose]();
  }
}

/** A host server and two peers in this process, which take turns, so that each run is the same. */
export class Stage implements Disposable {
  readonly recorder = new Recorder();
  readonly #directory = mkdtempSync(join(tmpdir(), 'ivshmem-trace-'));
  readonly #poller = new SteppedPoller();
  readonly #server: HostServer;
  readonly actors: readonly [Actor, Actor];

  constructor() {
    const serverPath = join(this.#directory, 'server');
    this.#server = createHostServer({
      socketPath: serverPath,
      size: 4 * SECTION,
      outputSectionSize: SECTION,
      maxPeers: 2,
      vectors: 2,
      protocol: 1,
      poller: this.#poller,
    });
    const actor = (name: string) => new Actor(name, this.#directory, serverPath, this.recorder);
    this.actors = [actor('peer 0'), actor('peer 1')];
  }

  /** At a time, in ms: does something, and lets all participants react until nothing is left to do. */
  at(time: number, action: () => void): void {
    this.recorder.time = time;
    action();
    for (let busy = true; busy; ) {
      busy = this.#poller.step();
      this.recorder.stores('server');
      for (const actor of this.actors) {
        if (actor.relay.step()) busy = true;
        if (actor.step()) busy = true;
      }
    }
  }

  [Symbol.dispose](): void {
    for (const actor of this.actors) actor[Symbol.dispose]();
    this.#server.close();
    this.#poller[Symbol.dispose]();
    this.recorder[Symbol.dispose]();
    rmSync(this.#directory, { recursive: true });
  }
}
