# shellcheck shell=bash
# What the host must have: packages, a mirror, a place for what is kept. Sourced by the other scripts.
# It says what is missing, and installs it with apt if it may. It reads apt's sources and adds one of its own at most.

# Where guests, sources and verdicts are kept between runs.
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cofferdam

die() {
    echo "integration: $*" >&2
    exit 1
}

say() {
    echo "integration: $*" >&2
}

need_root() {
    [ "$(id -u)" = 0 ] || die "needs root: file systems with owners and device nodes are made"
}

# Installs those of the packages that are missing.
need_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "no apt-get here; install by hand what Debian calls: ${missing[*]}"
    need_root
    say "apt-get install ${missing[*]}"
    refresh_lists
    apt_install "${missing[@]}"
}

refresh_lists() {
    apt-get -q update </dev/null >&2 || say "apt-get update: not all lists are fresh"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -qqy -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "$@" </dev/null >&2
}

# The mirror that apt takes this host's Debian from; MIRROR names another one.
mirror() {
    local release uri
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    uri=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT)' \
        'Identifier: Packages' | sed -n "s/ $release Debian main$//p" | head -n 1)}
    [ -n "$uri" ] || die "apt has no mirror of Debian here: name one with MIRROR="
    echo "${uri%/}"
}

# QEMU 10 is what the guest has been tried on; bookworm has it in its backports only.
need_qemu() {
    local major
    major=$(qemu_major)
    [ "${major:-0}" -lt 10 ] || return 0
    need_root
    # shellcheck source=/dev/null
    if [ "$(. /etc/os-release && echo "${VERSION_CODENAME-}")" = bookworm ]; then
        add_backports
        apt_install -t bookworm-backports qemu-system-x86 qemu-system-data seabios ipxe-qemu
    else
        need_packages qemu-system-x86
    fi
    major=$(qemu_major)
    [ "${major:-0}" -ge 10 ] || die "QEMU 10 or newer is needed, here is ${major:-none}"
}

qemu_major() {
    { qemu-system-x86_64 --version 2>/dev/null || true; } | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'
}

add_backports() {
    local list=/etc/apt/sources.list.d/cofferdam-backports.sources
    [ -e "$list" ] || printf '%s\n' 'Types: deb' "URIs: $(mirror)" 'Suites: bookworm-backports' 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$list"
    refresh_lists
}

# A name for what is made by these recipes, on standard input.
hash_of_recipe() {
    sha256sum | cut -c 1-16
}

# Removes what older recipes have made: all that begins with $1, but $1-$2.
drop_older() {
    local old
    for old in "$cache/$1"-*; do
        [ "$old" = "$cache/$1-$2" ] || rm -rf "$old"
    done
}
