# shellcheck shell=bash
# Limits that the kernel lacks or refuses, and payloads that fight against their cgroup: what wants all controllers and a
# machine of its own. Without an engine.

# Runs after a test that has failed.
clean_up() {
    abort_fuse
    cofferdam list -q | xargs -r -n 1 cofferdam delete --force
}

own=/sys/fs/cgroup/by-hand

# living FILTER [COMMAND]: a container with this cgroup, which sleeps.
living() {
    cofferdam run --bundle "$(bundle "${2-sleep 600}" ".linux.cgroupsPath = \"/by-hand/box\" | $1")" --detach box
}

gone() {
    cofferdam delete --force box
    same '' "$(cofferdam list -q)"
    [ ! -e "$own" ]
}

is_empty() {
    grep -qx 'populated 0' "$own/box/cgroup.events"
}

# took MOST COMMAND..: the command ends within so many milliseconds; its status is told.
took() {
    local start=$EPOCHREALTIME end status=0
    "${@:2}" || status=$?
    end=$EPOCHREALTIME
    [ $(((${end/./} - ${start/./}) / 1000)) -lt "$1" ] || fault "took $(((${end/./} - ${start/./}) / 1000)) ms: ${*:2}"
    return $status
}

# below_without CONTROLLER COMMAND..: in a cgroup namespace whose own cgroup has all controllers but this.
below_without() {
    local top name names status=0
    read -ra names </sys/fs/cgroup/cgroup.controllers
    top=$(mktemp -d /sys/fs/cgroup/short.XXXXXX)
    for name in "${names[@]}"; do
        echo "+$name" >/sys/fs/cgroup/cgroup.subtree_control
        echo "$([ "$name" = "$1" ] && echo - || echo +)$name" >"$top/cgroup.subtree_control"
    done
    mkdir -p "$top/inner"
    (
        echo "$BASHPID" >"$top/inner/cgroup.procs"
        # shellcheck disable=SC2016 # for the shell that is called
        exec unshare --cgroup --mount --propagation private sh -ec 'mount -t cgroup2 none /sys/fs/cgroup
            mkdir -p /sys/fs/cgroup/caller
            echo $$ >/sys/fs/cgroup/caller/cgroup.procs
            exec "$@"' - "${@:2}"
    ) || status=$?
    find "$top" -depth -type d -exec rmdir {} +
    return $status
}

# What wants each controller, by field.
limits='{
    "memory": {
        "memory.limit": {"memory": {"limit": 67108864}},
        "unified[\"memory.high\"]": {"unified": {"memory.high": "5000000"}}},
    "pids": {"pids.limit": {"pids": {"limit": 20}}},
    "cpu": {
        "cpu.quota": {"cpu": {"quota": 50000, "period": 100000}},
        "cpu.shares": {"cpu": {"shares": 512}}},
    "io": {"blockIO.throttleReadBpsDevice[0]": {
        "blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}]}}},
    "cpuset": {"cpu.cpus": {"cpu": {"cpus": "0"}}},
    "hugetlb": {"hugepageLimits[0].limit": {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}}}'

test_a_controller_that_is_not_handed_down() {
    local controller field dir
    for controller in $(jq -r 'keys[]' <<<"$limits"); do
        for field in $(jq -r ".$controller | keys[]" <<<"$limits"); do
            dir=$(bundle 'echo limited' ".linux.resources = ($limits).${controller}[$(jq -R . <<<"$field")]")
            same limited "$(cofferdam run --bundle "$dir" box)"
            tells 1 "linux.resources.$field: controller $controller is not available in /sys/fs/cgroup: the cgroup above" \
                below_without "$controller" cofferdam run --bundle "$dir" box
        done
        dir=$(bundle 'echo without' .)
        same without "$(below_without "$controller" cofferdam run --bundle "$dir" box)"
    done
    same '' "$(find /sys/fs/cgroup -maxdepth 1 -name 'short.*')"
    same '' "$(cofferdam list -q)"
}

# refused FILTER TEXT..: no such container is made, and each text is told, in one line.
refused() {
    local dir answer text
    dir=$(bundle true ".linux.cgroupsPath = \"/by-hand/box\" | .linux.resources = $1")
    answer=$(cofferdam run --bundle "$dir" box 2>&1) && fault "not refused: $1"
    for text in "${@:2}"; do
        has "$answer" "$text"
    done
    same 1 "$(wc -l <<<"$answer")"
    same '' "$(cofferdam list -q)"
    [ ! -e "$own" ]
}

test_the_kernel_refuses_a_limit() {
    refused '{blockIO: {throttleReadBpsDevice: [{major: 999, minor: 0, rate: 5}]}}' \
        'blockIO.throttleReadBpsDevice[0]: write "999:0 rbps=5" to io.max: No such device'
    refused '{cpu: {cpus: "500"}}' 'linux.resources.cpu.cpus: write "500" to cpuset.cpus: ' 'not representable'
    refused '{cpu: {quota: 500, period: 100000}}' 'linux.resources.cpu' '"500 100000" to cpu.max' 'quotas from 1000'
    refused '{unified: {"cpu.weight": "10001"}}' 'linux.resources.unified["cpu.weight"]: write "10001"' 'not representable'
    refused '{unified: {"memory.max": "many"}}' 'linux.resources.unified["memory.max"]: write "many"' 'Invalid argument'
    refused '{unified: {"pids.max": "-5"}}' 'linux.resources.unified["pids.max"]: write "-5"' 'Invalid argument'
    refused '{unified: {"memory.nothing": "1"}}' 'linux.resources.unified["memory.nothing"]' 'which this kernel does not have'
    refused '{hugepageLimits: [{pageSize: "3MB", limit: 0}]}' 'hugepageLimits[0].pageSize: 3MB' 2MB
}

# They are not limits, and a container cannot begin in such a cgroup.
test_a_cgroup_that_takes_no_processes() {
    refused '{unified: {"cgroup.subtree_control": "+pids"}}' 'unified["cgroup.subtree_control"]: write "+pids"' 'No such file'
    refused '{memory: {limit: 67108864}, unified: {"cgroup.subtree_control": "+memory"}}' 'busy'
    refused '{unified: {"cgroup.type": "threaded"}}' 'unified["cgroup.type"]: acts on processes, no resource'
}

# Whether the program gets as far as to run; if it does not, that is told.
test_little_memory() {
    local limit dir answer smallest=none
    for limit in 4096 2048 1024 512 256; do
        dir=$(bundle 'echo in it' ".linux.resources.memory = {limit: ($limit * 1024), swap: ($limit * 1024)}")
        if answer=$(cofferdam run --bundle "$dir" box 2>&1); then
            same 'in it' "$answer"
            smallest=$limit
        else
            has "$answer" OOM-killed
            has "$answer" "is $((limit * 1024)) bytes"
        fi
        same '' "$(cofferdam list -q)"
    done
    echo "# smallest memory.max in which a shell runs: $smallest KiB" >&3
    [ "$smallest" -le 1024 ]
}

test_few_processes() {
    local most
    for most in 1 2 3; do
        living ".linux.resources.pids = {limit: $most}"
        same "$most" "$(cat $own/box/pids.max)"
        same 1 "$(cat $own/box/pids.current)"
        # One that joins is made by another, which is there for a moment.
        if [ "$most" -lt 3 ]; then
            tells 255 "pids.max of /sys/fs/cgroup/by-hand/box is $most" took 10000 cofferdam exec box true
        else
            same 'in it' "$(took 10000 cofferdam exec box echo in it)"
        fi
        gone
    done
    has "$(cofferdam run --bundle "$(bundle 'sleep 1 & echo and so on' '.linux.resources.pids = {limit: 1}')" box 2>&1 || true)" fork
}

writable='.mounts |= map(if .destination == "/sys/fs/cgroup" then .options -= ["ro"] else . end)'

test_a_tree_below_the_cgroup() {
    living "$writable" 'cd /sys/fs/cgroup
        deep=.
        for i in $(seq 50); do deep=$deep/n; mkdir $deep; done
        sleep 600 & echo $! >$deep/cgroup.procs
        mkdir leaves threads threads/one ice
        for i in $(seq 500); do mkdir leaves/$i; done
        echo threaded >threads/one/cgroup.type
        sleep 600 & echo $! >threads/cgroup.procs
        sleep 600 & echo $! >ice/cgroup.procs
        echo 1 >ice/cgroup.freeze
        mkdir done
        sleep 600'
    within 60 test -e $own/box/done
    same threaded "$(cat $own/box/threads/one/cgroup.type)"
    same 4 "$(cofferdam ps --format json box | jq length)"
    took 5000 gone
}

# A file system that answers for its root only, once it has begun. Who asks for more waits, and no signal ends that.
hung_fuse() {
    modprobe fuse
    mkdir -p /srv/hung
    mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections
    python3 - <<'PYTHON' &
import os, struct, subprocess
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "hung", "/srv/hung"], pass_fds=[device], check=True)
INIT, GETATTR = 26, 3
while True:
    request = os.read(device, 1 << 20)
    _, code, unique, node = struct.unpack_from("=IIQQ", request)
    if code == INIT:
        answer = struct.pack("=IIII", 7, 31, 0, 0) + bytes(48)
    elif code == GETATTR and node == 1:
        attributes = struct.pack("=QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 512, 0)
        answer = struct.pack("=QII", 1 << 20, 0, 0) + attributes
    else:
        continue
    os.write(device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
PYTHON
    within 20 mountpoint -q /srv/hung
}

abort_fuse() {
    local file
    for file in /sys/fs/fuse/connections/*/abort; do
        [ ! -e "$file" ] || echo 1 >"$file"
    done
    umount -l /srv/hung 2>/dev/null || true
}

# The number of the process that asks.
stuck_process() {
    local pid pids
    mapfile -t pids <$own/box/cgroup.procs
    for pid in "${pids[@]}"; do
        ! grep -qx ls "/proc/$pid/comm" || echo "$pid"
    done | grep .
}

test_a_process_that_cannot_be_killed() {
    hung_fuse
    living '.mounts += [{destination: "/tmp", source: "/srv/hung", options: ["bind"]}]' 'ls /tmp/what & sleep 600'
    local stuck
    within 20 stuck_process
    stuck=$(stuck_process)
    local status=0 answer start=$SECONDS
    answer=$(cofferdam delete --force box 2>&1) || status=$?
    [ $((SECONDS - start)) -le 15 ] || fault "delete took $((SECONDS - start)) s"
    same 1 "$status"
    has "$answer" "$stuck ls; delete again"
    same box "$(cofferdam list -q)"
    # It can end only after those in its pid namespace.
    same running "$(cofferdam state box | jq -r .status)"
    abort_fuse
    gone
}

# bomb FILTER: forks without end, up to the limit, and one signal ends it all.
bomb() {
    printf '%s\n' '#include <unistd.h>' '#include <signal.h>' 'int main() { signal(SIGTERM, SIG_IGN); for (;;) fork(); }' >/tmp/bomb.c
    [ -e /srv/bomb ] || gcc -static -o /srv/bomb /tmp/bomb.c
    living ".linux.resources.pids = {limit: 200} | .process.args = [\"/tmp/bomb\"]
        | .mounts += [{destination: \"/tmp/bomb\", source: \"/srv/bomb\", options: [\"bind\", \"ro\"]}] | $1"
    within 60 grep -qx 200 $own/box/pids.current
    took 10000 cofferdam kill box KILL
    within 10 is_empty
    took 10000 gone
    [ -z "$(pidof bomb)" ]
}

test_a_fork_bomb() {
    bomb .
    bomb '.linux.namespaces |= map(select(.type != "pid"))'
    bomb '.linux.uidMappings = [{containerID: 0, hostID: 1000000, size: 65536}] | .linux.gidMappings = .linux.uidMappings
        | .linux.namespaces += [{type: "user"}]'
}

# moved_away: the container's processes are elsewhere, as if by someone who means well, and its cgroup is gone.
moved_away() {
    local pid pids
    mkdir -p /sys/fs/cgroup/elsewhere
    mapfile -t pids <$own/box/cgroup.procs
    for pid in "${pids[@]}"; do
        echo "$pid" >/sys/fs/cgroup/elsewhere/cgroup.procs
    done
    rmdir $own/box
}

test_the_cgroup_is_removed() {
    local pid
    cofferdam create --bundle "$(bundle 'sleep 600' '.linux.cgroupsPath = "/by-hand/box"')" box
    pid=$(cofferdam state box | jq .pid)
    moved_away
    same created "$(cofferdam state box | jq -r .status)"
    cofferdam start box
    same running "$(cofferdam state box | jq -r .status)"
    cofferdam list
    # It works, or says why not.
    cofferdam exec box true || [ $? = 255 ]
    tells 1 cgroup cofferdam pause box
    cofferdam kill box KILL
    within 10 shows '"stopped"' sh -c 'cofferdam state box | jq .status'
    gone
    [ ! -e "/proc/$pid" ]
    living .
    pid=$(cofferdam state box | jq .pid)
    moved_away
    gone
    within 5 test ! -e "/proc/$pid"
    living . 'exit 0'
    within 10 is_empty
    rmdir $own/box
    same stopped "$(cofferdam state box | jq -r .status)"
    gone
    rmdir /sys/fs/cgroup/elsewhere
}

# One that has all of the tree, and may write to it.
test_a_payload_that_leaves() {
    local pid
    living '.process.capabilities[] += ["CAP_DAC_OVERRIDE"] | .linux.namespaces |= map(select(.type != "cgroup")) | .mounts |= map(if .destination == "/sys/fs/cgroup"
        then {destination, type: "bind", source: "/sys/fs/cgroup", options: ["rbind"]} else . end)' 'cd /sys/fs/cgroup
        mkdir away && echo 1 >away/cgroup.procs && exec sleep 600'
    within 20 grep -q . /sys/fs/cgroup/away/cgroup.procs
    pid=$(cofferdam state box | jq .pid)
    same 0::/away "$(cat "/proc/$pid/cgroup")"
    # Who comes later has the container's limits all the same.
    same 0::/by-hand/box "$(cofferdam exec box cat /proc/self/cgroup)"
    cofferdam exec --detach box sleep 600
    gone
    [ ! -e "/proc/$pid" ]
    within 5 grep -qx 'populated 0' /sys/fs/cgroup/away/cgroup.events
    rmdir /sys/fs/cgroup/away
}

# All mounts of cgroup2 have the same options. One that is made without a cgroup namespace must not set them for the host.
test_the_options_of_the_host_stay() {
    local without='.linux.namespaces |= map(select(.type != "cgroup"))' before
    before=$(findmnt -no FS-OPTIONS /sys/fs/cgroup)
    has "$before" nsdelegate
    has "$before" memory_recursiveprot
    living "$without"
    has "$(cofferdam exec box cat /proc/mounts)" "nsdelegate"
    same "$before" "$(findmnt -no FS-OPTIONS /sys/fs/cgroup)"
    cofferdam mounts add box -t cgroup2 none /tmp
    same "$before" "$(findmnt -no FS-OPTIONS /sys/fs/cgroup)"
    gone
    # From a namespace of its own they are not set, even where they are named.
    living '.mounts |= map(if .destination == "/sys/fs/cgroup" then .options += ["favordynmods"] else . end)'
    cofferdam mounts add box -t cgroup2 none /tmp
    same "$before" "$(findmnt -no FS-OPTIONS /sys/fs/cgroup)"
    gone
}

# systemd forgets and learns all it knows, over and over, while containers come, change and go.
test_reloads_without_end() {
    local dir loop caps='["CAP_MKNOD"]' cgroup=/sys/fs/cgroup/system.slice/cofferdam-box.scope
    dir=$(bundle "mknod /dev/vda b $(tr : ' ' </sys/block/vda/dev); sleep 600" ".linux.resources += {memory: {limit: 67108864},
        pids: {limit: 20}} | .process.capabilities = {bounding: $caps, effective: $caps, permitted: $caps}")
    bash -c 'while :; do systemctl daemon-reload; done' &
    loop=$!
    # shellcheck disable=SC2064 # this one
    trap "kill $loop" EXIT
    for _ in 1 2 3 4; do
        cofferdam --systemd-cgroup run --bundle "$dir" --detach box
        same 67108864 "$(cat $cgroup/memory.max)"
        has "$(script -qec 'cofferdam exec --tty box tty' /dev/null)" /dev/pts/
        cofferdam update --memory 96m --pids-limit 30 box
        for _ in 1 2 3; do
            cofferdam exec box dd if=/dev/zero of=/dev/null count=1
            tells 1 'Operation not permitted' cofferdam exec box dd if=/dev/vda of=/dev/null count=1
            same "100663296 30" "$(cat $cgroup/memory.max $cgroup/pids.max | xargs)"
        done
        cofferdam delete --force box
        [ ! -e $cgroup ]
    done
    no_scopes 'cofferdam*'
}

test_stats_of_a_container_without_limits() {
    living . 'while :; do :; done'
    cofferdam stats --no-stream --format json box |
        jq -e '.cpu_percent > 0 and .memory_usage > 0 and .memory_limit > 0 and .pids == 1 and .io_read != null'
    cofferdam events --stats box |
        jq -e '.data | .cpu.usage.total > 0 and .memory.usage.usage > 0 and .pids.current == 1'
    gone
}
