#!/bin/bash
# Compares cofferdam with runc and crun on generated configs: for SECONDS (60), or COUNT of them. SEED= repeats a run, CONFIG= takes
# the one with this number and prints all that was seen. RUNTIME=, RUNC= and CRUN= name other programs, WORKERS= is how many configs
# run at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
triple=${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}

main() {
    [ "$(id -u)" = 0 ] || { echo "differential: must be root" >&2; exit 1; }
    (cd "$here" && cargo build --release --locked --target "$triple" --target-dir "$target/differential")
    local programs=$target/differential/$triple/release
    cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)/cofferdam-differential-$$
    mkdir "$cgroup"
    trap clean EXIT
    trap 'exit 130' INT TERM
    local first=0 end=18446744073709551615 verbose=${VERBOSE:-0} workers=${WORKERS:-2} seconds=${1:-60}
    if [ -n "${CONFIG-}" ]; then first=$CONFIG end=$((CONFIG + 1)) verbose=1 workers=1; fi
    if [ -n "${COUNT-}" ]; then end=$COUNT seconds=1000000; fi
    echo "differential: SEED=$seed, $workers workers"
    "$programs/differential" all "cgroup=$cgroup" "workers=$workers" "first=$first" "end=$end" "seconds=$seconds" "seed=$seed" \
        "verbose=$verbose" "probe=$programs/probe" "cofferdam=${RUNTIME:-$target/$triple/release/cofferdam}" \
        "runc=${RUNC:-$(PATH=$PATH:/usr/sbin command -v runc)}" "crun=${CRUN:-$(command -v crun)}" &
    # A signal interrupts `wait`, but no program in the foreground.
    wait $!
}

# What a run that was broken off has left: its processes are in its cgroup.
clean() {
    [ ! -e "$cgroup" ] || echo 1 >"$cgroup/cgroup.kill"
    wait
    while [ -e "$cgroup" ] && grep -q populated.1 "$cgroup/cgroup.events"; do sleep 0.05; done
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

main "$@"
