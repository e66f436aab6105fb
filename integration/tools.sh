# shellcheck shell=bash
# What the tests of all suites are written with. Sourced in the guest, under set -xeu.

busybox=/srv/busybox

# Ends the test as skipped, with a reason.
skip() {
    { set +x; } 2>/dev/null
    echo "$*"
    exit 77
}

# same WANTED GOT
same() {
    [ "$1" = "$2" ] || fault "wanted '$1', got '$2'"
}

# has TEXT PART: the text contains the part.
has() {
    case $1 in
        *"$2"*) ;;
        *) fault "no '$2' in '$1'" ;;
    esac
}

# lacks TEXT PART
lacks() {
    case $1 in
        *"$2"*) fault "'$2' in '$1'" ;;
    esac
}

# ends_with STATUS COMMAND..: the command ends with this status.
ends_with() {
    local status=0
    "${@:2}" || status=$?
    [ "$status" = "$1" ] || fault "status $status, wanted $1: ${*:2}"
}

# tells STATUS TEXT COMMAND..: the command ends with this status, a regular expression, and says this.
tells() {
    local status=0 answer
    answer=$("${@:3}" 2>&1) || status=$?
    grep -qxE "$1" <<<"$status" || fault "status $status, wanted $1: ${*:3}: $answer"
    has "$answer" "$2"
}

# within SECONDS COMMAND..: the command succeeds in time, if it is asked again and again.
within() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        [ "$SECONDS" -lt "$end" ] || fault "not within $1 s: ${*:2}"
        sleep 0.2
    done
}

# shows LINE COMMAND..: the command prints such a line, a regular expression.
shows() {
    local text
    text=$("${@:2}" 2>&1) || true
    grep -qxE "$1" <<<"$text"
}

# no_scopes PATTERN..: systemd soon has no such scope, not even one that is kept because it has failed.
no_scopes() {
    within 10 prints_nothing systemctl list-units --all --plain --no-legend --type scope "$@"
}

# Profiles that are none: no JSON, and JSON with an action that there is not.
bad_seccomp_profiles() {
    echo '{' >/tmp/cut.json
    echo '{"defaultAction": "SCMP_ACT_NONE"}' >/tmp/wrong.json
    chmod 644 /tmp/cut.json /tmp/wrong.json
}

# has_health PODMAN..: this podman, by whoever is meant, tells that a container becomes well.
has_health() {
    local box
    box=$("$@" run -d --network none --health-cmd 'test -e /tmp/well' --health-interval disable busybox sleep 600)
    ends_with 1 "$@" healthcheck run "$box"
    "$@" exec "$box" touch /tmp/well
    "$@" healthcheck run "$box"
    gone "$box"
}

prints_nothing() {
    [ -z "$("$@")" ]
}

fault() {
    { set +x; } 2>/dev/null
    echo "FAULT: $*"
    exit 1
}

# bundle COMMAND FILTER: a bundle with this command of the shell, its config changed by the filter of jq.
bundle() {
    local dir
    dir=$(mktemp -d)
    cofferdam spec --bundle "$dir" --rootfs "$busybox" --env PATH=/bin -- sh -c "$1"
    jq "$2" "$dir/config.json" >"$dir/changed"
    mv "$dir/changed" "$dir/config.json"
    echo "$dir"
}

# An image archive in Docker's format, docker.io/local/busybox:latest, as nothing is pulled. Without a command it sleeps.
docker_archive() {
    local dir sum
    dir=$(mktemp -d)
    tar -C "$busybox" -cf "$dir/layer.tar" .
    sum=$(sha256sum "$dir/layer.tar" | cut -d ' ' -f 1)
    cat >"$dir/config.json" <<JSON
{"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000000"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$sum"]}}
JSON
    echo '[{"Config": "config.json", "RepoTags": ["local/busybox:latest"], "Layers": ["layer.tar"]}]' >"$dir/manifest.json"
    tar -C "$dir" -c manifest.json config.json layer.tar
}
