import { createServer } from 'node:net';
import { join } from 'node:path';
import { SystemCallError } from '@ivshmem/linux';
import { pci } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { inState, logLine, pair, tableEntry, useDevices } from './device.test-support.ts';
import { createDevice } from './device.ts';

const fixture = useDevices();

describe('a device and its host server', () => {
  it('rejects with one line if none answers, and leaves nothing behind', async () => {
    const rejected = fixture.device();
    await expect(rejected).rejects.toThrow(/^connect .*server: ENOENT: [^\n]+$/);
    await expect(rejected).rejects.toBeInstanceOf(SystemCallError);
    await expect(rejected).rejects.toMatchObject({ code: 'ENOENT', subject: fixture.serverPath });
  });

  it('rejects with one line if its socket is in use', async () => {
    fixture.serve();
    await fixture.device();
    const options = { socketPath: fixture.serverPath, vfioUser: join(fixture.directory, 'vfio-0') };
    await expect(createDevice(options)).rejects.toThrow(/^bind .*vfio-0: EADDRINUSE: another server [^\n]+$/);
    await expect(createDevice({ ...options, vfioUser: '' })).rejects.toMatchObject({ option: 'vfioUser' });
    await expect(createDevice({ ...options, vfioUser: options.socketPath })).rejects.toThrow(
      /choose another path$/,
    );
  });

  it('ends with the block that made it, and resolves closed to null', async () => {
    fixture.serve();
    let closed: Promise<Error | null>;
    {
      await using device = await fixture.device();
      closed = device.closed;
      expect(fixture.servers[0]!.peers).toHaveLength(1);
    }
    expect(await closed).toBeNull();
  });

  it('can be cancelled while the server sends nothing', async () => {
    const server = createServer().listen(fixture.serverPath);
    await new Promise((resolve) => server.once('listening', resolve));
    const controller = new AbortController();
    const connected = new Promise<void>((resolve) =>
      server.once('connection', (socket) => {
        socket.on('error', () => {}).on('close', () => {});
        socket.resume();
        resolve();
      }),
    );
    const device = createDevice(
      { socketPath: fixture.serverPath, vfioUser: join(fixture.directory, 'vfio') },
      controller.signal,
    );
    await connected;
    controller.abort(new Error('enough'));
    await expect(device).rejects.toThrow('enough');
    await new Promise((resolve) => server.close(resolve));
  });

  it('keeps serving the VMM when the server ends, and moves to the next server when the VMM disconnects', async () => {
    const { devices, vmms, irqs } = await pair(fixture);
    const [device] = devices;
    const lost = logLine(device, /host server is gone; the VMM keeps its memory/);
    const [server] = fixture.servers;
    server!.close();
    await lost;
    await inState(device, 'orphaned');
    vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 1);
    vmms[1].awaitInterrupt(irqs[1]![1]!);
    vmms[0].writeRegister(pci.Register.STATE, 5);
    vmms[1].awaitInterrupt(irqs[1]![0]!);
    expect(tableEntry(vmms[1], 0)).toBe(5);
    vmms[0].close();
    await inState(device, 'no-server');
    const refused = fixture.vmm(0);
    expect(refused.receive(1, [])).toBeNull();
    refused.close();
    fixture.serve({ size: 0x200000 });
    await inState(device, 'waiting');
    expect(device.info.memorySize).toBe(0x200000);
    expect(fixture.vmm(0).start().size).toBe(0x200000);
    expect(device.stats()).toMatchObject({ reconnects: 1, refused: 1 });
  });
});
