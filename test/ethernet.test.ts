import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostServer, type HostServer } from '@ivshmem/host-server';
import {
  missingNetworkPrivilege,
  Netns,
  openPacketSocket,
  setIpv6,
  waitForInterface,
} from '@ivshmem/linux/network';
import { createLink, type Ethernet, openEthernet } from '@ivshmem/net';
import { filter, firstValueFrom } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { numberedFrame } from './support/frames.ts';

const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

const frame = (number: number, size = 60) => new Uint8Array(numberedFrame(size, number));

describe('openEthernet on a host server', () => {
  let directory: string;
  let socketPath: string;
  let server: HostServer;

  const startServer = () => {
    const memory = { size: 4 << 20, outputSectionSize: 1 << 20 };
    server = createHostServer({ socketPath, ...memory, maxPeers: 2, vectors: 2, protocol: 1 });
  };
  const open = () => openEthernet({ port: { type: 'server', socketPath } });
  const carrier = (link: Pick<Ethernet, 'state$'>, wanted = true) =>
    firstValueFrom(link.state$.pipe(filter((status) => status.carrier === wanted)));

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-ethernet-'));
    socketPath = join(directory, 'socket');
    startServer();
  });

  afterEach(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  it('comes back after a restart of the server, and then sends what has waited', async () => {
    await using one = await open();
    {
      await using other = await open();
      await carrier(one);
      await one.send(frame(1));
      expect((await other.receive().next()).value).toEqual(frame(1));
    }
    await carrier(one, false);
    server.close();
    const sending = one.send(frame(2));
    startServer();
    await using other = await open();
    expect((await other.receive().next()).value).toEqual(frame(2));
    await sending;
    expect(one.stats()).toMatchObject({ reconnects: 1, violations: 0 });
  });

  it.skipIf(skip)(`talks to a TAP interface${skip ? ` (skipped: ${missing})` : ''}`, async () => {
    using netns = Netns.create();
    netns.run(() => setIpv6('default', false));
    const port = { type: 'server', socketPath } as const;
    await using tap = await createLink({ port, tap: 'ivn0', netns: netns.path });
    await using program = await open();
    await Promise.all([carrier(tap), carrier(program)]);
    // Both announce what the sections allow, and the program no offloads.
    expect(program.info.mtu).toBe(16384);
    expect(tap.info.mtu).toBe(16384);
    expect((await carrier(tap)).offloads).toEqual([]);
    // Before it has noticed the carrier, the kernel drops what it is to send.
    netns.run(() => waitForInterface('ivn0', (found) => found?.carrier === true && found.operState === 'up'));
    using socket = netns.run(() => openPacketSocket('ivn0'));
    for (const length of [60, 16398]) {
      await program.send(frame(length, length));
      // The socket blocks this thread, which has to ring the peer before.
      await new Promise((resolve) => setImmediate(resolve));
      expect(socket.receive(10_000)).toEqual(frame(length, length));
      socket.send(frame(length + 1, length));
      expect((await program.receive().next()).value).toEqual(frame(length + 1, length));
    }
  });
});
