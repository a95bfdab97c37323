import { describe, expect, it } from 'vitest';
import { ActivatedSockets, startedByServiceManager } from './service-manager.ts';

describe('service manager', () => {
  it.each([
    [{}, false],
    [{ NOTIFY_SOCKET: '/run/notify' }, true],
    [{ LISTEN_FDS: '1', LISTEN_PID: '7' }, true],
    [{ LISTEN_FDS: '1', LISTEN_PID: '8' }, false],
    [{ LISTEN_FDS: '1' }, false],
    [{ INVOCATION_ID: 'abc' }, true],
    [{ INVOCATION_ID: 'abc', SYSTEMD_EXEC_PID: '7' }, true],
    // A shell in a terminal whose emulator is a service.
    [{ INVOCATION_ID: 'abc', SYSTEMD_EXEC_PID: '5' }, false],
    [{ NOTIFY_SOCKET: '' }, false],
  ])('%j started process 7: %s', (environment, expected) => {
    expect(startedByServiceManager(environment, 7)).toBe(expected);
  });

  it('has no sockets meant for another process', () => {
    const { pid } = process;
    for (const environment of [{}, { LISTEN_FDS: '2', LISTEN_PID: String(pid + 1) }, { LISTEN_FDS: '-1' }]) {
      expect(new ActivatedSockets(environment, pid).paths).toEqual([]);
    }
  });

  it('leaves the descriptors of the descriptor store alone', () => {
    const { pid } = process;
    // Descriptor 3 is no listening socket.
    const environment = { LISTEN_FDS: '1', LISTEN_PID: String(pid), LISTEN_FDNAMES: 'ivshmem/state' };
    expect(new ActivatedSockets(environment, pid).paths).toEqual([]);
    expect(() => new ActivatedSockets({ ...environment, LISTEN_FDNAMES: 'x.socket' }, pid)).toThrow(
      'LISTEN_FDS, descriptor 3: ',
    );
  });
});
