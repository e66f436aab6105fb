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
    TMPDIR=/var/tmp RUNTIME=/usr/local/bin/cofferdam /payload/tests --test-threads=2 2>&1 | as_tap >&3
}

# A test that does not apply here says so and passes. Failures are explained at the end.
as_tap() {
    { set +x; } 2>/dev/null
    local line number=0 test
    while IFS= read -r line; do
        test=${line#test }
        case $line in
            test\ *' ... ok') number=$((number + 1)) && echo "ok $number - cli: ${test% ... ok}" ;;
            test\ *' ... FAILED') number=$((number + 1)) && echo "not ok $number - cli: ${test% ... FAILED}" ;;
            *) echo "# $line" ;;
        esac
    done
    echo "1..$number"
}
