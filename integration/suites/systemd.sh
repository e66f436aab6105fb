# shellcheck shell=bash
# The systemd driver by hand, without an engine: what systemd is told of a container, keeps and forgets.

# Runs after a test that has failed.
clean_up() {
    cofferdam list -q | xargs -r -n 1 cofferdam delete --force
    systemctl reset-failed 'cofferdam*'
}

run() {
    cofferdam --systemd-cgroup run --bundle "$@"
}

living() {
    run "$(bundle 'sleep 600' "$1")" --detach box
}

limits='.linux.resources += {memory: {limit: 67108864}, pids: {limit: 20}, cpu: {quota: 50000, period: 100000}}'
unit=cofferdam-box.scope
cgroup=/sys/fs/cgroup/system.slice/$unit

property() {
    systemctl show -P "$1" "$unit"
}

gone() {
    cofferdam delete --force box
    [ ! -e "$cgroup" ]
    no_scopes 'cofferdam*'
}

# The numbers, as files and as properties of the scope.
limited() {
    same "$1" "$(cat "$cgroup/memory.max")"
    same "$1" "$(property MemoryMax)"
    same "$2" "$(cat "$cgroup/pids.max")"
    same "$2" "$(property TasksMax)"
    same "$3" "$(cat "$cgroup/cpu.max")"
    same "$4" "$(property CPUQuotaPerSecUSec)"
}

test_limits_and_devices_outlive_a_reload() {
    local caps='["CAP_MKNOD"]' major minor
    IFS=: read -r major minor </sys/block/vda/dev
    living "$limits | .process.capabilities = {bounding: $caps, effective: $caps, permitted: $caps}
        | .linux.resources.devices += [{allow: true, type: \"b\", major: $major, minor: $minor, access: \"r\"}]"
    cofferdam exec box sh -c "mknod /dev/mine b $major $minor; mknod /dev/other b $(tr : ' ' </sys/block/vdb/dev)"
    for _ in before after; do
        limited 67108864 20 '50000 100000' 500ms
        cofferdam exec box dd if=/dev/mine of=/dev/null count=1
        has "$(cofferdam exec box dd if=/dev/other of=/dev/null count=1 2>&1 || true)" 'Operation not permitted'
        systemctl daemon-reload
    done
    gone
}

test_update_tells_systemd() {
    living "$limits"
    cofferdam update --memory 96m --pids-limit 30 --cpu-period 100000 --cpu-quota 25000 box
    limited 100663296 30 '25000 100000' 250ms
    systemctl daemon-reload
    limited 100663296 30 '25000 100000' 250ms
    gone
}

# The kernel takes the memory and refuses the processor, which this guest does not have.
test_a_refused_update_changes_nothing() {
    local answer
    living "$limits"
    answer=$(cofferdam update --memory 96m --cpuset-cpus 500 box 2>&1) && fault "not refused: $answer"
    has "$answer" 500
    limited 67108864 20 '50000 100000' 500ms
    same '' "$(property AllowedCPUs)"
    systemctl daemon-reload
    limited 67108864 20 '50000 100000' 500ms
    gone
}

# Which file a weight goes to depends on the scheduler of disks; systemd writes both.
test_weights_of_disks_outlive_a_reload() {
    local disk scheduler=/sys/block/vdb/queue/scheduler
    modprobe bfq && echo bfq >$scheduler
    disk=$(cat /sys/block/vdb/dev)
    living ".linux.resources.blockIO = {weight: 500, weightDevice: [{major: ${disk%:*}, minor: ${disk#*:}, weight: 300}]}"
    weighs 500 "$disk 300"
    cofferdam update --blkio-weight 700 box
    weighs 700 "$disk 300"
    echo '{"unified": {"io.bfq.weight": "50"}}' | cofferdam update --resources - box
    weighs 50 "$disk 300"
    gone
    echo none >$scheduler
}

# The weight and that of the disk are the same before and after.
weighs() {
    for _ in before after; do
        same "default $1 $2" "$(xargs <"$cgroup/io.bfq.weight")"
        systemctl daemon-reload
    done
}

test_annotations_are_properties() {
    living '.annotations = {"org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.CollectMode": "'\''inactive-or-failed'\''"}'
    same 7s "$(property TimeoutStopUSec)"
    same inactive-or-failed "$(property CollectMode)"
    gone
}

test_an_unknown_property_is_refused() {
    local answer
    answer=$(living '.annotations = {"org.systemd.property.NoSuchThing": "true"}' 2>&1) && fault 'not refused'
    has "$answer" NoSuchThing
    same '' "$(cofferdam list -q)"
    no_scopes 'cofferdam*'
}

test_a_slice_within_a_slice() {
    living '.linux.cgroupsPath = "outer-inner.slice:made:by-hand"'
    local pid
    pid=$(cofferdam state box | jq .pid)
    same 0::/outer.slice/outer-inner.slice/made-by-hand.scope "$(cat "/proc/$pid/cgroup")"
    cofferdam delete --force box
    no_scopes 'made-*'
}

test_cgroups_below_the_scope() {
    living '.annotations = {"run.oci.systemd.subgroup": "sub", "run.oci.delegate-cgroup": "own"}
        | .process.user = {uid: 1234, gid: 1234} | .mounts[-1].options = ["rw", "nosuid", "nodev", "noexec"]'
    same "0::/system.slice/$unit/sub/own" "$(cat "/proc/$(cofferdam state box | jq .pid)/cgroup")"
    same 1234 "$(stat -c %u "$cgroup/sub/own/cgroup.procs")"
    same 0 "$(stat -c %u "$cgroup/sub/cgroup.procs")"
    same 0::/ "$(cofferdam exec box cat /proc/self/cgroup)"
    cofferdam exec box sh -c 'mkdir /sys/fs/cgroup/child && echo $$ >/sys/fs/cgroup/child/cgroup.procs'
    systemctl daemon-reload
    same 1234 "$(stat -c %u "$cgroup/sub/own/child")"
    gone
}

test_a_pause_outlives_a_reload() {
    living .
    cofferdam pause box
    systemctl daemon-reload
    same paused "$(cofferdam state box | jq -r .status)"
    cofferdam resume box
    cofferdam exec box true
    gone
}

# What systemd keeps as a failed scope until someone has looked at it.
test_one_that_fails_leaves_nothing() {
    ends_with 7 run "$(bundle 'exit 7' .)" box
    no_scopes 'cofferdam*'
    ends_with 137 run "$(bundle 'dd if=/dev/zero of=/dev/null bs=200M count=1' \
        '.linux.resources.memory = {limit: 33554432, swap: 33554432}')" box
    no_scopes 'cofferdam*'
    ends_with 1 run "$(bundle true '.process.args = ["no-such-program"]')" box
    no_scopes 'cofferdam*'
}

# Somebody else ends the scope: the container is a stopped one, and can be deleted.
test_systemctl_stop() {
    living '.annotations = {"org.systemd.property.TimeoutStopUSec": "uint64 1000000"}'
    systemctl stop "$unit"
    same stopped "$(cofferdam state box | jq -r .status)"
    gone
}

test_a_name_that_is_taken() {
    local answer
    living '.linux.cgroupsPath = "system.slice:cofferdam:box"'
    answer=$(run "$(bundle true '.linux.cgroupsPath = "system.slice:cofferdam:box"')" other 2>&1) && fault 'not refused'
    has "$answer" cgroupsPath
    same running "$(cofferdam state box | jq -r .status)"
    gone
}

# In a hook: the scope is there, and nobody is left who would end it.
test_a_creator_that_is_killed() {
    local dir creator
    dir=$(bundle 'sleep 600' '.hooks.createRuntime = [{path: "/bin/sleep", args: ["sleep", "600"]}]')
    cofferdam --systemd-cgroup create --bundle "$dir" box &
    creator=$!
    within 20 systemctl --quiet is-active "$unit"
    kill -KILL "$creator"
    ends_with 137 wait "$creator"
    gone
    same '' "$(cofferdam list -q)"
}

# Before each of the last pieces that it reads of what systemd says: StartTransientUnit is sent, and JobRemoved comes later.
test_a_creator_that_is_killed_while_systemd_works() {
    local dir count number
    dir=$(bundle 'sleep 600' .)
    strace -qq -o /tmp/reads -e trace=recvfrom cofferdam --systemd-cgroup create --bundle "$dir" box
    gone
    count=$(wc -l </tmp/reads)
    [ "$count" -gt 8 ]
    for number in $(seq $((count - 7)) "$count"); do
        ends_with 137 strace -qq -o /dev/null -e "inject=recvfrom:signal=KILL:when=$number" \
            cofferdam --systemd-cgroup create --bundle "$dir" box
        cofferdam delete --force box
        same '' "$(cofferdam list -q)"
        # What nobody has claimed ends by itself, as init has ended.
        no_scopes 'cofferdam*'
        [ ! -e "$cgroup" ]
    done
}

test_stats_of_a_container_without_limits() {
    run "$(bundle 'while :; do :; done' .)" --detach box
    cofferdam stats --no-stream --format json box |
        jq -e '.cpu_percent > 0 and .memory_usage > 0 and .memory_limit > 0 and .pids == 1 and .io_read != null'
    gone
}

# notifying: a bundle whose program tells systemd that it is ready when a file is there.
notifying() {
    local mounts='[{destination: "/usr", source: "/usr"}, {destination: "/lib", source: "/usr/lib"},
        {destination: "/lib64", source: "/usr/lib64"}]'
    bundle 'until [ -e /dev/shm/go ]; do sleep 0.1; done
        /usr/bin/systemd-notify --ready --status=up --no-block; trap "exit 0" TERM; sleep 600 & wait' \
        ".mounts += ($mounts | map(. + {type: \"bind\", options: [\"bind\", \"ro\"]}))"
}

# notified MODE..: a unit of Type=notify that runs the container.
notified() {
    systemd-run --quiet --collect --no-block --unit notified -p Type=notify -p NotifyAccess=all \
        cofferdam --systemd-cgroup run --bundle "$(notifying)" "$@" box
    within 60 shows activating systemctl show -P ActiveState notified
    within 60 cofferdam exec box touch /dev/shm/go
    within 60 shows active systemctl show -P ActiveState notified
}

test_a_unit_is_active_when_the_container_is_ready() {
    notified
    same up "$(systemctl show -P StatusText notified)"
    systemctl stop notified
    within 20 prints_nothing cofferdam list -q
}

test_a_unit_has_the_init_of_a_detached_container_for_its_main_process() {
    notified --detach
    same "$(cofferdam state box | jq .pid)" "$(systemctl show -P MainPID notified)"
    gone
    within 20 shows inactive systemctl show -P ActiveState notified
}
