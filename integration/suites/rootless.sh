# shellcheck shell=bash
# Without root, without an engine: users with a session and without one; and containers inside of containers.

# User has a manager of systemd's, which may limit; bob has nothing but his numbers in /etc/subuid.
setup() {
    loginctl enable-linger user
    within 30 test -S /run/user/1000/bus
    useradd -m -s /bin/bash -u 1001 bob
    grep bob: /etc/subuid
}

# Runs after a test that has failed.
clean_up() {
    as_user cofferdam delete --force box
    cofferdam delete --force outer
}

# A login, in which the bus is found by the environment.
as_user() {
    systemd-run --quiet --wait --pipe --collect --uid=user --working-directory=/home/user -p Delegate=yes \
        -p PAMName=login -E XDG_RUNTIME_DIR=/run/user/1000 \
        -E DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus -- "$@"
}

as_bob() {
    setpriv --reuid bob --regid bob --init-groups --reset-env env -C /home/bob XDG_RUNTIME_DIR=/home/bob/run \
        PATH="$PATH" "$@"
}

# bundle AS_WHOM FILTER: a bundle that sleeps, its config changed by the filter of jq.
bundle() {
    local dir
    dir=$(mktemp -d)
    chmod 777 "$dir"
    "$1" cofferdam spec --rootless --bundle "$dir" --rootfs "$busybox" --env PATH=/bin -- sleep 600
    jq "$2" "$dir/config.json" >"$dir/changed"
    cat "$dir/changed" >"$dir/config.json"
    echo "$dir"
}

limits='.linux.resources = {memory: {limit: 67108864}, pids: {limit: 20}}'

test_a_user_without_a_session() {
    local dir
    dir=$(bundle as_bob .)
    same 'root 0' "$(as_bob cofferdam run --bundle "$dir" box -- sh -c 'echo $(id -un) $(id -u)')"
    ends_with 7 as_bob cofferdam run --bundle "$dir" box -- sh -c 'exit 7'
    as_bob cofferdam run --bundle "$dir" --detach box
    same 'in it' "$(as_bob cofferdam exec box echo in it)"
    as_bob cofferdam delete --force box
    same '' "$(as_bob cofferdam list -q)"
}

test_without_a_session_limits_are_refused() {
    local dir answer
    dir=$(bundle as_bob "$limits")
    answer=$(as_bob cofferdam run --bundle "$dir" box 2>&1) && fault 'not refused'
    has "$answer" 'Permission denied'
    has "$answer" 'systemd-run --user --scope -p Delegate=yes'
    answer=$(as_bob cofferdam --systemd-cgroup run --bundle "$dir" box 2>&1) && fault 'not refused'
    has "$answer" 'loginctl enable-linger'
    same '' "$(as_bob cofferdam list -q)"
}

# The scope of a user is below his manager's own cgroup.
test_a_user_with_a_session_may_limit() {
    local dir cgroup
    dir=$(bundle as_user "$limits")
    as_user cofferdam --systemd-cgroup run --bundle "$dir" --detach box
    cgroup=/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/cofferdam-box.scope
    same 67108864 "$(cat "$cgroup/memory.max")"
    same 20 "$(cat "$cgroup/pids.max")"
    as_user cofferdam update --memory 96m box
    as_user systemctl --user daemon-reload
    same 100663296 "$(cat "$cgroup/memory.max")"
    same 100663296 "$(as_user systemctl --user show -P MemoryMax cofferdam-box.scope)"
    same 'in it' "$(as_user cofferdam exec box echo in it)"
    as_user cofferdam pause box
    same paused "$(as_user cofferdam state box | jq -r .status)"
    as_user cofferdam resume box
    as_user cofferdam delete --force box
    [ ! -e "$cgroup" ]
    same '' "$(as_user systemctl --user list-units --all --plain --no-legend 'cofferdam*')"
}

test_without_the_environment_of_the_session() {
    local dir
    dir=$(bundle as_user "$limits")
    same 67108864 "$(as_user env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS cofferdam --root /tmp/states \
        --systemd-cgroup run --bundle "$dir" box -- cat /sys/fs/cgroup/memory.max)"
}

ranges() {
    echo "[{containerID: 0, hostID: $1, size: 1}, {containerID: 1, hostID: $2, size: 2000}]"
}

test_ids_of_subuid() {
    local first dir
    first=$(sed -n 's/^user:\([0-9]*\):.*/\1/p' /etc/subuid)
    dir=$(bundle as_user ".linux.uidMappings = $(ranges 1000 "$first") | .linux.gidMappings = $(ranges 1000 "$first")
        | .process.user = {uid: 1234, gid: 1234}")
    same 'uid=1234(ann) gid=1234(ann)' "$(as_user cofferdam run --bundle "$dir" box -- id)"
}

test_ids_of_others_are_refused() {
    local dir answer
    dir=$(bundle as_user ".linux.uidMappings = $(ranges 1000 3000000) | .linux.gidMappings = $(ranges 1000 3000000)")
    answer=$(as_user cofferdam run --bundle "$dir" box 2>&1) && fault 'not refused'
    has "$answer" 'newgidmap: gid range'
    lacks "$answer" 'newgidmap: newgidmap'
    has "$answer" /etc/subgid
    same '' "$(as_user cofferdam list -q)"
}

test_layers() {
    local dir
    dir=$(mktemp -d)
    chmod 777 "$dir"
    as_user cofferdam run --layer "$busybox" --upper "$dir/upper" box -- sh -c 'echo kept >/kept'
    same kept "$(cat "$dir/upper/kept")"
    same user "$(stat -c %U "$dir/upper/kept")"
    [ ! -e "$busybox/kept" ]
}

test_check() {
    as_user cofferdam check
    as_bob cofferdam check
}

# inside OWNER FILTER: a container with the program in it, in which it runs more of them.
inside() {
    local dir
    dir=$(mktemp -d)
    chmod 755 "$dir"
    cp -a "$busybox" "$dir/rootfs"
    cp /usr/local/bin/cofferdam "$dir/rootfs/bin/"
    mkdir -p "$dir/rootfs/inner/rootfs" "$dir/rootfs/run"
    chown "$1" "$dir/rootfs" "$dir/rootfs/inner" "$dir/rootfs/run"
    cofferdam spec --bundle "$dir" --env PATH=/bin -- sh -ec '
        cd /inner
        cofferdam spec --env PATH=/bin -- sleep 600
        cofferdam run one -- sh -c "echo nested \$(id -u) \$(hostname)"
        cofferdam run --detach two
        cofferdam exec two echo exec
        cofferdam delete --force two
        cofferdam list -q'
    jq "(.mounts[-1].options = [\"rw\"]) | .root.readonly = false | .process.noNewPrivileges = false
        | .mounts += [{destination: \"/inner/rootfs\", source: \"$busybox\", options: [\"bind\", \"ro\"]}]
        | .linux.maskedPaths = [] | .linux.readonlyPaths = [] | .linux.resources = {devices: [{allow: true, access: \"rwm\"}]}
        | (\"$(capabilities)\" | split(\" \")) as \$all
        | .process.capabilities = {bounding: \$all, effective: \$all, permitted: \$all} | $2" "$dir/config.json" >"$dir/changed"
    mv "$dir/changed" "$dir/config.json"
    cofferdam run --bundle "$dir" outer
}

# All that this kernel has and the program can name.
capabilities() {
    cofferdam features | jq -r '.linux.capabilities | join(" ")'
}

test_inside_a_container() {
    same "$(printf '%s\n' 'nested 0 cofferdam' exec)" "$(inside 0 .)"
}

test_inside_a_container_with_a_user_namespace() {
    local ids='[{containerID: 0, hostID: 1000000, size: 65536}]'
    same "$(printf '%s\n' 'nested 0 cofferdam' exec)" "$(inside 1000000 ".linux.uidMappings = $ids | .linux.gidMappings = $ids
        | .linux.namespaces += [{type: \"user\"}]")"
}
