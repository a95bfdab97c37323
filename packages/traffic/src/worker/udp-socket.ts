import { type IpSocket, openIpSocket, parseIpAddress } from '@ivshmem/linux/network';
import { type Control, publishPort, SLICE_MS } from '../control.ts';

const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
/** Large, so that the test measures the link and not how long the receiver sleeps. In bytes. */
const RECEIVE_BUFFER_SIZE = 8 << 20;
/** More than the largest datagram, in bytes. */
export const DATAGRAM_CAPACITY = 65536;

export function openUdp(address: string): IpSocket {
  return openIpSocket(parseIpAddress(address).family, 'udp', SLICE_MS);
}

/** Binds to a free port and publishes it to the client. */
export function serveUdp(address: string, control: Control): IpSocket {
  const socket = openUdp(address);
  try {
    socket.setOption(SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_SIZE);
    socket.bind(address, 0);
    publishPort(control, socket.localPort);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}
