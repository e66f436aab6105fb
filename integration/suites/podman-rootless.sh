# shellcheck shell=bash
# podman as a user, in a user namespace of its own, with cgroups that systemd has delegated.

# The driver cgroupfs cannot be used by a user: his cgroup is below a scope of his session.
setup() {
    groupadd -g 4242 kept
    usermod -aG kept user
    loginctl enable-linger user
    within 30 test -S /run/user/1000/bus
    as_user podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.Security.Rootless}}' | grep -x 'cofferdam true'
    tar -C "$busybox" -c . | as_user podman import -q - busybox
}

as_user() {
    systemd-run --quiet --wait --pipe --collect --uid=user --working-directory=/home/user -p Delegate=yes \
        -p "PAMName=login" -E XDG_RUNTIME_DIR=/run/user/1000 -E HOME=/home/user \
        -E DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus -- "$@"
}

# Runs after a test that has failed.
clean_up() {
    as_user podman pod rm -fa -t 0
    as_user podman rm -fa -t 0
}

run() {
    as_user podman run --rm --network none "$@"
}

living() {
    as_user podman run -d --network none busybox sleep 600
}

gone() {
    as_user podman rm -f -t 0 "$@"
    within 30 prints_nothing scopes
}

# Of containers, in the user's own systemd.
scopes() {
    as_user systemctl --user list-units --all --full --plain --no-legend --type scope 'libpod-[0-9a-f][0-9a-f]*'
}

test_run() {
    same 'hello 0' "$(run busybox sh -c 'echo hello $(id -u)')"
    same 'from stdin' "$(echo from stdin | run -i busybox cat)"
    ends_with 7 run busybox sh -c 'exit 7'
    tells 126 'OCI permission denied' run busybox /etc/passwd
    tells 127 'attempted to invoke a command that was not found' run busybox no-such-program
}

# Some of it podman refuses by itself, with 125; the rest reaches the runtime, whose errors are 126.
test_bad_input_is_refused() {
    bad_seccomp_profiles
    tells 125 'seccomp profile' run --security-opt seccomp=/tmp/cut.json busybox true
    tells 126 SCMP_ACT_NONE run --security-opt seccomp=/tmp/wrong.json busybox true
    tells 126 'peration not permitted' run --ulimit nofile=2000000000:2000000000 busybox true
    tells 126 cpuset run --cpuset-cpus 500 busybox true
    tells 125 /no/such run -v /no/such:/x busybox true
    same '' "$(as_user podman ps -aq)"
    same '' "$(as_user cofferdam list -q)"
}

test_id_maps() {
    has "$(run busybox cat /proc/self/uid_map)" '         0       1000          1'
    same 1000 "$(run --userns=keep-id busybox id -u)"
    same 1234 "$(run -u ann busybox id -u)"
}

# The ids are taken from those that the user has, and no container gets those of another.
test_user_namespaces() {
    local one two
    one=$(as_user podman run -d --network none --userns=auto:size=5000 busybox sleep 600)
    two=$(as_user podman run -d --network none --userns=auto:size=5000 busybox sleep 600)
    same 5000 "$(as_user podman exec "$one" awk '{ n += $3 } END { print n }' /proc/self/uid_map)"
    [ "$(as_user podman exec "$one" cat /proc/self/uid_map)" != "$(as_user podman exec "$two" cat /proc/self/uid_map)" ]
    same 1234 "$(as_user podman exec -u ann "$one" id -u)"
    gone "$one" "$two"
}

# Files of a directory are as if owned by the container, or made so.
test_volumes_of_other_ids() {
    local answer
    as_user mkdir -p /home/user/idmapped /home/user/owned
    if answer=$(run --userns=auto -v /home/user/idmapped:/data:idmap busybox touch /data/mine 2>&1); then
        same user "$(stat -c %U /home/user/idmapped/mine)"
    else
        # The kernel wants privilege over the file system for it, which the user has not.
        has "$answer" 'peration not permitted'
        has "$answer" mount_setattr
        has "$answer" idmap
    fi
    run --userns=auto -v /home/user/owned:/data:U busybox touch /data/mine
    same "$(stat -c %u /home/user/owned)" "$(stat -c %u /home/user/owned/mine)"
    [ "$(stat -c %u /home/user/owned)" != 1000 ]
    as_user podman unshare rm -r /home/user/owned
}

# The group has no name inside; it counts all the same.
test_groups_of_the_caller_are_kept() {
    install -d -m 755 /srv/group
    echo 'for the group' >/srv/group/file
    chgrp kept /srv/group/file
    chmod 640 /srv/group/file
    ends_with 1 run -v /srv/group:/group busybox cat /group/file
    same 'for the group' "$(run --group-add keep-groups -v /srv/group:/group busybox cat /group/file)"
}

test_exec() {
    local box
    box=$(living)
    [ "$DRIVER" = cgroupfs ] || has "$(scopes)" "libpod-$box.scope"
    same 'in it' "$(as_user podman exec "$box" echo in it)"
    same 1234 "$(as_user podman exec -u ann "$box" id -u)"
    ends_with 3 as_user podman exec "$box" sh -c 'exit 3'
    gone "$box"
}

test_files() {
    as_user mkdir -p /home/user/data
    run -v /home/user/data:/data busybox touch /data/mine
    same user "$(stat -c %U /home/user/data/mine)"
    run -v /home/user/data:/data:U -u ann busybox touch /data/his
    ends_with 1 run --read-only busybox touch /x
    run --tmpfs /scratch busybox touch /scratch/x
}

test_secrets_and_health() {
    as_user sh -c 'printf hush | podman secret create word -'
    same hush "$(run --secret word busybox cat /run/secrets/word)"
    as_user podman secret rm word
    has_health as_user podman
}

test_network() {
    has "$(as_user podman run --rm --network slirp4netns busybox ip addr)" tap0
}

test_pods() {
    as_user podman pod create --name pod --network none --hostname podded
    local box
    box=$(as_user podman run -d --pod pod busybox sleep 600)
    same podded "$(as_user podman exec "$box" hostname)"
    as_user podman pod rm -f -t 0 pod
}

test_kube_play() {
    local limits='memory: 64Mi'
    [ "$DRIVER" = systemd ] || limits=
    as_user tee /home/user/kube.yaml <<YAML
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
    resources: {limits: {$limits}}
    securityContext: {runAsUser: 1234, readOnlyRootFilesystem: true}
YAML
    as_user podman kube play /home/user/kube.yaml
    within 20 shows played as_user podman logs kube-box
    same 1234 "$(as_user podman exec kube-box id -u)"
    ends_with 1 as_user podman exec kube-box touch /x
    [ -z "$limits" ] || same $((64 << 20)) "$(as_user podman exec kube-box cat /sys/fs/cgroup/memory.max)"
    as_user podman kube down /home/user/kube.yaml
}

# A small init, which manages cgroups and ends at the signal for one.
test_a_container_that_boots() {
    local box
    box=$(as_user podman run -d --network none --systemd=always busybox sh -c "
        trap 'exit 3' 37
        mkdir /sys/fs/cgroup/init.scope && echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs && touch /run/booted
        while :; do sleep 0.2; done")
    within 20 as_user podman exec "$box" test -e /run/booted
    has "$(as_user podman exec "$box" cat /proc/1/cgroup)" /init.scope
    has "$(as_user podman exec "$box" sh -c "tr '\0' ' ' </proc/1/environ")" container=
    has "$(as_user podman exec "$box" grep ' /run ' /proc/mounts)" tmpfs
    as_user podman stop -t 20 "$box"
    same 3 "$(as_user podman inspect --format '{{.State.ExitCode}}' "$box")"
    gone "$box"
}

test_stop_and_logs() {
    local box
    box=$(as_user podman run -d --network none busybox sh -c 'echo logged; sleep 600')
    within 10 shows logged as_user podman logs "$box"
    as_user podman stop -t 1 "$box"
    same 137 "$(as_user podman inspect --format '{{.State.ExitCode}}' "$box")"
    gone "$box"
}

# Only systemd can give a user a cgroup in which limits may be set.
test_limits() {
    [ "$DRIVER" = systemd ] || skip 'limits of a user need the systemd driver'
    same $((64 << 20)) "$(run --memory 64m busybox cat /sys/fs/cgroup/memory.max)"
    same 20 "$(run --pids-limit 20 busybox cat /sys/fs/cgroup/pids.max)"
}
