import {
  byKind,
  type Decoded,
  dictionary,
  flag,
  list,
  literal,
  nullable,
  shape,
  text,
  time,
  wholeNumber,
} from './decode.ts';

// What a process reports of itself and its parts at the verb `status`. Receivers ignore fields that they do not know, so
// fields can be added.

/** What every part has. */
const common = {
  /** Name of the configured link that it belongs to; null if it was not given one. */
  link: nullable(text),
  /** Socket of its host server; null for a PCI device. Parts with the same one are on the same link. */
  socket: nullable(text),
  /** Since when it has been in its state. */
  since: time,
};

/** The last line of a part's log. */
const logLine = nullable(shape({ time, text }));

const peerReport = shape({
  id: wholeNumber,
  /** Process at the time of connect(2); 0 if it is in another PID namespace. */
  pid: wholeNumber,
  uid: wholeNumber,
  gid: wholeNumber,
  /** When it connected. */
  since: time,
  /** Value of its state register, any u32. */
  state: wholeNumber,
  /** Messages pending for it. */
  waiting: wholeNumber,
});

const serverReport = shape({
  ...common,
  kind: literal('server'),
  /** Bytes. */
  size: wholeNumber,
  outputSectionSize: wholeNumber,
  maxPeers: wholeNumber,
  vectors: wholeNumber,
  protocol: wholeNumber,
  peers: list(peerReport),
});

/** A part that is configured and could not be started. */
const failureReport = shape({
  ...common,
  kind: literal('failure'),
  /** What it would be, such as the name of a link or an interface. */
  name: text,
  problem: text,
});

const interfaceReport = shape({
  ...common,
  kind: literal('interface'),
  tap: text,
  /** As it was given; null for the namespace of the process. */
  netns: nullable(text),
  /** Address of the PCI device, if that is its port. */
  pci: nullable(text),
  id: wholeNumber,
  mtu: wholeNumber,
  outputSectionSize: wholeNumber,
  /** States of the handshake, by name. */
  local: text,
  peer: text,
  carrier: flag,
  offloads: list(text),
  stats: dictionary(wholeNumber),
  log: logLine,
});

const deviceReport = shape({
  ...common,
  kind: literal('device'),
  vfioUser: text,
  id: wholeNumber,
  protocol: wholeNumber,
  outputSectionSize: wholeNumber,
  isolate: flag,
  /** `waiting`, `attached`, `orphaned` or `no-server`. */
  state: text,
  stats: dictionary(wholeNumber),
  log: logLine,
});

const partReport = byKind({
  server: serverReport,
  failure: failureReport,
  interface: interfaceReport,
  device: deviceReport,
});

/** Throws TypeError. */
export const decodeProcessReport = shape({
  /** `server`, `net`, `device`, `vm`, `run`. */
  command: text,
  /** In its own PID namespace. */
  pid: wholeNumber,
  since: time,
  /** False while it starts, such as while it waits for a host server. */
  ready: flag,
  parts: list(partReport),
});

export type PeerReport = Decoded<typeof peerReport>;
export type ServerReport = Decoded<typeof serverReport>;
export type FailureReport = Decoded<typeof failureReport>;
export type InterfaceReport = Decoded<typeof interfaceReport>;
export type DeviceReport = Decoded<typeof deviceReport>;
export type PartReport = Decoded<typeof partReport>;
export type ProcessReport = Decoded<typeof decodeProcessReport>;

/** Whether a part does what it is for: a server runs, an interface has carrier, a device is used by a VM. */
export function isUp(part: PartReport): boolean {
  switch (part.kind) {
    case 'server':
      return true;
    case 'failure':
      return false;
    case 'interface':
      return part.carrier;
    case 'device':
      return part.state === 'attached';
  }
}

/** What to call a part, among those of its link. */
export function partName(part: PartReport): string {
  switch (part.kind) {
    case 'server':
      return 'server';
    case 'failure':
      return part.name;
    case 'interface':
      return part.tap;
    case 'device':
      return part.vfioUser;
  }
}

/** The link that a part belongs to: its name, or the socket or PCI device that connects its ends. */
export function linkName(part: PartReport): string {
  return part.link ?? part.socket ?? (part.kind === 'interface' ? part.pci : null) ?? partName(part);
}
