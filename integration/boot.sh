#!/bin/bash
# Boots the guest once: boot.sh GUEST PAYLOAD RESULTS SECONDS. The payload's integration/job.sh runs as root; what it
# prints is shown while it runs, what it leaves in /results is brought out. The guest's image itself never changes.
set -euo pipefail
cd "$(dirname "$0")"
. ./host.sh
guest=$1 payload=$2 results=$3 limit=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
    need_packages e2fsprogs
    need_qemu
    mkdir -p "$results"
    local mode
    mode=$(accelerator)
    say "booting the guest, $mode, at most $limit s"
    disks
    local status=0
    boot "$mode" "$limit" "$results/console.log" "$work/payload.img" "$work/results.img" || status=$?
    debugfs -R "rdump / $results" "$work/results.img" 2>/dev/null
    rmdir "$results/lost+found" 2>/dev/null || true
    [ "$status" = 0 ] || die "the guest did not end by itself (timeout $limit s, or QEMU: $status): see $results/console.log"
}

# Both are file systems, as the guest's kernel has no driver for a shared directory.
disks() {
    local size
    size=$(($(du -sm "$payload" | cut -f 1) * 5 / 4 + 64))
    truncate -s "${size}M" "$work/payload.img"
    mke2fs -q -t ext4 -F -d "$payload" "$work/payload.img"
    truncate -s 512M "$work/results.img"
    mke2fs -q -t ext4 -F "$work/results.img"
}

# boot MODE SECONDS CONSOLE DISK..: the console goes to the file, the second serial line to stdout.
boot() {
    local mode=$1 limit=$2 console=$3 disk drives=()
    for disk in "$guest/guest.img" "${@:4}"; do
        drives+=(-drive "file=$disk,if=virtio,format=raw,cache=unsafe")
    done
    drives[1]+=,snapshot=on
    # shellcheck disable=SC2086
    timeout -k 10 "$limit" qemu-system-x86_64 $mode -m "${GUEST_MEMORY:-4096}" -smp 2 -display none -no-reboot -net none \
        -kernel "$guest/vmlinuz" -initrd "$guest/initrd.img" \
        -append 'root=/dev/vda rw console=ttyS0 quiet panic=5 apparmor=1 security=apparmor' \
        "${drives[@]}" -device virtio-rng-pci -serial "file:$console" -serial stdio </dev/null
}

# How the guest's processors run. That /dev/kvm exists does not tell: a trial boot does, once for a kernel of the host.
accelerator() {
    local verdict
    verdict=$guest/accelerator-$(uname -r)
    if [ ! -e "$verdict" ]; then
        if kvm_boots; then
            echo '-accel kvm -cpu host' >"$verdict"
        else
            echo '-accel tcg,thread=multi -cpu max' >"$verdict"
        fi
    fi
    cat "$verdict"
}

kvm_boots() {
    [ -w /dev/kvm ] || return 1
    say "trying KVM"
    local job=$work/trial
    mkdir -p "$job/integration"
    echo 'echo it boots' >"$job/integration/job.sh"
    truncate -s 16M "$work/trial.img" "$work/none.img"
    mke2fs -q -t ext4 -F -d "$job" "$work/trial.img"
    mke2fs -q -t ext4 -F "$work/none.img"
    boot '-accel kvm -cpu host' 40 "$work/trial.log" "$work/trial.img" "$work/none.img" 2>&1 | grep -q 'it boots'
}

main
