export { Acceptor, type AcceptorHandlers } from './acceptor.ts';
export { controlSize, type MessagePart, MessageRecord, writeRights } from './message-record.ts';
export { checkSocketPath, MAX_SOCKET_PATH } from './socket-path.ts';
export { setReceiveTimeout, setSendTimeout } from './socket-timeout.ts';
export { listeningPath, removeDeadSocket, UnixListener } from './unix-listener.ts';
export { isUnixStream, MAX_FDS, type PeerCredentials, UnixSocket } from './unix-socket.ts';
