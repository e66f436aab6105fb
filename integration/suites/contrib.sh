# shellcheck shell=bash
# The files that engines want to know the runtime by, each read by its engine as it is.

contrib=/payload/contrib

# Runs after a test that has failed.
clean_up() {
    kill "$(cat /tmp/contrib-docker/pid)" || true
}

# with_podman_conf: in the place of all other drop-ins.
with_podman_conf() {
    unshare --mount sh -ec "mount -t tmpfs none /etc/containers/containers.conf.d
        cat >/etc/containers/containers.conf.d/cofferdam.conf
        $1"
}

test_podman() {
    with_podman_conf 'podman --runtime cofferdam info --format "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"
        podman --runtime cofferdam run --rm --network none --rootfs /srv/busybox echo it runs' \
        <$contrib/podman.conf >/tmp/answer
    same "$(printf '%s\n' 'cofferdam /usr/local/bin/cofferdam' 'it runs')" "$(cat /tmp/answer)"
}

# The lines that make it the one for all containers are comments.
test_podman_by_default() {
    same 'cofferdam /usr/local/bin/cofferdam' "$(sed 's/^#\(\[\|runtime\)/\1/' $contrib/podman.conf | with_podman_conf \
        'podman info --format "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"')"
}

# The daemon of this suite.
beside() {
    docker -H unix:///tmp/contrib-docker/socket "$@"
}

test_docker() {
    mkdir -p /tmp/contrib-docker
    dockerd --validate --config-file $contrib/docker.json
    dockerd --config-file $contrib/docker.json --host unix:///tmp/contrib-docker/socket --pidfile /tmp/contrib-docker/pid \
        --data-root /tmp/contrib-docker/data --exec-root /tmp/contrib-docker/exec --iptables=false --bridge none &
    within 60 beside version
    has "$(beside info --format '{{json .Runtimes.cofferdam}}')" /usr/local/bin/cofferdam
    tar -C "$busybox" -c . | beside import - busybox
    same cofferdam "$(beside inspect --format '{{.HostConfig.Runtime}}' \
        "$(beside create --runtime cofferdam --network none busybox true)")"
    same 'it runs' "$(beside run --rm --runtime cofferdam --network none busybox echo it runs)"
    kill "$(cat /tmp/contrib-docker/pid)"
    within 30 test ! -e /tmp/contrib-docker/pid
}

# That of containerd 2 has another plugin's name in it, which this version does not know.
test_containerd() {
    local version=1 config
    ! containerd --version | grep -q ' v\?2\.' || version=2
    config=$(containerd --config $contrib/containerd-$version.toml config dump)
    has "$config" 'BinaryName = "/usr/local/bin/cofferdam"'
    has "$config" 'SystemdCgroup = true'
    mkdir -p /etc/containerd
    cp $contrib/containerd-$version.toml /etc/containerd/config.toml
    systemctl restart containerd
    within 30 ctr version
    has "$(/payload/integration/cri.py Status '{"verbose": true}' | jq -r .info.config)" /usr/local/bin/cofferdam
    rm /etc/containerd/config.toml
    systemctl restart containerd
}

# Engines that this guest does not have: the files are what they claim to be, at least.
test_the_others_can_be_parsed() {
    python3 - $contrib/*.toml $contrib/*.conf <<'PYTHON'
import sys, tomllib
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        assert "cofferdam" in str(tomllib.load(file)), name
PYTHON
    jq -e '.runtimes.cofferdam.path' $contrib/docker.json
}

# runtimes FILE..: what the configuration of an engine calls its runtimes, in each file.
runtimes() {
    python3 - "$@" <<'PYTHON'
import sys, tomllib
def runtimes(table):
    for key, value in table.items():
        if key == "runtimes":
            yield from value
        elif isinstance(value, dict):
            yield from runtimes(value)
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        print(*sorted(runtimes(tomllib.load(file))))
PYTHON
}

# The class leads to what the engines of a kubelet call the runtime. podman reads the file as one of Kubernetes, and has no
# use for its kind.
test_the_class_of_kubernetes() {
    local handler
    tells 125 'kind RuntimeClass not supported' podman --log-level info kube play $contrib/runtimeclass.yaml
    handler=$(sed -n 's/^handler: //p' $contrib/runtimeclass.yaml)
    same "$(printf '%s\n' "$handler runc" "$handler" "$handler")" \
        "$(runtimes $contrib/containerd-1.toml $contrib/containerd-2.toml $contrib/crio.conf)"
}

# The profile confines nothing; it is there for a kernel that lets only programs with a profile make user namespaces.
test_apparmor() {
    apparmor_parser --skip-kernel-load --skip-cache --preprocess $contrib/apparmor | grep -w userns
    apparmor_parser --skip-kernel-load --skip-cache $contrib/apparmor
    apparmor_parser --replace --skip-cache $contrib/apparmor
    grep -x 'cofferdam (unconfined)' /sys/kernel/security/apparmor/profiles
    local dir
    dir=$(bundle 'cat /proc/self/attr/current' .)
    cofferdam run --bundle "$dir" --detach box
    cofferdam delete --force box
    same 'in it' "$(cofferdam run --bundle "$dir" box -- echo in it)"
    apparmor_parser --remove $contrib/apparmor
}
