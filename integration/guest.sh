#!/bin/bash
# Builds the guest, a Debian with systemd, pure cgroup v2 and the engines, unless it is there; prints its directory.
# The directory is named by the hash of this recipe, so a changed recipe makes a new guest.
set -euo pipefail
cd "$(dirname "$0")"
. ./host.sh

suite=trixie
recipe=$(cat guest.sh guest-setup.sh guest-packages | hash_of_recipe)
guest=$cache/guest-$recipe

main() {
    if [ ! -e "$guest/guest.img" ]; then
        need_root
        need_packages mmdebstrap e2fsprogs debian-archive-keyring
        build
    fi
    echo "$guest"
}

build() {
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "building the guest, $suite from $(mirror), into $guest; this takes minutes"
    debian "$work/tree" "$(packages)" --customize-hook="$PWD/guest-setup.sh \"\$1\""
    # A container that boots needs a tree with systemd of its own.
    debian "$work/tree/srv/debian" systemd,systemd-sysv,dbus
    image
    drop_older guest "$recipe"
    say "the guest is ready"
}

packages() {
    sed '/^#/d' guest-packages | tr ' \n' ',,' | sed 's/,$//'
}

# A Debian tree in $1 with the packages $2. Dates are not checked: a mirror may be a snapshot.
debian() {
    mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$2" "${@:3}" \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$1" "$(mirror)" >&2
}

# The kernel and its first root are what QEMU loads; the rest is one file system.
image() {
    cp "$work"/tree/boot/vmlinuz-* "$work/vmlinuz"
    cp "$work"/tree/boot/initrd.img-* "$work/initrd.img"
    truncate -s 12G "$work/guest.img"
    mke2fs -q -t ext4 -F -d "$work/tree" "$work/guest.img"
    rm -rf "$work/tree"
    rm -rf "$guest"
    mv "$work" "$guest"
    trap - EXIT
}

main
