# shellcheck shell=bash
# podman as root: what a container is told, how it is limited, how it ends; pods, volumes, a container that boots.

setup() {
    podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.CgroupManager}}' | grep -x "cofferdam $DRIVER"
    tar -C "$busybox" -c . | podman import -q - busybox
}

# Runs after a test that has failed.
clean_up() {
    podman pod rm -fa -t 0
    podman rm -fa -t 0
}

run() {
    podman run --rm --network none "$@"
}

# A container that lives until its test ends; its name is on stdout.
living() {
    podman run -d --network none "$@" busybox sleep 600
}

gone() {
    podman rm -f -t 0 "$@"
    no_scopes 'libpod-[0-9a-f][0-9a-f]*'
}

test_run() {
    same 'hello 1' "$(run busybox sh -c 'echo hello $$')"
    same 'from stdin' "$(echo from stdin | run -i busybox cat)"
    same box "$(run --hostname box busybox hostname)"
    same /tmp "$(run -w /tmp busybox pwd)"
    same v "$(run -e K=v busybox sh -c 'echo $K')"
}

test_exit_codes() {
    ends_with 7 run busybox sh -c 'exit 7'
    ends_with 125 run --no-such-flag busybox true
    tells 126 'OCI permission denied' run busybox /etc/passwd
    ends_with 126 run busybox /etc
    tells 127 'attempted to invoke a command that was not found' run busybox no-such-program
}

test_terminal() {
    has "$(script -qec 'podman run --rm --network none -it busybox sh -c "tty; stty size"' /dev/null)" /dev/pts/0
}

test_user_and_groups() {
    same 'uid=1234(ann) gid=1234(ann) groups=1234(ann),4321(extra)' "$(run -u ann busybox id)"
    same '5 6 7' "$(run -u 5:6 --group-add 7 busybox sh -c 'echo $(id -u) $(id -G)')"
}

test_groups_of_the_caller_are_kept() {
    has " $(setpriv --groups 0,4242 podman run --rm --network none --group-add keep-groups busybox id -G) " ' 4242 '
}

test_exec() {
    local box
    box=$(living)
    same 'in it' "$(podman exec "$box" echo in it)"
    same '1234 /tmp v' "$(podman exec -u ann -w /tmp -e K=v "$box" sh -c 'echo $(id -u) $PWD $K')"
    same back "$(echo back | podman exec -i "$box" cat)"
    ends_with 3 podman exec "$box" sh -c 'exit 3'
    ends_with 126 podman exec "$box" /etc/passwd
    ends_with 127 podman exec "$box" no-such-program
    has "$(script -qec "podman exec -it $box tty" /dev/null)" /dev/pts/
    podman exec -d "$box" touch /tmp/detached
    within 10 podman exec "$box" test -e /tmp/detached
    gone "$box"
}

test_limits_are_set() {
    local box
    box=$(living --memory 64m --memory-reservation 32m --pids-limit 20 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 1)
    local cgroup
    cgroup=/sys/fs/cgroup$(podman inspect --format '{{.State.CgroupPath}}' "$box")
    same $((64 << 20)) "$(cat "$cgroup/memory.max")"
    same $((32 << 20)) "$(cat "$cgroup/memory.low")"
    same 20 "$(cat "$cgroup/pids.max")"
    same '50000 100000' "$(cat "$cgroup/cpu.max")"
    same 1 "$(cat "$cgroup/cpuset.cpus")"
    podman update --memory 96m --pids-limit 30 "$box"
    same $((96 << 20)) "$(cat "$cgroup/memory.max")"
    same 30 "$(cat "$cgroup/pids.max")"
    gone "$box"
    [ ! -e "$cgroup" ]
}

test_limits_hold() {
    ends_with 137 run --memory 32m --memory-swap 32m busybox dd if=/dev/zero of=/dev/null bs=200M count=1
    has "$(run --pids-limit 5 busybox sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 3 & done' 2>&1 || true)" 'fork'
}

test_privileges() {
    same 0000000000000000 "$(run --cap-drop all busybox sh -c 'grep CapEff /proc/self/status | cut -f2')"
    same 0000000000003000 "$(run --cap-drop all --cap-add net_admin,net_raw busybox sh -c 'grep CapEff /proc/self/status | cut -f2')"
    same 1 "$(run --security-opt no-new-privileges busybox sh -c 'grep NoNewPrivs /proc/self/status | cut -f2')"
    same 2 "$(run busybox sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
    same 0 "$(run --security-opt seccomp=unconfined busybox sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
    run --privileged busybox mount -t tmpfs t /tmp
    run busybox sh -c '! mount -t tmpfs t /tmp'
}

test_files() {
    ends_with 1 run --read-only busybox touch /x
    run --read-only --tmpfs /scratch:size=1m busybox sh -c 'touch /scratch/x && ! dd if=/dev/zero of=/scratch/y bs=1M count=2'
    same '100 200' "$(run --ulimit nofile=100:200 busybox sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)')"
    same 9 "$(run --sysctl net.ipv4.conf.all.tag=9 busybox cat /proc/sys/net/ipv4/conf/all/tag)"
    run --device /dev/fuse busybox test -c /dev/fuse
    run -v /srv:/host:ro busybox sh -c 'test -d /host/busybox && ! touch /host/x'
}

test_volumes() {
    local dir
    dir=$(mktemp -d)
    run -v "$dir:/data:U" -u ann busybox touch /data/mine
    same 1234 "$(stat -c %u "$dir/mine")"
    podman volume create things
    run -v things:/data busybox sh -c 'echo kept >/data/x'
    same kept "$(run -v things:/data busybox cat /data/x)"
    podman volume rm things
}

test_user_namespaces() {
    lacks "$(run --userns=auto busybox cat /proc/self/uid_map)" 4294967295
    local dir
    dir=$(mktemp -d)
    chmod 755 "$dir"
    run --userns=auto -v "$dir:/data:idmap" busybox touch /data/mine
    same 0 "$(stat -c %u "$dir/mine")"
    has "$(run --uidmap 0:200000:1000 --gidmap 0:200000:1000 busybox cat /proc/self/uid_map)" 200000
}

test_secrets() {
    printf hush | podman secret create word -
    same hush "$(run --secret word busybox cat /run/secrets/word)"
    same hush "$(run --secret word,type=env,target=WORD busybox sh -c 'echo $WORD')"
    podman secret rm word
}

test_health() {
    has_health podman
}

test_pods() {
    podman pod create --name pod --network none --share ipc,net,uts --hostname podded
    local box
    box=$(podman run -d --pod pod busybox sleep 600)
    same podded "$(podman exec "$box" hostname)"
    same podded "$(podman run --rm --pod pod busybox hostname)"
    podman pod pause pod
    same paused "$(podman inspect --format '{{.State.Status}}' "$box")"
    podman pod unpause pod
    podman pod rm -f -t 0 pod
}

test_kube_play() {
    local file
    file=$(mktemp)
    cat >"$file" <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: kube}
spec:
  hostNetwork: true
  containers:
  - name: box
    image: localhost/busybox
    imagePullPolicy: Never
    command: [sh, -c, "echo played; sleep 600"]
    resources: {limits: {memory: 64Mi, cpu: "0.5"}}
    securityContext: {runAsUser: 1234, readOnlyRootFilesystem: true}
YAML
    podman kube play "$file"
    within 10 shows played podman logs kube-box
    same 1234 "$(podman exec kube-box id -u)"
    ends_with 1 podman exec kube-box touch /x
    same $((64 << 20)) "$(podman exec kube-box cat /sys/fs/cgroup/memory.max)"
    same '50000 100000' "$(podman exec kube-box cat /sys/fs/cgroup/cpu.max)"
    podman kube down "$file"
}

test_a_container_that_boots() {
    podman run -d --name boots --network none --systemd=always --rootfs /srv/debian:O /lib/systemd/systemd
    within 90 shows 'running|degraded' podman exec boots systemctl is-system-running
    has "$(podman exec boots systemctl show -P ActiveState systemd-journald)" active
    podman stop -t 30 boots
    lacks "$(podman inspect --format '{{.State.ExitCode}}' boots)" 137
    gone boots
}

test_pause_stop_kill() {
    local box
    box=$(living)
    podman pause "$box"
    same paused "$(podman inspect --format '{{.State.Status}}' "$box")"
    podman unpause "$box"
    podman kill -s KILL "$box"
    within 10 shows exited podman inspect --format '{{.State.Status}}' "$box"
    podman start "$box"
    same running "$(podman inspect --format '{{.State.Status}}' "$box")"
    podman stop -t 1 "$box"
    same 137 "$(podman inspect --format '{{.State.ExitCode}}' "$box")"
    gone "$box"
}

test_logs_top_stats_events() {
    local box
    box=$(podman run -d --network none busybox sh -c 'echo logged; sleep 600')
    within 10 shows logged podman logs "$box"
    has "$(podman top "$box" comm)" sleep
    has "$(podman top "$box" -o args)" 'sleep 600'
    same 1 "$(podman stats --no-stream --format '{{.PIDs}}' "$box")"
    has "$(podman events --stream=false --filter "container=$box" --filter event=start)" "${box:0:12}"
    gone "$box"
}

test_init_and_restart() {
    has "$(run --init busybox ps -o args)" '/run/podman-init'
    local box
    box=$(podman run -d --network none --restart on-failure:2 busybox sh -c 'exit 9')
    within 30 shows '2 exited' podman inspect --format '{{.RestartCount}} {{.State.Status}}' "$box"
    gone "$box"
}

test_commit_cp_diff() {
    local box
    box=$(living)
    podman exec "$box" sh -c 'echo new >/etc/new'
    has "$(podman diff "$box")" 'A /etc/new'
    podman cp "$box:/etc/new" /tmp/copied
    same new "$(cat /tmp/copied)"
    gone "$box"
}

test_checkpoint_is_refused_clearly() {
    local box answer
    box=$(living)
    if answer=$(podman container checkpoint "$box" 2>&1); then
        skip "this runtime has checkpoints"
    fi
    has "$answer" checkpoint
    same running "$(podman inspect --format '{{.State.Status}}' "$box")"
    gone "$box"
}

# What cannot start is told with the reason of the runtime, and leaves nothing.
test_faults_reach_the_user() {
    has "$(run busybox no-such-program 2>&1 || true)" 'no-such-program'
    has "$(run --security-opt apparmor=no-such-profile busybox true 2>&1 || true)" no-such-profile
    same '' "$(cofferdam list -q)"
}

# Some of it podman refuses by itself, with 125; the rest reaches the runtime, whose errors are 126.
test_bad_input_is_refused() {
    bad_seccomp_profiles
    tells 125 'seccomp profile' run --security-opt seccomp=/tmp/cut.json busybox true
    tells 126 SCMP_ACT_NONE run --security-opt seccomp=/tmp/wrong.json busybox true
    tells 126 500 run --cpuset-cpus 500 busybox true
    tells 126 'peration not permitted' run --ulimit nofile=2000000000:2000000000 busybox true
    tells 125 /no/such run -v /no/such:/x busybox true
    same '' "$(cofferdam list -q)"
}

test_stats_of_a_container_without_limits() {
    local box
    box=$(podman run -d --network none --pids-limit 0 busybox sh -c 'while :; do :; done')
    within 30 counted "$box"
    gone "$box"
}

# counted CONTAINER: podman tells what it uses of each.
counted() {
    local stats
    stats=$(podman stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' "$1")
    grep -qE '^[0-9]*[1-9][0-9.]*% [1-9][0-9.]*[kM]B / [0-9.]+[MG]B 1$' <<<"$stats"
}

# sd_notify(3) through the runtime: the unit is active as soon as the container says so.
test_a_unit_is_active_when_the_container_is_ready() {
    local script='until [ -e /dev/shm/go ]; do sleep 0.1; done; /usr/bin/systemd-notify --ready --no-block; exec sleep 600'
    systemd-run --quiet --collect --no-block --unit notified -p Type=notify -p NotifyAccess=all podman run --rm --name box --sdnotify container \
        --network none -v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro busybox sh -c "$script"
    within 60 shows activating systemctl show -P ActiveState notified
    within 60 podman exec box touch /dev/shm/go
    within 60 shows active systemctl show -P ActiveState notified
    podman rm -f -t 0 box
    within 20 shows inactive systemctl show -P ActiveState notified
}
