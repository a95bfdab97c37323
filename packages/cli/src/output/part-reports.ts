import type { Device } from '@ivshmem/device';
import { type DeviceReport, type InterfaceReport, socketName, watchPart } from '@ivshmem/monitor';
import type { Link } from '@ivshmem/net';
import type { PortSource } from '@ivshmem/transport';
import { stateName } from '@ivshmem/transport/protocol';

/** Where a part belongs: see the fields of the same names in the reports. */
interface Place {
  readonly link?: string;
  readonly netns?: string | undefined;
}

/** Follows a link; returns a function that reports it. */
export function interfaceReporter(
  link: Link,
  port: PortSource,
  { link: name, netns }: Place = {},
): () => InterfaceReport {
  const snapshot = watchPart(link);
  const socket = port.type === 'server' ? socketName(port.socketPath) : null;
  return () => {
    const { info, state, since, stats, log } = snapshot();
    return {
      kind: 'interface',
      link: name ?? null,
      socket,
      pci: port.type === 'pci' ? port.device : null,
      tap: info.tap,
      netns: netns ?? null,
      id: info.id,
      mtu: info.mtu,
      outputSectionSize: info.outputSectionSize,
      local: stateName(state.local),
      peer: stateName(state.peer),
      carrier: state.carrier,
      offloads: state.offloads,
      since,
      stats,
      log,
    };
  };
}

/** Follows a device; returns a function that reports it. */
export function deviceReporter(
  device: Device,
  { socketPath, vfioUser, isolate = false }: { socketPath: string; vfioUser: string; isolate?: boolean },
  { link }: Pick<Place, 'link'> = {},
): () => DeviceReport {
  const snapshot = watchPart(device);
  const socket = socketName(socketPath);
  return () => {
    const { info, state, since, stats, log } = snapshot();
    const { id, protocol, outputSectionSize } = info;
    return {
      kind: 'device',
      link: link ?? null,
      socket,
      vfioUser,
      id,
      protocol,
      outputSectionSize,
      isolate,
      state,
      since,
      stats,
      log,
    };
  };
}
