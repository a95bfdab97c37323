import { sendUnixDatagram } from '../socket/datagram.ts';
import { printable } from './printable.ts';

/**
 * Tells a service manager such as systemd about the state of this process. Each method returns null, or why the message
 * could not be sent, in one line; that is no reason to stop working. Source: sd_notify(3).
 */
export interface ServiceNotifier {
  /** The service has started, or has read its configuration again. `status` is for people, sent as one line. */
  ready(status: string): string | null;
  /** What the service does now, for people; sent as one line. */
  status(text: string): string | null;
  /** The configuration is being read again; {@link ready} follows. */
  reloading(): string | null;
  stopping(): string | null;
}

/** Sends to the datagram socket `socket` (the variable NOTIFY_SOCKET); without one, nothing is sent. */
export function serviceNotifier(socket: string | undefined): ServiceNotifier {
  const send = (message: string): string | null => {
    if (!socket) return null;
    try {
      sendUnixDatagram(socket, Buffer.from(message));
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  };
  return {
    ready: (status) => send(`READY=1\nSTATUS=${printable(status)}`),
    status: (text) => send(`STATUS=${printable(text)}`),
    reloading: () => send(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => send('STOPPING=1'),
  };
}
