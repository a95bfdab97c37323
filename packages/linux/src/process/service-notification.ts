import { sendUnixDatagram } from '../socket/datagram.ts';
import { printable } from './printable.ts';

/**
 * Notifies a service manager such as systemd of the state of this process. Each method returns null, or in one line why the
 * message could not be sent, which the caller may ignore. Source: sd_notify(3).
 */
export interface ServiceNotifier {
  /** The service has started or reloaded. `status` is a human-readable line. */
  ready(status: string): string | null;
  /** Sets the human-readable status line. */
  status(text: string): string | null;
  /** The service is reloading its configuration; {@link ready} follows. */
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
