#!/bin/busybox sh
# The first process of a guest. The kernel's messages go to the serial console. A virtio serial port (a UART loses
# bytes where a processor is emulated) takes a shell command a line, "job NUMBER 'COMMAND'", and gets back
# "NUMBER|line" for each line that the command prints and "NUMBER!status" when it has ended. Commands run side by side.
/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /run /tmp /root
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order
ip link set lo up

job() {
  {
    setsid sh -c "echo \$\$ > /run/job.$1; $2" < /dev/null 2>&1
    echo $? > "/run/status.$1"
  } | while IFS= read -r line || [ -n "$line" ]; do printf '%s|%s\n' "$1" "$line"; done
  read -r status < "/run/status.$1"
  rm -f "/run/job.$1" "/run/status.$1"
  printf '%s!%s\n' "$1" "$status"
}

# It can be open only once.
for port in /dev/vport*p1; do exec 0<> "$port" 1>&0; done
echo '!ready'
while IFS= read -r line; do eval "$line &"; done
poweroff -f
