import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { describeWhere } from '../support/requirements.ts';
import { Machine } from './machine.ts';

const page = readFileSync(new URL('../../docs/systemd.md', import.meta.url), 'utf8');
const systemd = inject('systemd');

/** A script of the page, by the name in the comment above it. */
function documented(name: string): string {
  return new RegExp(`<!-- run: ${name} -->\n\`\`\`sh\n(.*?)^\`\`\``, 'ms').exec(page)![1]!;
}

/** A drop-in of the page: what `systemctl edit UNIT` would be given. */
function dropIn(unit: string): string {
  const content = new RegExp(`# systemctl edit ${unit}\n(.*?)^\`\`\``, 'ms').exec(page)![1]!;
  return `mkdir -p /etc/systemd/system/${unit}.d
    printf '${content.replaceAll('\n', '\\n')}' > /etc/systemd/system/${unit}.d/override.conf
    systemctl daemon-reload\n`;
}

it('units have the same sandbox', () => {
  const folder = new URL('../../packaging/systemd/', import.meta.url);
  const services = readdirSync(folder).filter((name) => name.endsWith('.service'));
  const blocks = services.map((name) =>
    /^# The same in all ivshmem units\..*?(?=^$|$(?![\s\S]))/ms
      .exec(readFileSync(new URL(name, folder), 'utf8'))?.[0]
      .trim(),
  );
  expect(blocks[0]).toContain('SystemCallFilter=');
  expect(new Set(blocks).size).toBe(1);
});

describeWhere('obstacle' in systemd ? systemd.obstacle : null, 'units, under a real systemd', () => {
  let machine: Machine;
  const show = (unit: string, property: string) =>
    machine.sh(`systemctl show --property=${property} --value ${unit}`);
  /** Owners, groups and modes of the sockets. */
  const sockets = async () =>
    Object.fromEntries(
      (await machine.sh("find /run/ivshmem -type s ! -name '*.ctl' -printf '%f %u:%g %m\\n'"))
        .split('\n')
        .map((line) => [line.split(' ')[0], line.slice(line.indexOf(' ') + 1)]),
    );
  const linkUp = (unit: string) =>
    machine.until(
      `systemctl show --property=StatusText ${unit} | { read -r line; case "$line" in *"link is up"*) ;; *) false; esac; }`,
      `systemctl status ${unit}`,
    );
  /** Exit status 0 if a user can connect to a socket. */
  const connect = (user: string, socket: string) =>
    `setpriv --reuid ${user} --regid ${user} --init-groups node -e '
      require("net").connect("${socket}").on("connect", () => process.exit(0)).on("error", () => process.exit(1))'`;

  beforeAll(async () => {
    if ('obstacle' in systemd) throw new Error(systemd.obstacle);
    machine = await Machine.boot(systemd.tree);
    await machine.sh(documented('command') + documented('units'));
    await machine.sh(`cat > /etc/ivshmem/links.json <<END
      { "links": [
        { "name": "red", "socket": "/run/ivshmem/red.sock", "mode": "660", "group": "kvm",
          "size": "4M", "outputSectionSize": "1M", "vectors": 2, "protocol": 1 }
      ] }
END
      echo "NET_OPTIONS=--socket /run/ivshmem/red.sock --tap red0 --address 10.1.0.1/24" > /etc/ivshmem/red.conf
      echo "NET_OPTIONS=--socket /run/ivshmem/red.sock --tap red1 --address 10.1.0.2/24" > /etc/ivshmem/far.conf
      echo "VM_OPTIONS=--vfio-user /run/ivshmem/vm3.sock --tap ivn3" > /etc/ivshmem/vm3.conf`);
  });

  afterAll(async () => {
    await machine?.stop();
    // Gone, or dead and not reaped yet.
    const remains = `/proc/${machine?.pid}/cmdline`;
    expect(existsSync(remains) && readFileSync(remains, 'utf8')).toBeFalsy();
  });

  it('are without mistakes, and in a sandbox', async () => {
    const names = await machine.sh('cd /etc/systemd/system; echo ivshmem-*.service ivshmem-*.socket');
    expect(names.split(' ').length).toBe(6);
    const said = await machine.sh(`cd /etc/systemd/system; systemd-analyze verify --man=no ${names} 2>&1`);
    expect(said.split('\n').filter((line) => line.includes('ivshmem'))).toEqual([]);
    const instances = names
      .split(' ')
      .filter((name) => name.endsWith('.service'))
      .map((name) => name.replace('@', '@x'));
    for (const unit of instances) {
      const rating = await machine.sh(`systemd-analyze security --no-pager ${unit} | tail -n 1`);
      expect(Number(/: (\d+\.\d+) /.exec(rating)![1]), rating).toBeLessThan(2.3);
    }
  });

  it('start as the page says, and report what they do', async () => {
    await machine.sh(documented('blue'));
    await machine.sh('systemctl enable --now ivshmem-server.service ivshmem-vm@vm3.service');
    expect(await sockets()).toEqual({
      'blue.sock': 'root:kvm 660',
      'red.sock': 'ivshmem:kvm 660',
      'vm1.sock': 'ivshmem:kvm 660',
      'vm3.sock': 'ivshmem:kvm 660',
    });
    expect(await show('ivshmem-server.service', 'StatusText')).toBe('1 link');
    expect(await show('ivshmem-device@blue.service', 'StatusText')).toBe(
      '/run/ivshmem/vm1.sock: waiting for a VM',
    );
    expect(await show('ivshmem-vm@vm3.service', 'StatusText')).toMatch(
      /^\/run\/ivshmem\/vm3\.sock: waiting for a VM; ivn3: .*link is down/,
    );
    expect(await machine.sh('ivshmem peers -S /run/ivshmem/blue.sock')).toContain('2 of 2 peers');
    const control = await machine.sh("find /run/ivshmem -name '*.ctl' -printf '%u %m\\n' | sort -u");
    expect(control.trim()).toBe('ivshmem 600');
    // Both wait for a VM.
    const status = await machine.sh('ivshmem status /run/ivshmem/blue.sock || true');
    expect(status).toMatch(/ server +server-\d+ +2 of 2 peers/m);
    expect(status).toMatch(/ ivn0 +net-\d+ +down: /m);
    expect(status).toMatch(/ \/run\/ivshmem\/vm1\.sock +device-\d+ +waiting for a VM/m);
    expect(await machine.sh('ip -brief address show ivn0')).toContain('10.0.0.1/24');
  });

  it('link an interface with one in a network namespace', async () => {
    await machine.sh(`ip netns add blue
      ${dropIn('ivshmem-net@blue.service').replaceAll('net@blue', 'net@far')}
      systemctl start ivshmem-net@red.service ivshmem-net@far.service`);
    await linkUp('ivshmem-net@red.service');
    await linkUp('ivshmem-net@far.service');
    expect(await machine.sh('ip netns exec blue ping -q -c 3 -i 0.2 -W 5 10.1.0.1')).toContain(
      ' 0% packet loss',
    );
  });

  it('let a server be restarted and killed, and nothing notices', async () => {
    for (const [unit, socket] of [
      ['ivshmem-server', 'red'],
      ['ivshmem-server@blue', 'blue'],
    ] as const) {
      const joined = async () => {
        const { peers } = JSON.parse(
          await machine.sh(`ivshmem peers -S /run/ivshmem/${socket}.sock --json`),
        ) as { peers: { id: number; pid: number; since: string }[] };
        return peers.map(({ id, pid, since }) => [id, pid, since]);
      };
      const noticed = () =>
        machine.sh(`cat /sys/class/net/red0/carrier_changes
          ip netns exec blue cat /sys/class/net/red1/carrier_changes
          systemctl show --property=MainPID --value ivshmem-net@red ivshmem-net@far ivshmem-device@blue
          journalctl --output=cat --unit=ivshmem-net@red --unit=ivshmem-net@far --unit=ivshmem-device@blue | wc -l`);
      const peers = await joined();
      const before = await noticed();
      expect(peers).toHaveLength(2);
      for (const end of [
        `systemctl restart ${unit}`,
        `kill -KILL $(systemctl show --property=MainPID --value ${unit})`,
      ]) {
        const pid = await show(unit, 'MainPID');
        const traffic = machine.sh('ip netns exec blue ping -q -i 0.01 -w 5 10.1.0.1');
        await machine.sh(end);
        await machine.until(
          `systemctl is-active --quiet ${unit} && [ "$(systemctl show --property=MainPID --value ${unit})" != ${pid} ]`,
          `systemctl status ${unit}`,
        );
        expect(await traffic).toContain(' 0% packet loss');
        expect(await joined()).toEqual(peers);
        expect(await noticed()).toBe(before);
      }
      const log = await machine.sh(`journalctl --output=cat --unit=${unit}`);
      expect(log.match(/continued after a restart: 2 peers still connected/g)).toHaveLength(2);
    }
  });

  it('do not touch the sockets of the others, of any user', async () => {
    await machine.sh(`echo 'u alice - -' > /etc/sysusers.d/alice.conf
      systemd-sysusers
      echo 'DEVICE_OPTIONS=--socket /run/ivshmem/green.sock --vfio-user /run/ivshmem/vm2.sock' > /etc/ivshmem/vm2.conf
      echo 'SERVER_OPTIONS=-l 4M -o 1M -n 2 -V 2 -P 1' > /etc/ivshmem/green.conf
      echo 'm alice kvm' >> /etc/sysusers.d/alice.conf
      systemd-sysusers
      ${dropIn('ivshmem-device@vm2.service')}`);
    const before = await sockets();
    await machine.sh('systemctl start ivshmem-server@green.socket ivshmem-device@vm2.service');
    expect(await sockets()).toEqual({
      ...before,
      'green.sock': 'root:kvm 660',
      'vm2.sock': 'alice:kvm 660',
    });
    await machine.sh(
      'systemctl restart ivshmem-device@blue.service ivshmem-vm@vm3.service ivshmem-server.service',
    );
    await machine.sh(
      'systemctl stop ivshmem-device@vm2.service ivshmem-server@green.socket ivshmem-server@green.service',
    );
    expect(await sockets()).toEqual(before);
    await linkUp('ivshmem-net@red.service');
  });

  it("let QEMU's user connect to the sockets, and not replace them", async () => {
    await machine.sh(`printf 'u qemu - -\\nm qemu kvm\\nu mallory - -\\n' > /etc/sysusers.d/qemu.conf
      systemd-sysusers`);
    for (const name of ['vm1', 'vm3', 'blue', 'red']) {
      const socket = `/run/ivshmem/${name}.sock`;
      await machine.sh(connect('qemu', socket));
      await expect(machine.sh(connect('mallory', socket)), socket).rejects.toThrow('exit status 1');
      for (const change of [`rm -f ${socket}`, `mv ${socket} /run/ivshmem/x`, 'touch /run/ivshmem/y']) {
        const attempt = `setpriv --reuid qemu --regid qemu --init-groups ${change}`;
        await expect(machine.sh(attempt), attempt).rejects.toThrow('exit status 1');
      }
    }
  });

  it('are started again after a crash, and the link comes back', async () => {
    const units = ['net@red', 'server', 'server@blue', 'device@blue', 'vm@vm3'].map(
      (name) => `ivshmem-${name}`,
    );
    for (const unit of units) {
      const pid = await show(`${unit}.service`, 'MainPID');
      await machine.sh(`kill -KILL ${pid}`);
      await machine.until(
        `systemctl is-active --quiet ${unit}.service && [ "$(systemctl show --property=MainPID --value ${unit}.service)" != ${pid} ]`,
        `systemctl status ${unit}.service`,
      );
    }
    await linkUp('ivshmem-net@red.service');
    await linkUp('ivshmem-net@far.service');
    await machine.until('ip netns exec blue ping -q -c 1 -W 5 10.1.0.1 > /dev/null');
    // Those of the server that systemd listens for, too.
    await machine.until(
      'ivshmem peers -S /run/ivshmem/blue.sock | { read -r line; case "$line" in *"2 of 2 peers"*) ;; *) false; esac; }',
    );
  });

  it('add a link when they are reloaded, and the others continue', async () => {
    const pid = await show('ivshmem-server.service', 'MainPID');
    const joined = () => machine.sh('ivshmem peers -S /run/ivshmem/red.sock --json');
    const before = JSON.parse(await joined());
    await machine.sh(`sed -i 's|"protocol": 1 }|"protocol": 1 }, { "socket": "/run/ivshmem/new.sock" }|' /etc/ivshmem/links.json
      systemctl reload ivshmem-server.service`);
    await machine.until('[ -S /run/ivshmem/new.sock ]');
    await machine.until(
      '[ "$(systemctl show --property=StatusText --value ivshmem-server.service)" = "2 links" ]',
    );
    expect(await show('ivshmem-server.service', 'MainPID')).toBe(pid);
    const since = (list: { peers: { id: number; since: string }[] }) =>
      list.peers.map((peer) => [peer.id, peer.since]);
    expect(since(JSON.parse(await joined()))).toEqual(since(before));
  });

  it('start in any order', async () => {
    await machine.sh(`echo 'SERVER_OPTIONS=-l 4M -o 1M -n 2 -V 2 -P 1
NET_OPTIONS=--socket /run/ivshmem/late.sock --tap late0' > /etc/ivshmem/late.conf
      systemctl start --no-block ivshmem-net@late.service`);
    await machine.until(
      'systemctl show --property=StatusText ivshmem-net@late.service | { read -r line; case "$line" in *"waiting for the host server"*) ;; *) false; esac; }',
      'systemctl status ivshmem-net@late.service',
    );
    expect(await show('ivshmem-net@late.service', 'ActiveState')).toBe('activating');
    await machine.sh('systemctl start ivshmem-server@late.socket');
    await machine.until('systemctl is-active --quiet ivshmem-net@late.service');
    expect(await machine.sh('ip -brief link show late0')).toContain('late0');
  });

  it('are not started again for a mistake in their options', async () => {
    await machine.sh(`echo 'NET_OPTIONS=--mtu 5' > /etc/ivshmem/bad.conf`);
    await expect(machine.sh('systemctl start ivshmem-net@bad.service')).rejects.toThrow('exit status 1');
    expect(await show('ivshmem-net@bad.service', 'ActiveState')).toBe('failed');
    expect(await show('ivshmem-net@bad.service', 'NRestarts')).toBe('0');
    expect(await machine.sh('journalctl --output=cat --unit=ivshmem-net@bad.service')).toContain('ivshmem: ');
  });

  it('leave nothing when they are disabled and stopped', async () => {
    const units = await machine.sh(
      `systemctl list-units --plain --no-legend 'ivshmem-*.service' 'ivshmem-*.socket' | { while read -r unit rest; do echo $unit; done; }`,
    );
    const all = units
      .split('\n')
      .filter((unit) => !unit.startsWith('ivshmem-net@bad'))
      .join(' ');
    await machine.sh(`systemctl stop ${all}
      systemctl disable ivshmem-server@blue.socket ivshmem-device@blue ivshmem-net@blue ivshmem-server ivshmem-vm@vm3`);
    for (const unit of all.split(' ')) expect(await show(unit, 'ActiveState'), unit).toBe('inactive');
    // For the next start, see the page.
    expect(await machine.sh('ls /run/ivshmem')).toBe('new.sock\nred.sock');
    expect(await machine.sh('ip -brief link | while read -r name rest; do echo $name; done')).toBe('lo');
    expect(await machine.sh('cat /proc/[0-9]*/comm')).not.toContain('node');
  });
});
