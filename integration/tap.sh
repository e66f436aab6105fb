#!/bin/bash
# tap.sh SUITE, in the guest: runs every test_ function of suites/SUITE.sh, each in a shell of its own that ends at the
# first failing command, and tells the results in TAP. A test that calls skip is told as skipped. If the file defines
# setup, it runs first, and without it no test runs; clean_up runs after a failed test. TESTS, a regular expression,
# chooses tests. A suite that writes its own TAP defines main_tap instead.
set -uo pipefail
suite=$1
file=/payload/integration/suites/$suite.sh
log=/results/$suite.log
tests=$(sed -n 's/^\(test_[a-z0-9_]*\)() {.*/\1/p' "$file" | grep -E "${TESTS:-.}")
seconds=240

# Options of the superblock that all mounts of cgroup2 share: no container changes them.
cgroup_options() {
    sed -n 's/.* - cgroup2 .* //p' /proc/self/mountinfo | head -n 1
}
options=$(cgroup_options)

main() {
    exec > >(tee "/results/$suite.tap") 3>&1
    echo "# $suite, driver $DRIVER"
    if grep -q '^main_tap() {' "$file"; then
        inside main_tap "$log" 3000
        keeps_options "$log" || echo "Bail out! $(tail -n 1 "$log")"
        return
    fi
    local number=0 test
    if grep -q '^setup() {' "$file" && ! inside setup "/results/$suite-setup.log" 600; then
        echo "Bail out! setup of $suite"
        sed 's/^/# /' "/results/$suite-setup.log"
        return 1
    fi
    # shellcheck disable=SC2086
    echo "1..$(echo $tests | wc -w)"
    for test in $tests; do
        number=$((number + 1))
        tell "$number" "$test"
    done
}

# Runs one test and tells its result, with what it printed if it failed.
tell() {
    local number=$1 test=$2 output=/results/$suite-$2.log status=0 start
    local name=${test#test_}
    name="$suite: ${name//_/ }"
    start=$(date +%s%3N)
    inside "$test" "$output" "$seconds" || status=$?
    keeps_options "$output" || status=1
    case $status in
        0) echo "ok $number - $name" ;;
        77) echo "ok $number - $name # SKIP $(tail -n 1 "$output")" ;;
        *) echo "not ok $number - $name" ;;
    esac
    printf '  ---\n  duration_ms: %s\n  ...\n' $(($(date +%s%3N) - start))
    case $status in
        0 | 77) return ;;
    esac
    ! grep -q '^clean_up() {' "$file" || inside clean_up "/results/$suite-clean_up.log" 60 || true
    case $status in
        124 | 137) echo "# ended after $seconds s" ;;
    esac
    tail -n 25 "$output" | sed 's/^/# /'
}

# keeps_options LOG: whether the options of the host's cgroup2 are as before; they are given back for the next test.
keeps_options() {
    local now
    now=$(cgroup_options)
    [ "$now" != "$options" ] || return 0
    echo "FAULT: the options of the host's cgroup2 were $options and are $now" >>"$1"
    mount -o "remount,$options" /sys/fs/cgroup
    return 1
}

# inside FUNCTION LOG SECONDS: a function of the suite, in a shell of its own; what it writes to descriptor 3 is TAP. The
# trace of commands has a descriptor of its own: no test must take its own words for an answer.
inside() {
    timeout -k 5 "$3" bash -c 'exec 4>&2; BASH_XTRACEFD=4; set -xeuo pipefail; . /payload/integration/tools.sh; . "$0"; "$1"' "$file" "$1" \
        </dev/null >"$2" 2>&1
}

main
