import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getInterface, Netns } from '@ivshmem/linux/network';
import { connectByVeth, ping, tcpTransfer } from '@ivshmem/traffic';
import { describe, expect, it } from 'vitest';
import { Program, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { isCarrierOn } from './support/rig.ts';

const page = readFileSync(new URL('../docs/networks.md', import.meta.url), 'utf8');
const ADDRESSES: Record<string, string> = {
  red: '10.7.0.1',
  green: '10.7.0.2',
  blue: '10.7.0.3',
  host: '10.7.0.254',
};

/** The block of the page that begins with the line `# title`, from the section with this heading. */
function block(section: string, title: string): string {
  const text = page.split(/^## /m).find((part) => part.startsWith(section))!;
  return new RegExp(`^\`\`\`(?:sh)?\n# ${title}\n(.*?)^\`\`\``, 'ms').exec(text)![1]!;
}

/** What the recipes are run on: hosts and machines, each a network namespace; links between them. */
class Network {
  readonly directory = mkdtempSync(join(tmpdir(), 'ivshmem-networks-'));
  readonly #namespaces = new Map<string, Netns>();
  readonly #programs: Program[] = [];
  readonly #cleanups: (() => void | Promise<void>)[] = [];

  /** A host or machine; made on first use. */
  at(name: string): Netns {
    let netns = this.#namespaces.get(name);
    if (netns === undefined) {
      netns = Netns.create();
      this.#namespaces.set(name, netns);
    }
    return netns;
  }

  /** Runs shell commands in the namespace of `name`. */
  sh(name: string, commands: string, environment: Record<string, string> = {}): string {
    const argv = [`--net=${this.at(name).path}`, 'unshare', '-m', 'sh', '-euc', commands];
    return execFileSync('nsenter', argv, { encoding: 'utf8', env: { ...process.env, ...environment } });
  }

  /** A daemon in the namespace of `name`, ended with the network. */
  daemon(name: string, [file, ...argv]: string[], environment: Record<string, string> = {}): void {
    const child = spawn('nsenter', [`--net=${this.at(name).path}`, file!, ...argv], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...environment },
    });
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    const closed = once(child, 'close');
    this.#cleanups.unshift(async () => {
      if (child.exitCode !== null) throw new Error(`${file} has ended: ${errors}`);
      child.kill();
      await closed;
    });
  }

  /**
   * Starts the links of a block on `host`, with the machine of each in a namespace of its own. In place of a VM there is a host
   * server, and `ivshmem net` at both ends. Resolves when all have carrier.
   */
  async links(host: string, lines: string, environment: Record<string, string> = {}): Promise<void> {
    const ends: Program[] = [];
    for (const [, name, options] of lines.matchAll(
      /^ivshmem vm --vfio-user \/run\/ivshmem\/(\w+)\.sock (.*)$/gm,
    )) {
      const socket = join(this.directory, `${name}.sock`);
      const server = new Program([
        'server',
        '-F',
        '--json',
        '-S',
        socket,
        '-l',
        '4M',
        '-o',
        '1M',
        '-n',
        '2',
        '-V',
        '2',
        '-P',
        '1',
      ]);
      await server.line(({ type }) => type === 'listening');
      const net = ['net', '--json', '--socket', socket, '--netns'];
      const outside = new Program([...net, this.at(host).path, ...options!.split(' ')], {
        env: { ...process.env, ...environment },
      });
      const inside = ['--tap', 'ivn0', '--mac', mac(name!), '--address', `${ADDRESSES[name!]}/24`];
      const machine = new Program([...net, this.at(name!).path, ...inside]);
      this.#programs.push(server, outside, machine);
      ends.push(outside, machine);
    }
    expect(ends.length).toBeGreaterThan(0);
    await Promise.all(ends.map((end) => end.line(isCarrierOn)));
  }

  /** Ends the link of the machine `name`, which is gone then. */
  async stop(name: string): Promise<void> {
    const socket = join(this.directory, `${name}.sock`);
    const programs = this.#programs.filter(({ child }) => child.spawnargs.includes(socket));
    for (const program of programs.reverse()) await program.stop();
    this.#programs.splice(0, Infinity, ...this.#programs.filter((program) => !programs.includes(program)));
  }

  /** Whether one of `count` echo requests is answered within half a second. */
  async reaches(from: string, to: string, count = 60): Promise<boolean> {
    const address = ADDRESSES[to] ?? to;
    const { received } = await ping({ netns: this.at(from).path, to: address, count, timeoutMs: 500 });
    return received > 0;
  }

  mtu(name: string, tap = 'ivn0'): number {
    return this.at(name).run(() => getInterface(tap)!.mtu);
  }

  /** TCP both ways, with as long segments as the MTU allows, and verified. */
  async expectTcp(from: string, to: string): Promise<void> {
    for (const [a, b] of [
      [from, to],
      [to, from],
    ] as const) {
      const ends = { from: this.at(a).path, to: this.at(b).path, address: ADDRESSES[b]!, verify: true };
      expect(await tcpTransfer({ ...ends, bytes: 4 << 20 })).toMatchObject({
        bytes: 4 << 20,
        checksumOk: true,
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs.reverse()) await program.stop();
    for (const cleanup of this.#cleanups) await cleanup();
    for (const netns of this.#namespaces.values()) netns.close();
    rmSync(this.directory, { recursive: true });
  }
}

function mac(name: string): string {
  return `02:00:00:00:00:0${ADDRESSES[name]!.at(-1)}`;
}

/** Whether a program is installed; CI installs all of them. */
function installed(...paths: string[]): boolean {
  return process.env.CI !== undefined || paths.every((path) => existsSync(path));
}

/** Whether the kernel accepts a command in a new network namespace. */
function kernelHas(command: string): boolean {
  try {
    execFileSync('unshare', ['-n', 'sh', '-ec', command], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describeNetwork('docs/networks.md', () => {
  it('machines on a bridge, with the MTU of the bridge', async () => {
    await using network = new Network();
    network.sh('A', block('Machines', 'host A'));
    network.sh('A', block('Machines', 'host A, larger frames'));
    await network.links('A', block('Machines', 'host A, links'));
    expect(['red', 'green', 'blue'].map((name) => network.mtu(name))).toEqual([9000, 9000, 9000]);
    for (const to of ['green', 'blue', 'host']) expect(await network.reaches('red', to)).toBe(true);
    await network.expectTcp('green', 'blue');
  });

  it.runIf(installed('/usr/sbin/dnsmasq', '/sbin/udhcpc'))('DHCP', async () => {
    await using network = new Network();
    network.sh('A', block('Machines', 'host A'));
    await network.links('A', block('Machines', 'host A, links'));
    const server = block('DHCP', 'host A, DHCP server').trim();
    const leases = join(network.directory, 'leases');
    const files = [`--dhcp-leasefile=${leases}`, '--pid-file', '--conf-file=/dev/null'];
    network.daemon('A', [...server.split(' '), '--keep-in-foreground', '--user=root', ...files]);
    // The client's script writes that file of the machine.
    const resolver = join(network.directory, 'resolv.conf');
    writeFileSync(resolver, '');
    const client = block('DHCP', 'red, DHCP client');
    network.sh('red', `mount --bind ${resolver} /etc/resolv.conf; ip addr flush dev ivn0; ${client}`);
    expect(network.sh('red', 'ip -4 -o addr show ivn0')).toMatch(/ 10\.7\.0\.1\d\d\/24 /);
    expect(readFileSync(leases, 'utf8')).toContain(mac('red'));
    expect(await network.reaches('red', 'host')).toBe(true);
  });

  it.runIf(
    kernelHas(
      'ip link add v0 type veth peer name v1; ip link add link v0 name v0.5 type vlan id 5; ip link add b type bridge vlan_filtering 1',
    ),
  )('VLANs of the machines and of the bridge', async () => {
    await using network = new Network();
    network.sh('A', block('Machines', 'host A'));
    await network.links('A', block('Machines', 'host A, links'));
    network.sh('red', block('VLANs', 'red, tagged'));
    network.sh('green', block('VLANs', 'red, tagged').replace('10.5.0.1', '10.5.0.2'));
    expect(await network.reaches('red', '10.5.0.2')).toBe(true);
    network.sh('A', block('VLANs', 'host A, VLANs'));
    expect(await network.reaches('red', 'green')).toBe(true);
    expect(await network.reaches('red', 'blue', 2)).toBe(false);
  });

  describe.runIf(installed('/usr/bin/ovs-vsctl', '/usr/sbin/ovs-vswitchd'))('Open vSwitch', () => {
    it('as the bridge of links, with VLANs', async () => {
      await using network = new Network();
      const environment = await startOvs(network);
      const lines = block('Open vSwitch', 'host A, links').replaceAll('--bridge br0', '$& --no-offload');
      network.sh(
        'A',
        block('Open vSwitch', 'host A, Open vSwitch').replace(
          'add-br br0',
          '$& -- set bridge br0 datapath_type=netdev',
        ),
        environment,
      );
      network.sh('A', 'ovs-vsctl set interface br0 mtu_request=9000', environment);
      await network.links('A', lines, environment);
      expect(['red', 'green', 'blue'].map((name) => network.mtu(name))).toEqual([9000, 9000, 9000]);
      const ports = () =>
        network.sh('A', 'ovs-vsctl list-ports br0', environment).split('\n').filter(Boolean);
      expect(ports()).toEqual(['blue', 'green', 'red']);
      for (const to of ['green', 'blue', 'host']) expect(await network.reaches('red', to)).toBe(true);
      await network.expectTcp('green', 'blue');
      network.sh('A', block('Open vSwitch', 'host A, Open vSwitch, VLANs'), environment);
      expect(await network.reaches('red', 'green')).toBe(true);
      expect(await network.reaches('red', 'blue', 2)).toBe(false);
      await network.stop('blue');
      await until(() => ports().length === 2);
      // One that was a port before stays one, and is used again when its interface is back.
      network.sh('A', 'ovs-vsctl --may-exist --no-wait add-port br0 blue', environment);
      await network.links(
        'A',
        lines
          .split('\n')
          .filter((line) => line.includes('blue'))
          .join('\n'),
        environment,
      );
      expect(await network.reaches('A', 'blue')).toBe(true);
      await network.stop('blue');
      expect(ports()).toContain('blue');
    });

    it('that cannot be used fails the link in one line, with the remedy', async () => {
      await using network = new Network();
      const environment = await startOvs(network);
      network.sh('A', 'ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev', environment);
      const socket = join(network.directory, 'red.sock');
      const attempt = async (options: string[], more: Record<string, string>) => {
        const argv = ['net', '--socket', socket, '--netns', network.at('A').path, '--tap', 'red', ...options];
        const { code, stderr } = await run(argv, { env: { ...process.env, ...environment, ...more } });
        return [code, stderr];
      };
      const server = new Program(['server', '-F', '--json', '-S', socket, '-l', '4M', '-o', '1M', '-P', '1']);
      try {
        await server.line(({ type }) => type === 'listening');
        expect(await attempt(['--bridge', 'br0'], {})).toEqual([
          2,
          expect.stringMatching(
            /^ivshmem: .*user-space datapath of Open vSwitch drops packets.*: use --no-offload\n$/,
          ),
        ]);
        expect(await attempt(['--bridge', 'br0', '--no-offload'], { OVS_RUNDIR: '/nonexistent' })).toEqual([
          1,
          expect.stringMatching(/^ivshmem: .*interface br0 is not a bridge\n$/),
        ]);
      } finally {
        await server.stop();
      }
    });
  });

  it('two hosts joined by VXLAN, with an MTU of 1450', async () => {
    await using network = new Network();
    connectHosts(network);
    for (const host of ['A', 'B']) network.sh(host, block('Two hosts', `host ${host}, VXLAN`));
    for (const host of ['A', 'B']) await network.links(host, block('Two hosts', `host ${host}, links`));
    expect(['red', 'green', 'blue'].map((name) => network.mtu(name))).toEqual([1450, 1450, 1450]);
    for (const to of ['green', 'blue']) expect(await network.reaches('red', to)).toBe(true);
    await network.expectTcp('red', 'blue');
  });

  it.runIf(installed('/usr/lib/frr/bgpd'))(
    'EVPN learns where a machine is, and that it has moved',
    async () => {
      await using network = new Network();
      connectHosts(network);
      const config = block('More hosts', 'host A, frr.conf');
      for (const [host, own, other] of [
        ['A', 1, 2],
        ['B', 2, 1],
      ] as const) {
        network.sh(host, block('More hosts', `host ${host}, EVPN`));
        const directory = join(network.directory, `frr-${host}`);
        mkdirSync(directory);
        const file = join(directory, 'frr.conf');
        writeFileSync(
          file,
          config.replace(/192\.0\.2\.([12])/g, (_, n) => `192.0.2.${n === '1' ? own : other}`),
        );
        makeFrr(directory, network.directory);
        const common = [
          '--vty_socket',
          directory,
          '-z',
          join(directory, 'zserv'),
          '-f',
          file,
          '--log',
          `file:${directory}/log`,
        ];
        network.daemon(host, ['/usr/lib/frr/zebra', ...common, '-i', join(directory, 'zebra.pid')]);
        network.daemon(host, ['/usr/lib/frr/bgpd', ...common, '-i', join(directory, 'bgpd.pid')]);
      }
      const links = (name: string) =>
        `ivshmem vm --vfio-user /run/ivshmem/${name}.sock --tap ${name} --bridge br0\n`;
      await network.links('A', links('red'));
      await network.links('A', links('green'));
      await network.links('B', links('blue'));
      expect(await network.reaches('red', 'blue')).toBe(true);
      const remote = (host: string, name: string) =>
        network
          .sh(host, 'bridge fdb show dev vxlan7')
          .split('\n')
          .some((line) => line.startsWith(mac(name)) && line.includes('extern_learn'));
      await until(() => remote('B', 'red') && remote('A', 'blue'));
      expect([remote('A', 'red'), remote('B', 'green')]).toEqual([false, expect.any(Boolean)]);
      await network.expectTcp('red', 'blue');
      // Green moves to host B and keeps its addresses.
      await network.stop('green');
      await network.links('B', links('green'));
      expect(await network.reaches('green', 'blue')).toBe(true);
      await until(() => remote('A', 'green') && !remote('B', 'green'));
      expect(await network.reaches('red', 'green')).toBe(true);
    },
  );
});

/** Starts Open vSwitch, with its datapath of user space, on host A. Returns the environment with which it is found. */
async function startOvs(network: Network): Promise<Record<string, string>> {
  const { directory } = network;
  const environment = { OVS_RUNDIR: directory, OVS_LOGDIR: directory, OVS_DBDIR: directory };
  const [database, socket] = [join(directory, 'conf.db'), join(directory, 'db.sock')];
  execFileSync('ovsdb-tool', ['create', database, '/usr/share/openvswitch/vswitch.ovsschema']);
  network.daemon('A', ['ovsdb-server', database, `--remote=punix:${socket}`], environment);
  await until(() => existsSync(socket));
  execFileSync('ovs-vsctl', ['--no-wait', 'init'], { env: { ...process.env, ...environment } });
  network.daemon('A', ['ovs-vswitchd', `unix:${socket}`], environment);
  return environment;
}

/** Joins the hosts A and B by a cable. */
function connectHosts(network: Network): void {
  connectByVeth(network.at('A'), network.at('B'), { addresses: [['192.0.2.1/24'], ['192.0.2.2/24']] });
}

/** FRR runs as its own user, and wants a directory of its own. */
function makeFrr(directory: string, parent: string): void {
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number(execFileSync('id', [flag, 'frr'], { encoding: 'utf8' })),
  );
  for (const path of [directory, join(directory, 'frr.conf')]) chownSync(path, uid!, gid!);
  execFileSync('chmod', ['711', parent]);
}

/** Resolves when `condition` holds. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within a minute: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
