#!/bin/bash
# Feeds each target, or those that are named, with changed inputs for FUZZ_SECONDS (60). FUZZ_SEED repeats a run. What reaches new
# code is kept in target/fuzz/corpus for later runs; what breaks something is in target/fuzz/found, and the line that repeats it is
# printed. An input that was mended goes into fuzz/corpus, where `cargo test` finds it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(realpath -m "${CARGO_TARGET_DIR:-$here/../target}")
target=$build/fuzz
programs=$build/x86_64-unknown-linux-gnu/debug
seconds=${FUZZ_SECONDS:-60}
seed=${FUZZ_SEED:-$((RANDOM * RANDOM + 1))}

# What libFuzzer is told of a run: the blocks that are entered, and the numbers and texts that are compared. Needs no nightly.
# In a static program its own functions would stand in the way of the C library's.
flags="-C target-feature=-crt-static -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4"
for kind in inline-8bit-counters pc-table trace-compares; do flags="$flags -C llvm-args=-sanitizer-coverage-$kind"; done

main() {
    local targets=("$@") name failed=
    [ $# -gt 0 ] || mapfile -t targets < <(ls "$here/corpus")
    (cd "$here" && RUSTFLAGS=$flags cargo build --locked --target x86_64-unknown-linux-gnu --target-dir "$build" \
        "${targets[@]/#/--bin=}")
    echo "fuzz: ${#targets[@]} targets, $seconds s each, FUZZ_SEED=$seed"
    for name in "${targets[@]}"; do try "$name" || failed="$failed $name"; done
    [ -z "$failed" ] || { echo "fuzz: faults in:$failed" >&2; exit 1; }
}

try() {
    local log=$target/$1.log
    mkdir -p "$target/corpus/$1" "$target/found"
    if "$programs/$1" -seed="$seed" -max_total_time="$seconds" -rss_limit_mb=256 -malloc_limit_mb=64 -timeout=10 \
        -max_len=16384 -print_final_stats=1 -artifact_prefix="$target/found/$1-" "$target/corpus/$1" "$here/corpus/$1" >"$log" 2>&1
    then
        printf '  %-10s %9s runs, %4s MB, %5s blocks\n' "$1" "$(stat number_of_executed_units)" "$(stat peak_rss_mb)" \
            "$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)"
        return
    fi
    grep -a -A2 "panicked at\|ERROR: libFuzzer" "$log" | head -8 >&2
    grep -a -A1 " cofferdam::" "$log" | head -24 >&2
    echo "fuzz: again: $programs/$1 $(sed -n 's/.*Test unit written to //p' "$log" | tail -1)" >&2
    return 1
}

stat() { sed -n "s/^stat::$1: *//p" "$log"; }

main "$@"
