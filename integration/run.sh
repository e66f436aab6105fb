#!/bin/bash
# run.sh [SUITE..]: the suites, by default all, on real engines in a guest; one boot for all of them. DRIVER names the
# cgroup driver that engines use, TESTS chooses tests, of engines by a regular expression, ORACLE=runc or crun puts
# another runtime in the place of cofferdam. LIMIT is how many seconds the guest has for all. Results are left in
# target/integration, or where RESULTS says: SUITE.tap, junit.xml, all logs.
set -euo pipefail
cd "$(dirname "$0")"
. ./host.sh
root=$(dirname "$PWD")
results=${RESULTS:-$root/target/integration}
driver=${DRIVER:-cgroupfs}

main() {
    local suites=("$@") guest
    # All take about forty minutes where the processor is emulated.
    local limit=${LIMIT:-2400}
    [ $# -gt 0 ] || limit=${LIMIT:-7200}
    [ $# -gt 0 ] || mapfile -t suites < <(basename -s .sh suites/*.sh)
    check "${suites[@]}"
    need_root
    guest=$(./guest.sh)
    payload=$(mktemp -d)
    trap 'rm -rf "$payload"' EXIT
    fill_payload "${suites[@]}"
    rm -rf "$results"
    ./boot.sh "$guest" "$payload" "$results" "$limit" || true
    report "${suites[@]}"
}

check() {
    local suite
    for suite in "$@"; do
        [ -e "suites/$suite.sh" ] || die "there is no suite $suite, but: $(basename -s .sh suites/*.sh | tr '\n' ' ')"
    done
    [ "$driver" = cgroupfs ] || [ "$driver" = systemd ] || die "DRIVER=$driver: must be cgroupfs or systemd"
}

# The program as released; the scripts; and, if they are to run, the tests with what they read.
fill_payload() {
    make -s -C "$root" build >&2
    cp "${CARGO_TARGET_DIR:-$root/target}/${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}/release/cofferdam" "$payload/"
    cp -r "$root/integration" "$root/contrib" "$payload/"
    {
        printf 'SUITES="%s" DRIVER=%s SOURCE=%q TESTS=%q ORACLE=%q\n' "$*" "$driver" "$root" "${TESTS-}" \
            "${ORACLE-}"
        echo export SUITES DRIVER SOURCE TESTS
    } >"$payload/settings"
    case " $* " in
        *' cli '*) add_tests ;;
    esac
    case " $* " in
        *' conformance '*) cp -a "$(conformance/suite.sh)" "$payload/conformance" ;;
    esac
}

# One test is run here: the first to want it compiles what runs inside containers.
add_tests() {
    local tests built
    tests=$(cd "$root" && cargo test --locked --test main --no-run 2>&1 | tee /dev/stderr |
        sed -n 's/.*Executable .*(\(.*\))$/\1/p')
    (cd "$root" && RUNTIME='' "$tests" --exact run::run_gives_the_exit_code >/dev/null 2>&1) || true
    cp "$(realpath "$root/$tests" 2>/dev/null || echo "$tests")" "$payload/tests"
    mkdir "$payload/source"
    (cd "$root" && cp -a --parents Makefile Cargo.toml README.md src tests config-samples contrib docs "$payload/source/")
    built=$(find "${CARGO_TARGET_DIR:-$root/target}" -path '*/tmp/payload' -newer "$root/tests/main/payload/payload.rs" | head -n 1)
    [ -n "$built" ] || die "the payload of the tests was not built"
    mkdir -p "$payload/source/$(dirname "${built#"$root"/}")"
    cp -p "$built" "$payload/source/${built#"$root"/}"
}

# All suites have to have told all their results, none of them a failure.
report() {
    local suite tap failed=()
    for suite in "$@"; do
        tap=$results/$suite.tap
        if ! complete "$tap"; then
            say "$suite: not complete"
            failed+=("$suite")
        elif grep -q '^not ok' "$tap"; then
            failed+=("$suite")
        fi
        [ ! -e "$tap" ] || say "$suite: $(grep -c '^ok' "$tap") ok ($(grep -c '^ok.* # SKIP' "$tap") skipped)," \
            "$(grep -c '^not ok' "$tap") not ok"
    done
    cat "$results"/*.tap 2>/dev/null | awk -f junit.awk >"$results/junit.xml"
    [ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}; logs are in $results"
}

complete() {
    local planned
    planned=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$1" 2>/dev/null)
    [ -n "$planned" ] && [ "$planned" -gt 0 ] && [ "$(grep -cE '^(not )?ok ' "$1")" = "$planned" ]
}

main "$@"
