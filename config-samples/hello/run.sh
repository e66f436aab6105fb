#!/bin/sh
# Runs this bundle with the program that is named: run.sh COFFERDAM.
# A limit whose controller this host lacks is left out, and said. Who is not root gets a smaller container.
set -eu

cofferdam=$(realpath "$1")
bundle=$(dirname "$(realpath "$0")")
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

main() {
    if [ "$(id -u)" = 0 ]; then
        as_root
    else
        as_user
    fi
}

as_root() {
    tree=$(cgroup_tree)
    cp "$bundle/config.json" "$temporary/config.json"
    for controller in memory pids cpu; do
        if ! reason=$(offers "$tree" "$controller"); then
            echo "no $controller limit: $reason"
            remove_limit "$controller"
        fi
    done
    "$cofferdam" run --bundle "$bundle" --config "$temporary/config.json" "hello-$$"
}

# A user may not limit anything before cgroups are delegated, and cannot use / as a layer.
as_user() {
    echo "not root: no limits, and only /usr is a layer; for the whole sample: sudo make run"
    "$cofferdam" --root "$temporary" run --layer /usr "hello-$$" -- sh -c '
        echo "I am process $$, $(id)"
        uname -n
        cut -d " " -f 2,3 /proc/mounts
        echo hello from cofferdam' || {
        echo "is it user namespaces that are not allowed here? then, as root: make run" >&2
        exit 1
    }
}

# Where cgroup v2 is: alone, or beside v1 on a hybrid host.
cgroup_tree() {
    for tree in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        if [ -e "$tree/cgroup.controllers" ]; then
            echo "$tree"
            return
        fi
    done
    echo "no cgroup v2 here: mount it (mount -t cgroup2 none /sys/fs/cgroup), or boot with it" >&2
    exit 1
}

# Whether children in the tree $1 can have the controller $2; if not, says why on stdout.
offers() {
    if grep -qw "$2" "$1/cgroup.subtree_control"; then
        return 0
    elif grep -qw "$2" "$1/cgroup.controllers"; then
        # cgroups(7): a cgroup with processes in it, as in many containers, hands nothing down.
        (echo "+$2" >"$1/cgroup.subtree_control") 2>/dev/null && return 0
        echo "$1 does not hand the controller down"
    elif [ -d "/sys/fs/cgroup/$2" ]; then
        echo "this host has the controller as cgroup v1, at /sys/fs/cgroup/$2"
    else
        echo "the kernel does not offer the controller"
    fi
    return 1
}

# In config.json each limit is a line of its own.
remove_limit() {
    sed -i "/^ *\"$1\": {.*},\$/d" "$temporary/config.json"
}

main
