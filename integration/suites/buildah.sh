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
}

# with FLAG.. -- COMMAND..: run in a working container that is made with these flags.
with() {
    local box status=0
    box=$(buildah from --pull=never "${@:1:$#-2}" localhost/busybox) || return
    run "$box" -- "${@: -1}" || status=$?
    buildah rm "$box"
    return $status
}

# Some of it buildah refuses by itself, with 125; the rest reaches the runtime, whose errors are 1.
test_bad_input_is_refused() {
    bad_seccomp_profiles
    tells 1 'executable file' run base -- no-such-program
    tells 1 'ermission denied' run base -- /etc/passwd
    tells 125 'seccomp profile' with --security-opt seccomp=/tmp/cut.json -- true
    tells 1 SCMP_ACT_NONE with --security-opt seccomp=/tmp/wrong.json -- true
    tells 1 500 with --cpuset-cpus 500 -- true
    tells 1 'peration not permitted' with --ulimit nofile=2000000000:2000000000 -- true
    tells 125 /no/such run -v /no/such:/x base -- true
    same '' "$(cofferdam list -q)"
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
