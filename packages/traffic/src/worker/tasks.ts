/** The tasks of the workers. `netns` is the path of the network namespace to enter. */
interface InNetns {
  readonly netns: string;
}

export interface EchoParameters {
  readonly count: number;
  /** Payload in bytes. */
  readonly size: number;
  /** 0: send each as soon as the previous one is answered. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

export interface PingTask extends InNetns, EchoParameters {
  readonly kind: 'ping';
  readonly to: string;
}

export interface UdpEchoClientTask extends InNetns, EchoParameters {
  readonly kind: 'udp-echo-client';
  readonly address: string;
}

export interface UdpEchoServerTask extends InNetns {
  readonly kind: 'udp-echo-server';
  readonly address: string;
}

export interface TcpClientTask extends InNetns {
  readonly kind: 'tcp-client';
  readonly address: string;
  /** Infinity: until `seconds` have passed. */
  readonly bytes: number;
  readonly seconds: number;
  readonly verify: boolean;
  readonly maxSegment: number | null;
  /** The kernel's name of an algorithm; null for the default of the network namespace. */
  readonly congestionControl: string | null;
}

export interface TcpServerTask extends InNetns {
  readonly kind: 'tcp-server';
  readonly address: string;
  readonly verify: boolean;
  readonly maxSegment: number | null;
}

export interface UdpSenderTask extends InNetns {
  readonly kind: 'udp-sender';
  readonly address: string;
  readonly size: number;
  readonly token: number;
  /** Infinity: until `seconds` have passed. */
  readonly count: number;
  readonly seconds: number;
  /** Datagrams per second; Infinity: as fast as the socket accepts them. */
  readonly rate: number;
  readonly verify: boolean;
}

export interface UdpReceiverTask extends InNetns {
  readonly kind: 'udp-receiver';
  readonly address: string;
  readonly size: number;
  readonly token: number;
  readonly verify: boolean;
}

export type Task =
  | PingTask
  | UdpEchoClientTask
  | UdpEchoServerTask
  | TcpClientTask
  | TcpServerTask
  | UdpSenderTask
  | UdpReceiverTask;

/** Round trips of a ping or of UDP echoes. */
export interface EchoResult {
  readonly sent: number;
  /** Requests with an intact reply in time. */
  readonly received: number;
  /** Requests without a reply in time. */
  readonly lost: number;
  /** Further replies to requests that had one. */
  readonly duplicates: number;
  /** Replies with a damaged payload. Their requests are not counted as lost. */
  readonly corrupted: number;
  /** Round-trip time of each answered request, in the order of sending. */
  readonly rttsMicroseconds: Float64Array;
}

export interface TcpServerResult {
  readonly bytes: number;
  /** Time from the connection to the end of the stream. */
  readonly seconds: number;
  readonly intact: boolean;
}

export interface UdpReceiverResult {
  readonly received: number;
  readonly reordered: number;
  readonly duplicates: number;
  readonly corrupted: number;
  /** Time from the first datagram to the last. */
  readonly seconds: number;
}

/** A worker's only message; the result is null if it was stopped before it began. */
export type Outcome =
  | { readonly result: unknown }
  | { readonly error: { readonly message: string; readonly code: string | undefined } };
