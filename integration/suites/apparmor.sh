# shellcheck shell=bash
# AppArmor: the profile that a config names is that of the payload, or the container does not begin, whatever its image and
# its mounts put in the place of /proc.

setup() {
    [ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ]
    load cofferdam-outer ''
    load cofferdam-inner 'deny /tmp/inner w,'
    # An image with a /proc of its own, in which nobody's label is kept.
    cp -a "$busybox" /srv/fake
    mkdir -p /srv/fake/proc/self/attr/apparmor /srv/fake/proc/1/attr
    for file in self/attr/exec self/attr/apparmor/exec self/attr/current 1/attr/exec; do
        echo untouched >"/srv/fake/proc/$file"
    done
}

# load NAME RULES: a profile that forbids to write one file, and what the rules forbid.
load() {
    apparmor_parser --replace --skip-cache <<PROFILE
profile $1 flags=(attach_disconnected, mediate_deleted) {
    file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,
    deny /tmp/outer w,
    $2
}
PROFILE
}

# Runs after a test that has failed.
clean_up() {
    cofferdam list -q | xargs -r -n 1 cofferdam delete --force
}

# confined FILTER: a bundle whose process has the profile.
confined() {
    bundle "${2-sleep 600}" ".process.apparmorProfile = \"cofferdam-outer\" | $1"
}

label='cofferdam-outer (enforce)'

label_of() {
    cat "/proc/$(cofferdam state "$1" | jq .pid)/attr/apparmor/current"
}

test_the_profile_is_that_of_the_payload() {
    same "$label" "$(cofferdam run --bundle "$(confined . 'cat /proc/self/attr/current')" box)"
    same "$label" "$(cofferdam run --bundle "$(confined '.process.noNewPrivileges = true' 'cat /proc/self/attr/current')" box)"
    same "$label" "$(cofferdam run --bundle "$(confined '.process.user = {uid: 1234, gid: 1234}' 'cat /proc/self/attr/current')" box)"
    has "$(cofferdam run --bundle "$(confined '.root.readonly = false' 'touch /tmp/inner && rm /tmp/inner; touch /tmp/outer')" box 2>&1 || true)" \
        '/tmp/outer: Permission denied'
    lacks "$(cofferdam run --bundle "$(bundle 'cat /proc/self/attr/current' .)" box)" cofferdam
}

test_exec_has_it_too() {
    cofferdam run --bundle "$(confined .)" --detach box
    same "$label" "$(label_of box)"
    same "$label" "$(cofferdam exec box cat /proc/self/attr/current)"
    same "$label" "$(cofferdam exec --user 1234 box cat /proc/self/attr/current)"
    same 'cofferdam-inner (enforce)' "$(cofferdam exec --apparmor cofferdam-inner box cat /proc/self/attr/current)"
    tells 255 'process.apparmorProfile: no-such-profile' cofferdam exec --apparmor no-such-profile box true
    cofferdam delete --force box
}

test_a_profile_that_is_not_loaded() {
    local answer
    answer=$(cofferdam run --bundle "$(bundle true '.process.apparmorProfile = "no-such-profile"')" box 2>&1) && fault 'not refused'
    has "$answer" 'process.apparmorProfile: no-such-profile: is not loaded'
    same 1 "$(wc -l <<<"$answer")"
    same '' "$(cofferdam list -q)"
}

# The image has files where the kernel's would be, and there is no procfs above them.
test_an_image_with_a_proc_of_its_own() {
    cofferdam run --detach box --bundle "$(confined '.root.path = "/srv/fake" | .mounts |= map(select(.destination != "/proc"))
        | .linux.maskedPaths = [] | .linux.readonlyPaths = []')"
    same "$label" "$(label_of box)"
    same untouched "$(cofferdam exec box cat /proc/self/attr/current)"
    cofferdam exec --detach --pid-file /tmp/pid box sleep 500
    same "$label" "$(cat "/proc/$(cat /tmp/pid)/attr/apparmor/current")"
    cofferdam delete --force box
    same untouched "$(sort -u /srv/fake/proc/self/attr/exec /srv/fake/proc/self/attr/apparmor/exec /srv/fake/proc/1/attr/exec)"
}

# instead FILTER: mounts that would take a label in the place of the kernel's file. They are refused, or of no use.
instead() {
    local dir answer
    dir=$(confined "$1" 'sleep 600')
    if answer=$(cofferdam run --bundle "$dir" --detach box 2>&1); then
        same "$label" "$(label_of box)"
        cofferdam exec --detach --pid-file /tmp/pid box sleep 500
        same "$label" "$(cat "/proc/$(cat /tmp/pid)/attr/apparmor/current")"
        cofferdam delete --force box
    else
        has "$answer" /proc
    fi
    same '' "$(cofferdam list -q)"
    echo "# $1: ${answer:-of no use}" >&3
}

test_mounts_in_the_place_of_proc() {
    instead '.mounts |= map(if .destination == "/proc" then {destination, type: "tmpfs", source: "t"} else . end)'
    instead '.mounts |= map(if .destination == "/proc" then {destination, source: "/srv/fake/proc", options: ["bind"]} else . end)'
    instead '.mounts += [{destination: "/proc/self/attr", type: "tmpfs", source: "t"}]'
    instead '.mounts += [{destination: "/proc/1/attr", source: "/srv/fake/proc/1/attr", options: ["bind"]}]'
    instead '.mounts += [{destination: "/proc/self/attr/exec", source: "/srv/fake/proc/self/attr/exec", options: ["bind"]}]'
    instead '.mounts += [{destination: "/proc/thread-self", source: "/srv/fake/proc/self", options: ["bind"]}]'
    same untouched "$(sort -u /srv/fake/proc/self/attr/exec /srv/fake/proc/self/attr/apparmor/exec /srv/fake/proc/1/attr/exec)"
}

# A payload that lays its own /proc over the kernel's after the start, as far as its profile lets it, for the next exec to meet.
test_a_payload_that_covers_proc() {
    local caps='["CAP_SYS_ADMIN"]'
    cofferdam run --detach box --bundle "$(confined ".process.capabilities = {bounding: $caps, effective: $caps, permitted: $caps}
        | .mounts += [{destination: \"/tmp\", source: \"/srv/fake/proc\", options: [\"bind\"]}]" \
        'mount -o bind /tmp /proc && sleep 600')"
    within 10 cofferdam exec box grep -q untouched /proc/self/attr/current
    cofferdam exec --detach --pid-file /tmp/pid box sleep 500
    same "$label" "$(cat "/proc/$(cat /tmp/pid)/attr/apparmor/current")"
    cofferdam delete --force box
    same untouched "$(cat /srv/fake/proc/self/attr/exec)"
}
