#!/bin/bash
# Makes a fresh Debian tree into a guest: what boots it, its users, and the service that runs the job. Called by mmdebstrap.
set -euo pipefail
root=$1

main() {
    echo '/dev/vda / ext4 rw,relatime 0 1' >"$root/etc/fstab"
    echo guest >"$root/etc/hostname"
    echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
    job_service
    quiet_services
    users
    add_busybox_tree
}

# After the boot, so that services are there; not part of it, as it may want services to start.
job_service() {
    cat >"$root/etc/systemd/system/job.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Delegate=yes
TimeoutStartSec=infinity
Environment=HOME=/root
ExecStartPre=/bin/mkdir -p /payload /results
ExecStartPre=/bin/mount -o ro /dev/vdb /payload
ExecStartPre=/bin/mount /dev/vdc /results
ExecStart=/bin/bash /payload/integration/job.sh
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
ExecStopPost=/bin/umount /results
ExecStopPost=/bin/systemctl poweroff --force --force
UNIT
    cat >"$root/etc/systemd/system/job.timer" <<'UNIT'
[Timer]
OnActiveSec=1
AccuracySec=1
UNIT
    mkdir -p "$root/etc/systemd/system/timers.target.wants"
    ln -s ../job.timer "$root/etc/systemd/system/timers.target.wants/job.timer"
}

# Suites start the engines that they need. A login on a serial line would hang up what is written there.
quiet_services() {
    local unit
    for unit in containerd.service docker.service docker.socket podman.socket podman.service apt-daily.timer \
        apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer; do
        chroot "$root" systemctl disable "$unit" >/dev/null 2>&1 || true
    done
    for unit in serial-getty@ttyS0.service serial-getty@ttyS1.service; do
        ln -s /dev/null "$root/etc/systemd/system/$unit"
    done
}

# The one who runs rootless podman, and the ids that `podman run --userns=auto` divides.
users() {
    chroot "$root" useradd -m -s /bin/bash -u 1000 user
    echo 'containers:1000000:1000000' | tee -a "$root/etc/subuid" >>"$root/etc/subgid"
}

# The root file system of most containers: one static program, and what it is called by.
add_busybox_tree() {
    local tree=$root/srv/busybox name
    mkdir -p "$tree"/{bin,dev,etc,proc,sys,tmp,root,var/tmp}
    chmod 1777 "$tree/tmp" "$tree/var/tmp"
    cp "$root/bin/busybox" "$tree/bin/busybox"
    for name in $(chroot "$root" /bin/busybox --list); do
        [ "$name" = busybox ] || ln -s busybox "$tree/bin/$name"
    done
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:1:1:daemon:/:/bin/false' 'ann:x:1234:1234::/:/bin/sh' \
        >"$tree/etc/passwd"
    printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'ann:x:1234:' 'extra:x:4321:ann' >"$tree/etc/group"
}

main
