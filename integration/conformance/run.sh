#!/bin/bash
# Runs the validation suite of OCI runtime-tools, all its programs, on this host in a mount namespace that has nothing
# but cgroup v2; prints TAP. What may fail is in `exceptions`. RUNTIME names another runtime. Logs: target/conformance, or
# where RESULTS says.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
results=${RESULTS:-$root/target/conformance}
# shellcheck source=../host.sh
. "$here/../host.sh"

main() {
    need_root
    local suite
    suite=$("$here/suite.sh")
    if [ -z "${RUNTIME-}" ]; then
        make -s -C "$root" build >&2
        RUNTIME=${CARGO_TARGET_DIR:-$root/target}/${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}/release/cofferdam
    fi
    export RUNTIME
    rm -rf "$results"
    mkdir -p "$results"
    cd "$suite"
    unshare --mount --propagation private -- "$here/run.sh" --inside | tee "$results/conformance.tap"
    awk -f "$root/integration/junit.awk" "$results/conformance.tap" >"$results/junit.xml"
    say "$(grep -c '^ok' "$results/conformance.tap") ok ($(grep -c '^ok.* # SKIP' "$results/conformance.tap") excepted)," \
        "$(grep -c '^not ok' "$results/conformance.tap") not ok; logs are in $results"
    ! grep -q '^not ok' "$results/conformance.tap"
}

# Containers that a program leaves are known to a state directory that only this namespace has.
inside() {
    local program number=0
    mount -t cgroup2 none /sys/fs/cgroup
    mkdir -p /run/cofferdam
    mount -t tmpfs tmpfs /run/cofferdam
    echo "1..$(find programs -type f | wc -l)"
    for program in programs/*; do
        number=$((number + 1))
        judge "$number" "${program#programs/}"
        "$RUNTIME" list -q | xargs -r -n 1 "$RUNTIME" delete --force 2>/dev/null || true
    done
}

judge() {
    local number=$1 name=$2 log=$results/$2.log start found wanted why
    start=$(date +%s%3N)
    read -r wanted why < <(exception "$name") || true
    # Some programs kill a container and wait for its end for a fixed time, which is too short on a loaded machine.
    for _ in 1 2 3 4 5; do
        found=$(faults "$name" "$log")
        ! is_expected || break
    done
    if ! is_expected; then
        echo "not ok $number - conformance: $name"
    elif [ "$found" = 0 ]; then
        echo "ok $number - conformance: $name"
    else
        echo "ok $number - conformance: $name # SKIP $why"
    fi
    printf '  ---\n  duration_ms: %s\n  ...\n' $(($(date +%s%3N) - start))
    [ "$found" = 0 ] || [ -n "$why" ] || { grep -A 6 '^not ok' "$log" || tail -n 20 "$log"; } | sed 's/^/# /'
}

# Whether as many faults are found as the program's line says, of judge's variables.
is_expected() {
    case ${wanted:-0} in
        any) [ "$found" != 0 ] ;;
        race) [ "$found" = 0 ] || [ "$found" = 1 ] ;;
        *) [ "$found" = "${wanted:-0}" ] ;;
    esac
}

# Runs a program, prints how many faults it finds: failed results; an error in its place, of one that reports no results;
# otherwise its status. Those that report results explain expected errors in the same way, and end with 0 all the same.
faults() {
    local status=0 failed errors runtime=$RUNTIME
    [ "$1" != killsig ] || runtime=$here/delete-later.sh
    REAL_RUNTIME=$RUNTIME RUNTIME=$runtime timeout -k 5 60 "programs/$1" >"$2" 2>&1 </dev/null || status=$?
    failed=$(grep '^not ok' "$2" | grep -vc '# TODO' || true)
    errors=0
    grep -q '^ok\|^not ok' "$2" || errors=$(grep -c '^ *"error": ".' "$2" || true)
    if [ $((failed + errors)) -gt 0 ]; then
        echo $((failed + errors))
    elif [ "$status" = 0 ]; then
        echo 0
    else
        echo 1
    fi
}

# The line of a program that applies to this host: faults and reason.
exception() {
    local name wanted host why
    while read -r name wanted host why; do
        [ "$name" = "$1" ] || continue
        if applies "$host"; then
            echo "$wanted $why"
        fi
    done <"$here/exceptions"
}

applies() {
    case $1 in
        all) true ;;
        no-selinux) [ ! -d /sys/fs/selinux/class ] ;;
        no-sys-resource) [ $((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status) >> 24 & 1)) = 0 ] ;;
        *) die "exceptions: $1: no such kind of host" ;;
    esac
}

if [ "${1-}" = --inside ]; then
    inside
else
    main
fi
