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
}

test_run() {
    same 'hello 0' "$(run busybox sh -c 'echo hello $(id -u)')"
    same 'from stdin' "$(echo from stdin | run -i busybox cat)"
    ends_with 7 run busybox sh -c 'exit 7'
    ends_with 126 run busybox /etc/passwd
    ends_with 127 run busybox no-such-program
}

test_id_maps() {
    has "$(run busybox cat /proc/self/uid_map)" '         0       1000          1'
    same 1000 "$(run --userns=keep-id busybox id -u)"
    same 1234 "$(run -u ann busybox id -u)"
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
    local box
    as_user sh -c 'printf hush | podman secret create word -'
    same hush "$(run --secret word busybox cat /run/secrets/word)"
    as_user podman secret rm word
    box=$(as_user podman run -d --network none --health-cmd 'test -e /tmp/well' --health-interval disable busybox sleep 600)
    ends_with 1 as_user podman healthcheck run "$box"
    as_user podman exec "$box" touch /tmp/well
    as_user podman healthcheck run "$box"
    gone "$box"
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
