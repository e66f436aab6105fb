# shellcheck shell=bash
# Docker: the daemon, its containerd and their shim, with cofferdam as the only runtime.

setup() {
    mkdir -p /etc/docker
    cat >/etc/docker/daemon.json <<JSON
{"runtimes": {"cofferdam": {"path": "/usr/local/bin/cofferdam"}}, "default-runtime": "cofferdam",
 "exec-opts": ["native.cgroupdriver=$DRIVER"], "storage-driver": "overlay2", "iptables": false, "bridge": "none"}
JSON
    systemctl start docker
    same "cofferdam $DRIVER 2" "$(docker info --format '{{.DefaultRuntime}} {{.CgroupDriver}} {{.CgroupVersion}}')"
    tar -C "$busybox" -c . | docker import - busybox
}

# Runs after a test that has failed.
clean_up() {
    docker ps -aq | xargs -r docker rm -f
}

run() {
    docker run --rm --network none "$@"
}

living() {
    docker run -d --network none "$@" busybox sleep 600
}

gone() {
    docker rm -f "$@"
    no_scopes 'docker-*'
}

cgroup_of() {
    echo "/sys/fs/cgroup$(sed 's/^0:://' "/proc/$(docker inspect --format '{{.State.Pid}}' "$1")/cgroup")"
}

test_run() {
    same 'hello 1' "$(run busybox sh -c 'echo hello $$')"
    same 'from stdin' "$(echo from stdin | run -i busybox cat)"
    same 'box /tmp v' "$(run --hostname box -w /tmp -e K=v busybox sh -c 'echo $(hostname) $PWD $K')"
    same 'uid=1234(ann) gid=1234(ann) groups=1234(ann),4321(extra)' "$(run -u ann busybox id)"
    has "$(script -qec 'docker run --rm --network none -it busybox tty' /dev/null)" /dev/pts/0
}

test_exit_codes() {
    ends_with 7 run busybox sh -c 'exit 7'
    ends_with 125 run --no-such-flag busybox true
    tells 126 'permission denied' run busybox /etc/passwd
    tells 127 'executable file not found' run busybox no-such-program
}

test_limits_are_set() {
    local box cgroup
    box=$(living --cpus 0.5 --cpu-shares 512 --cpuset-cpus 1 --memory 64m --memory-reservation 32m --memory-swap 96m \
        --pids-limit 20)
    cgroup=$(cgroup_of "$box")
    same '50000 100000' "$(cat "$cgroup/cpu.max")"
    same 1 "$(cat "$cgroup/cpuset.cpus")"
    same $((64 << 20)) "$(cat "$cgroup/memory.max")"
    same $((32 << 20)) "$(cat "$cgroup/memory.low")"
    same $((32 << 20)) "$(cat "$cgroup/memory.swap.max")"
    same 20 "$(cat "$cgroup/pids.max")"
    gone "$box"
    [ ! -e "$cgroup" ]
}

# Asked of the daemon: docker run of this version sends it no --device-read-bps.
test_limits_of_devices() {
    python3 - <<'PYTHON'
import http.client, json, socket
docker = http.client.HTTPConnection("docker")
docker.sock = socket.socket(socket.AF_UNIX)
docker.sock.connect("/run/docker.sock")
limits = {"BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 1048576}],
          "BlkioDeviceWriteIOps": [{"Path": "/dev/vda", "Rate": 100}]}
wanted = {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none", **limits}}
docker.request("POST", "/containers/create?name=slow", json.dumps(wanted), {"Content-Type": "application/json"})
answer = docker.getresponse()
assert answer.status == 201, answer.read()
PYTHON
    docker start slow
    same "$(cat /sys/block/vda/dev) rbps=1048576 wbps=max riops=max wiops=100" "$(cat "$(cgroup_of slow)/io.max")"
    gone slow
}

test_limits_change() {
    local box cgroup
    box=$(living --memory 64m --memory-swap 64m --pids-limit 20)
    cgroup=$(cgroup_of "$box")
    docker update --memory 96m --memory-swap 96m --pids-limit 30 --cpus 0.25 "$box"
    same $((96 << 20)) "$(cat "$cgroup/memory.max")"
    same 30 "$(cat "$cgroup/pids.max")"
    same '25000 100000' "$(cat "$cgroup/cpu.max")"
    gone "$box"
}

test_out_of_memory_is_told() {
    local box
    box=$(docker run -d --network none --memory 32m --memory-swap 32m busybox dd if=/dev/zero of=/dev/null bs=200M count=1)
    same 137 "$(docker wait "$box")"
    same true "$(docker inspect --format '{{.State.OOMKilled}}' "$box")"
    gone "$box"
}

test_privileges() {
    same 0000000000003000 "$(run --cap-drop all --cap-add net_admin --cap-add net_raw busybox sh -c 'grep CapEff /proc/self/status | cut -f2')"
    same 1 "$(run --security-opt no-new-privileges busybox sh -c 'grep NoNewPrivs /proc/self/status | cut -f2')"
    same 2 "$(run busybox sh -c 'grep Seccomp: /proc/self/status | cut -f2')"
    echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}' >/tmp/no-mkdir.json
    has "$(run --security-opt seccomp=/tmp/no-mkdir.json busybox mkdir /x 2>&1 || true)" 'Operation not permitted'
    run --privileged busybox mount -t tmpfs t /tmp
    run busybox sh -c '! mount -t tmpfs t /tmp'
}

test_apparmor() {
    [ -e /sys/module/apparmor/parameters/enabled ] || skip 'no AppArmor in this kernel'
    has "$(run busybox cat /proc/self/attr/current)" docker-default
}

test_files() {
    ends_with 1 run --read-only busybox touch /x
    run --read-only --tmpfs /scratch busybox touch /scratch/x
    run -v /srv:/host:ro busybox sh -c 'test -d /host/busybox && ! touch /host/x'
    run --mount type=bind,source=/srv,target=/host,readonly,bind-propagation=rprivate,bind-recursive=readonly busybox test -d /host/busybox
    docker volume create things
    run -v things:/data busybox touch /data/x
    run -v things:/data busybox test -e /data/x
    docker volume rm things
    run --device /dev/fuse busybox test -c /dev/fuse
    same '100 200' "$(run --ulimit nofile=100:200 busybox sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)')"
    same 9 "$(run --sysctl net.ipv4.conf.all.tag=9 busybox cat /proc/sys/net/ipv4/conf/all/tag)"
    has "$(run --shm-size 1m busybox df /dev/shm)" 1024
}

test_exec() {
    local box
    box=$(living)
    same 'in it' "$(docker exec "$box" echo in it)"
    same '1234 /tmp v' "$(docker exec -u ann -w /tmp -e K=v "$box" sh -c 'echo $(id -u) $PWD $K')"
    same back "$(echo back | docker exec -i "$box" cat)"
    ends_with 3 docker exec "$box" sh -c 'exit 3'
    ends_with 126 docker exec "$box" /etc/passwd
    ends_with 126 docker exec "$box" no-such-program
    has "$(script -qec "docker exec -it $box tty" /dev/null)" /dev/pts/
    gone "$box"
}

test_init_and_restart() {
    has "$(run --init busybox ps -o args)" docker-init
    local box
    box=$(docker run -d --network none --restart on-failure:2 busybox sh -c 'exit 9')
    within 60 shows '2 exited' docker inspect --format '{{.RestartCount}} {{.State.Status}}' "$box"
    gone "$box"
}

test_pause_kill_stop() {
    local box
    box=$(living)
    docker pause "$box"
    same paused "$(docker inspect --format '{{.State.Status}}' "$box")"
    docker unpause "$box"
    docker kill -s KILL "$box"
    same 137 "$(docker wait "$box")"
    docker start "$box"
    docker stop -t 1 "$box"
    same 137 "$(docker inspect --format '{{.State.ExitCode}}' "$box")"
    gone "$box"
}

test_logs_top_stats_events() {
    local box
    box=$(docker run -d --network none busybox sh -c 'echo logged; sleep 600')
    within 10 shows logged docker logs "$box"
    has "$(docker top "$box")" 'sleep 600'
    has "$(docker top "$box" -o pid,comm)" sleep
    same 1 "$(docker stats --no-stream --format '{{.PIDs}}' "$box")"
    has "$(docker events --since 1h --until 0s --filter "container=$box")" 'container start'
    gone "$box"
}

test_joined_namespaces() {
    local box
    box=$(living --hostname joined --ipc shareable)
    same joined "$(docker run --rm --network "container:$box" busybox hostname)"
    has "$(run --pid "container:$box" busybox ps -o args)" 'sleep 600'
    run --ipc "container:$box" busybox true
    gone "$box"
}

test_faults_reach_the_user() {
    has "$(run busybox no-such-program 2>&1 || true)" 'executable file not found'
    has "$(run -v /etc/passwd:/etc busybox true 2>&1 || true)" /etc/passwd
}

# Some of it the daemon refuses by itself, the rest reaches the runtime.
test_bad_input_is_refused() {
    bad_seccomp_profiles
    tells 125 'seccomp profile' run --security-opt seccomp=/tmp/cut.json busybox true
    tells 125 SCMP_ACT_NONE run --security-opt seccomp=/tmp/wrong.json busybox true
    tells 125 500 run --cpuset-cpus 500 busybox true
    tells 125 'peration not permitted' run --ulimit nofile=2000000000:2000000000 busybox true
    tells 125 /no/such run --mount type=bind,source=/no/such,target=/x busybox true
    no_records
}

# Neither in the directory that dockerd has the runtime use for its namespace of containerd, nor in another one.
no_records() {
    local root roots=(/run/docker/runtime-*/*)
    [ -d "${roots[0]}" ] || fault "no records were ever kept in ${roots[*]}"
    for root in "${roots[@]}"; do
        within 10 prints_nothing cofferdam --root "$root" list -q
    done
}

test_build() {
    local dir
    dir=$(mktemp -d)
    printf 'FROM busybox\nRUN echo built >/built && id -u >>/built\n' >"$dir/Dockerfile"
    DOCKER_BUILDKIT=0 docker build -q --network none -t built "$dir" || DOCKER_BUILDKIT=0 docker build --network none -t built "$dir"
    has "$(run built cat /built)" built
}

test_stats_of_a_container_without_limits() {
    local box
    box=$(docker run -d --network none busybox sh -c 'while :; do :; done')
    within 30 counted "$box"
    gone "$box"
}

# counted CONTAINER: docker tells what it uses of each.
counted() {
    local stats
    stats=$(docker stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' "$1")
    grep -qE '^[0-9]*[1-9][0-9.]*% [1-9][0-9.]*[KM]iB / [0-9.]+[MG]iB 1$' <<<"$stats"
}
