import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianPackage } from '@ivshmem/packaging/debian-package';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { describeWhere } from '../support/requirements.ts';
import { Machine } from './machine.ts';

const workspace = fileURLToPath(new URL('../..', import.meta.url));
const debian = inject('debian');
const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
/** What docs/install.md says. */
const documented = /<!-- run: debian -->\n```sh\n(.*?)^```/ms.exec(
  readFileSync(new URL('../../docs/install.md', import.meta.url), 'utf8'),
)![1]!;

/** Everything that is in the system, but for logs and what dpkg keeps for itself. */
const LIST = `find / -xdev \\( -path /var/log -o -path /var/lib/systemd -o -path /var/cache -o -path /tmp -o -path /opt -o -path /var/lib/apt \\) -prune \\
  -o ! -path '/var/lib/dpkg/*-old' ! -path '/etc/*-' -printf '%y %p %l\\n' | sort; find /run/ivshmem* 2> /dev/null || true`;

describeWhere(
  'obstacle' in debian ? debian.obstacle : null,
  "the package, in Debian with Debian's Node.js",
  () => {
    let machine: Machine;
    let directory: string;
    let before: string;
    const packages: string[] = [];
    const as = (user: string, script: string) =>
      machine.sh(`setpriv --reuid ${user} --regid ${user} --clear-groups sh -eu <<'END'\n${script}\nEND`);
    const pids = () =>
      machine.sh(
        "systemctl show --property=MainPID --value 'ivshmem-*.service' | while read -r pid; do echo $pid; done",
      );

    beforeAll(async () => {
      if ('obstacle' in debian) throw new Error(debian.obstacle);
      directory = mkdtempSync(join(tmpdir(), 'ivshmem-debian-'));
      for (const version of ['0.1.0', '0.1.1']) {
        packages.push(
          basename(await debianPackage(workspace, directory, version, new Date(0), process.arch as 'x64')),
        );
      }
      machine = await Machine.bootInstalled(debian.root, directory);
      // As a session of hers has it.
      await machine.sh('useradd --no-create-home alice; install -d -o alice -m 700 /run/user/$(id -u alice)');
      before = await machine.sh(LIST);
    });

    afterAll(async () => {
      await machine?.stop();
      rmSync(directory, { recursive: true, force: true });
    });

    it('installs, and starts nothing', async () => {
      await machine.sh(
        `cd /opt/ivshmem; ${documented.replaceAll('VERSION', '0.1.0').replaceAll('amd64', architecture)}`,
      );
      expect(await machine.sh('dpkg --audit; dpkg --verify ivshmem')).toBe('');
      expect(await machine.sh("systemctl list-units --all --plain --no-legend 'ivshmem*'")).toBe('');
      expect(
        await machine.sh("systemctl list-unit-files --no-legend 'ivshmem*' | grep -c enabled || true"),
      ).toMatch(/^\d+$/);
      expect(await machine.sh('stat -c "%U:%G %a" /run/ivshmem; id -un ivshmem')).toBe(
        'root:ivshmem 1775\nivshmem',
      );
    });

    it('has units without mistakes', async () => {
      const said = await machine.sh(
        'cd /usr/lib/systemd/system; systemd-analyze verify --man=no ivshmem*.service ivshmem*.socket 2>&1 || true',
      );
      expect(said.split('\n').filter((line) => line.includes('ivshmem'))).toEqual([]);
    });

    it('is of use to an ordinary user', async () => {
      expect(await as('alice', 'ivshmem --version')).toBe('0.1.0');
      expect(
        await as(
          'alice',
          `ivshmem server -S /tmp/alice.sock -P 1 -p /tmp/alice.pid
         ivshmem peers -S /tmp/alice.sock
         kill $(cat /tmp/alice.pid)`,
        ),
      ).toContain('0 of 2 peers');
      expect(await machine.sh('zcat /usr/share/man/man1/ivshmem-net.1.gz')).toContain('.SH OPTIONS');
      expect(
        await as(
          'alice',
          `bash -c '. /usr/share/bash-completion/completions/ivshmem
          COMP_WORDS=(ivshmem net --addr); COMP_CWORD=2; _ivshmem; echo "$COMPREPLY"'`,
        ),
      ).toBe('--address');
    });

    it('links two interfaces by its units', async () => {
      await machine.sh(`cat > /etc/ivshmem/blue.conf <<END
SERVER_OPTIONS=-l 4M -o 1M -n 2 -V 2 -P 1
NET_OPTIONS=--socket /run/ivshmem/blue.sock --tap ivn0 --address 10.0.0.1/24
END
      echo 'NET_OPTIONS=--socket /run/ivshmem/blue.sock --tap ivn1' > /etc/ivshmem/far.conf
      echo 'VM_OPTIONS=--vfio-user /run/ivshmem/vm3.sock --tap ivn3' > /etc/ivshmem/vm3.conf
      systemctl enable --now ivshmem-server@blue.socket ivshmem-net@blue.service
      systemctl start ivshmem-net@far.service ivshmem-vm@vm3.service`);
      await machine.until(
        '[ "$(cat /sys/class/net/ivn0/carrier)" = 1 ]',
        'systemctl status ivshmem-net@blue.service',
      );
    });

    it('is upgraded while its units go on', async () => {
      const running = await pids();
      expect(running.split('\n').length).toBeGreaterThanOrEqual(4);
      await machine.sh(`dpkg --install /opt/ivshmem/${packages[1]}`);
      expect(await machine.sh('ivshmem --version')).toBe('0.1.1');
      expect(await pids()).toBe(running);
      expect(await machine.sh('cat /sys/class/net/ivn0/carrier')).toBe('1');
      expect(
        await machine.sh('systemctl show --property=NeedDaemonReload --value ivshmem-net@blue.service'),
      ).toBe('no');
    });

    it('stops its units when it is removed, and keeps its configuration', async () => {
      await machine.sh('dpkg --remove ivshmem');
      expect(await machine.sh("systemctl list-units --plain --no-legend 'ivshmem*'")).toBe('');
      expect(await machine.sh('ls /sys/class/net')).not.toContain('ivn');
      expect(await machine.sh('ls /etc/ivshmem')).toBe('blue.conf\nfar.conf\nvm3.conf');
    });

    it('leaves nothing when it is purged', async () => {
      await machine.sh('dpkg --purge ivshmem');
      const files = (list: string) => new Set(list.split('\n'));
      const [was, is] = [files(before), files(await machine.sh(LIST))];
      expect([...is].filter((line) => !was.has(line))).toEqual([]);
      expect([...was].filter((line) => !is.has(line))).toEqual([]);
      expect(await machine.sh('getent passwd ivshmem || echo none')).toBe('none');
    });
  },
);
