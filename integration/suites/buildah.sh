# shellcheck shell=bash
# buildah with the isolation that calls the runtime: RUN lines of a build, and run in a working container.

setup() {
    buildah --version
    from_scratch base
    buildah commit -q base localhost/busybox
}

# A working container with the tree of busybox.
from_scratch() {
    buildah from --name "$1" scratch
    buildah copy -q "$1" "$busybox" /
}

run() {
    buildah run --isolation oci --runtime /usr/local/bin/cofferdam --network none "$@"
}

build() {
    buildah build --isolation oci --runtime /usr/local/bin/cofferdam --network none --pull=never "$@"
}

test_run() {
    same 'in it' "$(run base -- echo in it)"
    same '1234 v' "$(run --user ann --env K=v base -- sh -c 'echo $(id -u) $K')"
    same /tmp "$(run --workingdir /tmp base -- pwd)"
    has "$(script -qec 'buildah run --isolation oci --runtime /usr/local/bin/cofferdam --network none -t base -- tty' /dev/null)" /dev/pts/
}

test_exit_codes() {
    ends_with 7 run base -- sh -c 'exit 7'
    has "$(run base -- no-such-program 2>&1 || true)" no-such-program
}

test_build() {
    local dir
    dir=$(mktemp -d)
    cat >"$dir/Containerfile" <<'FILE'
FROM localhost/busybox
RUN echo built >/built
USER ann
WORKDIR /home
RUN id -u >/tmp/uid
FILE
    build -t built "$dir"
    buildah from --name check localhost/built
    same built "$(run check -- cat /built)"
    same 1234 "$(run check -- cat /tmp/uid)"
}

test_a_failing_line_ends_the_build() {
    local dir
    dir=$(mktemp -d)
    printf 'FROM localhost/busybox\nRUN exit 5\n' >"$dir/Containerfile"
    ends_with 5 build "$dir"
    same '' "$(cofferdam list -q)"
}

test_capabilities_and_volumes() {
    lacks "$(run --cap-drop all base -- sh -c 'grep CapEff /proc/self/status')" 1
    run -v /srv:/host:ro base -- test -d /host/busybox
    ends_with 1 run -v /srv:/host:ro base -- touch /host/x
}
