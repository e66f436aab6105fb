# shellcheck shell=bash
# containerd through ctr: the shim of runc.v2 without Docker in between.

setup() {
    systemctl start containerd
    within 30 ctr version
    docker_archive | ctr image import --all-platforms -
    ctr image ls -q | grep -x docker.io/local/busybox:latest
}

# Runs after a test that has failed.
clean_up() {
    ctr task ls -q | xargs -r ctr task rm -f
    ctr container ls -q | xargs -r ctr container rm
}

image=docker.io/local/busybox:latest

# The scope of the systemd driver takes its name from its cgroup, which ctr wants to be told.
ctr_run() {
    local flags=()
    [ "$DRIVER" = cgroupfs ] || flags=(--runc-systemd-cgroup --cgroup "system.slice:ctr:$RANDOM$RANDOM")
    ctr run --runc-binary /usr/local/bin/cofferdam "${flags[@]}" "$@"
}

# A container that lives until its test ends.
living() {
    ctr_run -d "$image" "$1" sleep 600
}

gone() {
    ctr task kill -s KILL "$1" || true
    within 10 shows "$1 .*STOPPED" ctr task ls
    ctr task rm "$1"
    ctr container rm "$1"
    no_scopes 'ctr-*'
}

test_run() {
    same 'hello 1' "$(ctr_run --rm "$image" one sh -c 'echo hello $$')"
    same 'v /tmp' "$(ctr_run --rm --env K=v --cwd /tmp "$image" two sh -c 'echo $K $PWD')"
    same 1234 "$(ctr_run --rm --user ann "$image" three id -u)"
    ends_with 7 ctr_run --rm "$image" four sh -c 'exit 7'
    same '' "$(ctr container ls -q)"
}

test_exec() {
    living box
    same 'in it' "$(ctr task exec --exec-id a box echo in it)"
    ends_with 3 ctr task exec --exec-id b box sh -c 'exit 3'
    has "$(script -qec 'ctr task exec -t --exec-id c box tty' /dev/null)" /dev/pts/
    gone box
}

test_pause() {
    living box
    ctr task pause box
    has "$(ctr task ls | grep box)" PAUSED
    ctr task resume box
    has "$(ctr task ls | grep box)" RUNNING
    gone box
}

test_metrics_and_processes() {
    living box
    has "$(ctr task metrics box)" pids.current
    has "$(ctr task ps box)" PID
    gone box
}

test_limits() {
    ctr_run -d --memory-limit 67108864 --cpus 0.5 "$image" box sleep 600
    local cgroup
    cgroup=/sys/fs/cgroup$(sed 's/^0:://' "/proc/$(ctr task ls | awk '$1 == "box" { print $2 }')/cgroup")
    same 67108864 "$(cat "$cgroup/memory.max")"
    same '50000 100000' "$(cat "$cgroup/cpu.max")"
    gone box
    [ ! -e "$cgroup" ]
}

test_read_only_and_privileged() {
    ends_with 1 ctr_run --rm --read-only "$image" one touch /x
    ctr_run --rm --privileged "$image" two mount -t tmpfs t /tmp
    ctr_run --rm "$image" three sh -c '! mount -t tmpfs t /tmp'
}

test_checkpoint_is_refused_clearly() {
    local answer
    living box
    if answer=$(ctr task checkpoint box 2>&1); then
        gone box
        skip 'this runtime has checkpoints'
    fi
    has "$answer" checkpoint
    has "$(ctr task ls | grep box)" RUNNING
    gone box
}

# refused TEXT ARGUMENT..: ctr ends with its only status for errors, tells this, and no container is left, of it or the runtime.
refused() {
    tells 1 "$1" ctr_run --rm "${@:2}"
    ctr container rm box || true
    same '' "$(ctr task ls -q)"
    same '' "$(cofferdam --root /run/containerd/runc/default list -q)"
}

# Some of it ctr refuses by itself; the rest reaches the runtime, whose words ctr hands on.
test_bad_input_is_refused() {
    bad_seccomp_profiles
    refused 'executable file' "$image" box no-such-program
    refused 'permission denied' "$image" box /etc/passwd
    refused 'seccomp profile' --seccomp --seccomp-profile /tmp/cut.json "$image" box true
    refused SCMP_ACT_NONE --seccomp --seccomp-profile /tmp/wrong.json "$image" box true
    refused cpu.max --cpu-quota 500 --cpu-period 100000 "$image" box true
    refused /no/such --mount type=bind,src=/no/such,dst=/x,options=rbind "$image" box true
    no_scopes 'ctr-*'
}
