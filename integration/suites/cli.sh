# shellcheck shell=bash
# The project's own black-box tests, on a host with all controllers and nothing but cgroup v2.

# The test program knows its sources and its payload by the paths it was built with. /tmp is nodev here, which would
# forbid the devices of containers; and the recorded engines ran on a host that allowed more processes.
main_tap() {
    mkdir -p "$SOURCE"
    mount -t tmpfs -o mode=755 tmpfs "$SOURCE"
    cp -a /payload/source/. "$SOURCE/"
    cd "$SOURCE"
    ulimit -u unlimited
    chosen | as_tap >&3
}

# Attacks start containers by the hundred. An emulated processor is at work on them for longer than on all others, and most
# need nothing that only this host has; TESTS=attacks:: has them run all the same.
chosen() {
    if [ -n "$TESTS" ] || [ "$(systemd-detect-virt)" = kvm ]; then
        # shellcheck disable=SC2086 # several words
        run --test-threads=2 $TESTS
        return
    fi
    echo "# skipped: most of attacks::, as the processor is emulated; make test runs them, and TESTS=attacks:: here" >&3
    run --test-threads=2 --skip attacks:: || true
    run --test-threads=2 attacks::users attacks::links::t16 attacks::nodes::t13_i attacks::proc::t05_a_sysctl
}

# Tests look at which descriptors are open.
run() {
    TMPDIR=/var/tmp RUNTIME=/usr/local/bin/cofferdam /payload/tests "$@" 2>&1 3>&-
}

# A test that does not apply here is told as skipped. One that fails has another try after the others, alone: here
# processors are slow, and some tests measure time or win races. What a failure says comes before its result.
as_tap() {
    { set +x; } 2>/dev/null
    local line number=0 test failed=()
    while IFS= read -r line; do
        test=${line#test }
        case $line in
            test\ *' ... ok') number=$((number + 1)) && echo "ok $number - cli: ${test% ... ok}" ;;
            test\ *' ... ignored, '*)
                number=$((number + 1)) && echo "ok $number - cli: ${test%% ... ignored, *} # SKIP ${test#* ... ignored, }"
                ;;
            test\ *' ... FAILED') failed+=("${test% ... FAILED}") ;;
            *) echo "# $line" ;;
        esac
    done
    for test in "${failed[@]}"; do
        number=$((number + 1))
        if run --exact "$test" | sed 's/^/# /'; then
            echo "ok $number - cli: $test"
        else
            echo "not ok $number - cli: $test"
        fi
    done
    echo "1..$number"
}
