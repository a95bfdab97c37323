#!/bin/sh
# Boots systemd from a folder of Debian packages, as PID 1 of namespaces of its own, until standard input ends.
#   machine.sh TREE NODE CHECKOUT
# NODE is seen there as /usr/local/bin/node, CHECKOUT as /opt/ivshmem, both read-only; nothing else of this machine is.
# If NODE is "installed", TREE is a Debian system with a Node.js of its own, all of which can be written there: it is not
# changed itself. Else the packages in TREE are unpacked, not installed, and their files cannot be written.
# Prints "pid N" with the process ID of systemd here. Needs root.
set -eu
tree=$1 node=$2 checkout=$3
group=ivshmem-systemd-$$

# The cgroup2 hierarchy from where this process is in it, seen by the command alone; on a v1 or hybrid machine, too.
with_cgroups() {
  exec unshare --mount --propagation private -- sh -euc '
    mount -t cgroup2 cgroup2 "$0/sys"
    cd "$0/sys"
    exec "$@"' "$tree" "$@"
}

boot='
tree=$1 node=$2 checkout=$3 root=$1/run
mount -t tmpfs -o mode=755,size=256m tmpfs "$root"
cd "$root"
if [ "$node" = installed ]; then
  mkdir changes work root
  mount -t overlay -o "lowerdir=$tree,upperdir=$root/changes,workdir=$root/work" overlay root
  cd root
  mkdir -p opt/ivshmem old
else
  # Which the package base-files makes when it is installed.
  mkdir -p "$tree/usr/local"
  mkdir -p usr etc/systemd/system var/log opt/ivshmem run proc sys dev tmp root home mnt old
  for link in bin sbin lib lib64; do [ ! -L "$tree/$link" ] || ln -s "usr/$link" "$link"; done
  chmod 1777 tmp
  mount --bind "$tree/usr" usr
  mount -o remount,bind,ro usr
  mount -t tmpfs -o mode=755 tmpfs usr/local
  mkdir usr/local/bin
  touch usr/local/bin/node
  mount --bind "$node" usr/local/bin/node
  mount -o remount,bind,ro usr/local/bin/node
fi
mount --bind "$checkout" opt/ivshmem
mount -o remount,bind,ro opt/ivshmem

# What belongs to the kernel, and so to all of this machine, cannot be written: only what is of the network namespace.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
# As udev makes it.
mknod -m 666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

echo d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0 > etc/machine-id
echo ivshmem-test > etc/hostname
# It would write to /usr.
ln -sf /dev/null etc/systemd/system/ldconfig.service
pivot_root . old
exec chroot . sh -euc "
  umount -l /old
  rmdir /old
  exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
    setpriv --bounding-set=-sys_module,-sys_boot,-sys_time,-sys_rawio,-syslog,-mac_admin,-mac_override \
    /usr/lib/systemd/systemd --unit=multi-user.target --log-target=null" < /dev/null > /dev/null 2>&1
'

with_cgroups sh -euc '
  mkdir "$4"
  echo 0 > "$4/cgroup.procs"
  exec unshare --pid --fork --kill-child --uts --ipc --net --cgroup --propagation private -- sh -euc "$5" sh "$1" "$2" "$3"
  ' sh "$tree" "$node" "$checkout" "$group" "$boot" < /dev/null &
launcher=$!

finish() {
  trap '' INT TERM HUP
  kill -KILL "$launcher" 2> /dev/null || true
  wait "$launcher" 2> /dev/null || true
  # Once the last of its processes are gone, which may take a moment.
  (with_cgroups sh -c '
    [ -d "$1" ] || exit 0
    for try in 1 2 3 4 5 6 7 8 9 10; do
      echo 1 > "$1/cgroup.kill"
      find "$1" -depth -type d -exec rmdir {} + 2> /dev/null && exit
      sleep 0.2
    done' sh "$group")
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# The launcher becomes unshare, whose child becomes systemd once all is prepared.
while kill -0 "$launcher" 2> /dev/null; do
  pid=$(cat "/proc/$launcher/task/$launcher/children" 2> /dev/null | tr -d ' ' || true)
  if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2> /dev/null || true)" = systemd ]; then
    echo "pid $pid"
    cat > /dev/null
    exit 0
  fi
  sleep 0.05
done
wait "$launcher"
