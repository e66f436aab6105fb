#!/bin/bash
# Measures cofferdam against runc, crun and the floor in a mount namespace that has nothing but cgroup v2. The report
# goes to docs/benchmark. QUICK=1 takes less than a minute, and is for trying out. RUNTIME names another program than
# the one that is built here; YOUKI=1 installs youki, too. What is behind `--` in ARGUMENTS goes to the launcher.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=/run/cofferdam-bench

main() {
    [ "$(id -u)" = 0 ] || { echo "bench: must be root" >&2; exit 1; }
    (cd "$here" && cargo build --release --locked --target-dir "$target/bench")
    if [ "${ORDER-}" = 1 ]; then order; else youki; fi
    unshare --mount --propagation private -- "$0" --inside
}

# It takes minutes to compile: only who asks for it gets it.
youki() {
    [ "${YOUKI-}" = 1 ] || return 0
    [ -x "$target/bench/youki/bin/youki" ] ||
        cargo install youki --root "$target/bench/youki" --target-dir "$target/bench/youki-build" \
            --no-default-features --features v2 || echo "bench: youki does not build" >&2
}

# The same program, but with the names of its functions.
order() {
    (cd "$root" && CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --locked --target-dir "$target/order")
}

inside() {
    local launcher=$target/bench/${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}/release/bench
    local arguments=()
    mount -t cgroup2 none /sys/fs/cgroup
    trap 'cd /; umount -l "$work"; rmdir "$work" /sys/fs/cgroup/bench' EXIT
    mkdir -p "$work"
    mount -t tmpfs -o mode=755,size=2g tmpfs "$work"
    if [ "${ORDER-}" = 1 ]; then
        "$launcher" order --subject "cofferdam=$target/order/${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}/release/cofferdam" \
            --repository "$root" --work "$work" --out "$root/first.ld"
        return
    fi
    arguments+=(--subject "cofferdam=${RUNTIME:-$target/${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}/release/cofferdam}")
    peer crun "$(command -v crun || true)" "not installed"
    peer runc "$(command -v runc || true)" "not installed"
    peer youki "$target/bench/youki/bin/youki" "not built; YOUKI=1 installs it from its registry"
    [ "${QUICK-}" != 1 ] || quick
    # shellcheck disable=SC2086
    env -u RUST_BACKTRACE "$launcher" measure "${arguments[@]}" --repository "$root" --work "$work" \
        --out "${OUT:-$root/docs/benchmark}" ${ARGUMENTS-}
}

quick() {
    local variant
    arguments+=(--seconds 6 --rounds 5)
    for variant in base seccomp host-network limits docker-config scale; do arguments+=(--variant "$variant"); done
}

peer() {
    if [ -x "$2" ]; then arguments+=(--peer "$1=$2"); else arguments+=(--left-out "$1=$3"); fi
}

if [ "${1-}" = --inside ]; then inside; else main; fi
