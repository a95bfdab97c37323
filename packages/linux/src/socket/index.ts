export { setReceiveTimeout, setSendTimeout } from './socket-timeout.ts';
export { listeningPath, UnixListener } from './unix-listener.ts';
export { MAX_FDS, MAX_SOCKET_PATH, type PeerCredentials, UnixSocket } from './unix-socket.ts';
