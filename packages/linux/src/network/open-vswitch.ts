import { spawnSync } from 'node:child_process';
import type { NetworkInterface } from './interface.ts';

/** How long Open vSwitch may take, in seconds: a port is added once `ovs-vswitchd` has opened the interface. */
const PATIENCE = 10;

/**
 * Whether an interface is a bridge of Open vSwitch. With the datapath of the kernel it has a kind of its own, with that
 * of user space it is a TAP, which only Open vSwitch can tell from others. Runs `ovs-vsctl` then.
 */
export function isOvsBridge({ name, kind }: NetworkInterface): boolean {
  if (kind === 'openvswitch') return true;
  return kind === 'tun' && vsctl(['br-exists', name]) === null;
}

/**
 * Makes an interface a port of a bridge of Open vSwitch. Returns whether it was not a port of it before. Throws Error, in one line,
 * if `ovs-vsctl` cannot do it: not installed, database not accessible, a port of another bridge, no answer within 10 s.
 */
export function addOvsPort(bridge: string, port: string): boolean {
  const was = vsctl(['--', 'get', 'port', port, '_uuid']) === null;
  const problem = vsctl(['--may-exist', 'add-port', bridge, port]);
  if (problem === null) return !was;
  throw new Error(
    `interface ${port}: cannot be added to ${bridge}, a bridge of Open vSwitch (${problem}): run "ovs-vsctl add-port ${bridge} ${port}" as root once, and start the link without --bridge`,
  );
}

/** Removes a port that {@link addOvsPort} has added, if it is still there. */
export function removeOvsPort(bridge: string, port: string): void {
  vsctl(['--if-exists', 'del-port', bridge, port]);
}

/** Returns null, or why `ovs-vsctl` has failed, in one line. */
function vsctl(argv: readonly string[]): string | null {
  const { error, status, stderr } = spawnSync('ovs-vsctl', [`--timeout=${PATIENCE}`, ...argv], {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (error !== undefined) return error.message;
  if (status === 0) return null;
  return stderr.trim().split('\n').at(-1) || `ovs-vsctl ended with status ${status}`;
}
