# shellcheck shell=bash
# containerd as a kubelet uses it: pods and containers through its CRI socket. Pods are in the host's network.

setup() {
    mkdir -p /etc/containerd /tmp/pod-logs
    network
    cat >/etc/containerd/config.toml <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/busybox:latest"
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "cofferdam"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.cofferdam]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.cofferdam.options]
  BinaryName = "/usr/local/bin/cofferdam"
  SystemdCgroup = $([ "$DRIVER" = systemd ] && echo true || echo false)
TOML
    systemctl restart containerd
    within 30 ctr version
    docker_archive | ctr -n k8s.io image import --all-platforms -
    within 30 has_image
}

# A pod with a user namespace cannot be in the host's network; it is given one that has an address only in the answer.
network() {
    mkdir -p /etc/cni/net.d /usr/lib/cni
    echo '{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "none"}]}' >/etc/cni/net.d/10-none.conflist
    cat >/usr/lib/cni/none <<'PLUGIN'
#!/bin/sh
case $CNI_COMMAND in
    VERSION) echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}' ;;
    ADD) echo "{\"cniVersion\": \"0.4.0\", \"interfaces\": [{\"name\": \"$CNI_IFNAME\", \"sandbox\": \"$CNI_NETNS\"}],
        \"ips\": [{\"version\": \"4\", \"address\": \"10.9.9.9/24\", \"interface\": 0}]}" ;;
esac
PLUGIN
    chmod 755 /usr/lib/cni/none
    cp /usr/lib/cni/none /usr/lib/cni/loopback
}

has_image() {
    cri ImageStatus '{"image": {"image": "docker.io/local/busybox:latest"}}' | grep sha256
}

# Runs after a test that has failed.
clean_up() {
    local id
    for id in $(cri ListPodSandbox | jq -r '.items[]?.id'); do
        cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
        cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    done
}

cri() {
    /payload/integration/cri.py "$@"
}

parent=/pods
[ "$DRIVER" = cgroupfs ] || parent=/pods.slice

namespaces='{"network": "NODE"}'

pod_config() {
    echo "{\"metadata\": {\"name\": \"pod\", \"uid\": \"1\", \"namespace\": \"test\"}, \"log_directory\": \"/tmp/pod-logs\",
        \"linux\": {\"cgroup_parent\": \"$parent\", \"security_context\": {\"namespace_options\": $namespaces}}}"
}

# A running pod; its id is on stdout.
pod() {
    cri RunPodSandbox "{\"config\": $(pod_config)}" | jq -r .pod_sandbox_id
}

# container POD COMMAND [LINUX] [MOUNTS]: a created container of it; the arguments are JSON.
container() {
    cri CreateContainer "{\"pod_sandbox_id\": \"$1\", \"sandbox_config\": $(pod_config), \"config\": {
        \"metadata\": {\"name\": \"box$RANDOM\"}, \"image\": {\"image\": \"docker.io/local/busybox:latest\"},
        \"command\": $2, \"log_path\": \"box.log\", \"linux\": ${3-{\}}, \"mounts\": ${4-[]}}}" | jq -r .container_id
}

of_container() {
    cri "$1" "{\"container_id\": \"$2\"${3:+, $3}}"
}

gone() {
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$1\"}"
    cri RemovePodSandbox "{\"pod_sandbox_id\": \"$1\"}"
    no_scopes 'cri-containerd-*'
}

state() {
    of_container ContainerStatus "$1" | jq -r .status.state
}

# exec_sync CONTAINER COMMAND, which is JSON: what it prints.
exec_sync() {
    of_container ExecSync "$1" "\"cmd\": $2, \"timeout\": 20" | jq -r .stdout | base64 -d
}

test_status() {
    has "$(cri Version)" containerd
    same true "$(cri Status | jq '.status.conditions[] | select(.type == "RuntimeReady").status')"
}

test_a_pod() {
    local pod box
    pod=$(pod)
    box=$(container "$pod" '["sh", "-c", "echo logged; sleep 600"]')
    same CONTAINER_CREATED "$(state "$box")"
    of_container StartContainer "$box"
    same CONTAINER_RUNNING "$(state "$box")"
    within 10 grep -q logged /tmp/pod-logs/box.log
    of_container StopContainer "$box" '"timeout": 1'
    # All containers of a pod share its pid namespace, so that this one is no init, which SIGTERM would spare.
    same 'CONTAINER_EXITED 143' "$(of_container ContainerStatus "$box" | jq -r '.status.state + " " + (.status.exit_code | tostring)')"
    of_container RemoveContainer "$box"
    gone "$pod"
}

test_exec() {
    local pod box
    pod=$(pod)
    box=$(container "$pod" '["sleep", "600"]')
    of_container StartContainer "$box"
    same 'in it' "$(exec_sync "$box" '["echo", "in it"]')"
    same 3 "$(of_container ExecSync "$box" '"cmd": ["sh", "-c", "exit 3"]' | jq .exit_code)"
    gone "$pod"
}

test_limits() {
    local pod box cgroup
    pod=$(pod)
    box=$(container "$pod" '["sleep", "600"]' '{"resources": {"memory_limit_in_bytes": 67108864, "cpu_period": 100000,
        "cpu_quota": 50000, "cpu_shares": 512, "oom_score_adj": 500, "unified": {"memory.oom.group": "1"}}}')
    of_container StartContainer "$box"
    cgroup=/sys/fs/cgroup$(sed 's/^0:://' "/proc/$(of_container ContainerStatus "$box" '"verbose": true' | jq -r '.info.info' | jq .pid)/cgroup")
    has "$cgroup" pods
    same 67108864 "$(cat "$cgroup/memory.max")"
    same '50000 100000' "$(cat "$cgroup/cpu.max")"
    same 1 "$(cat "$cgroup/memory.oom.group")"
    of_container UpdateContainerResources "$box" '"linux": {"memory_limit_in_bytes": 100663296, "cpu_period": 100000, "cpu_quota": 25000}'
    same 100663296 "$(cat "$cgroup/memory.max")"
    same '25000 100000' "$(cat "$cgroup/cpu.max")"
    has "$(of_container ContainerStats "$box")" usage_core_nano_seconds
    gone "$pod"
    [ ! -e "$cgroup" ]
}

test_security_context() {
    local pod box
    pod=$(pod)
    box=$(container "$pod" '["sleep", "600"]' '{"security_context": {"run_as_user": {"value": "1234"}, "readonly_rootfs": true,
        "no_new_privs": true, "supplemental_groups": ["4321"], "capabilities": {"drop_capabilities": ["ALL"]},
        "masked_paths": ["/proc/kcore"], "readonly_paths": ["/proc/sys"]}}')
    of_container StartContainer "$box"
    has "$(exec_sync "$box" '["id"]')" 'uid=1234(ann)'
    has "$(exec_sync "$box" '["id"]')" '4321'
    has "$(exec_sync "$box" '["grep", "-E", "CapEff|NoNewPrivs", "/proc/self/status"]')" "$(printf 'CapEff:\t0000000000000000\nNoNewPrivs:\t1')"
    same 1 "$(of_container ExecSync "$box" '"cmd": ["touch", "/tmp/x"]' | jq .exit_code)"
    gone "$pod"
}

test_a_pod_with_a_user_namespace() {
    local pod box ids='[{"host_id": 300000, "container_id": 0, "length": 65536}]' namespaces
    namespaces="{\"userns_options\": {\"mode\": \"POD\", \"uids\": $ids, \"gids\": $ids}}"
    pod=$(pod)
    box=$(container "$pod" '["sleep", "600"]' "{\"security_context\": {\"namespace_options\": $namespaces}}")
    of_container StartContainer "$box"
    has "$(exec_sync "$box" '["cat", "/proc/self/uid_map"]')" '0     300000      65536'
    same 0 "$(exec_sync "$box" '["stat", "-c", "%u", "/bin"]' | tr -d '\n')"
    same 0 "$(of_container ExecSync "$box" '"cmd": ["touch", "/new"]' | jq .exit_code)"
    gone "$pod"
}

test_stats_of_a_pod() {
    local pod box
    pod=$(pod)
    box=$(container "$pod" '["sleep", "600"]')
    of_container StartContainer "$box"
    has "$(cri PodSandboxStats "{\"pod_sandbox_id\": \"$pod\"}")" usage_core_nano_seconds
    has "$(of_container ContainerStats "$box")" working_set_bytes
    gone "$pod"
}

# refused TEXT COMMAND [LINUX] [MOUNTS]: a container of the pod that is made and does not start; why is told to who starts
# it, and to who asks for its status, with containerd's status for that.
refused() {
    local box status
    box=$(container "$pod" "$2" "${3-{\}}" "${4-[]}")
    tells 1 "$1" of_container StartContainer "$box"
    status=$(of_container ContainerStatus "$box" | jq .status)
    same 'CONTAINER_EXITED 128 StartError' "$(jq -r '.state + " " + (.exit_code | tostring) + " " + .reason' <<<"$status")"
    has "$(jq -r .message <<<"$status")" "$1"
}

profile() {
    echo "{\"security_context\": {\"seccomp\": {\"profile_type\": \"Localhost\", \"localhost_ref\": \"/tmp/$1.json\"}}}"
}

mounted() {
    echo "[{\"host_path\": \"$1\", \"container_path\": \"/etc\"}]"
}

# Some of it containerd refuses by itself; the rest reaches the runtime. A directory that is missing is made by containerd.
test_bad_input_is_refused() {
    local pod true='["true"]'
    bad_seccomp_profiles
    pod=$(pod)
    refused 'executable file' '["no-such-program"]'
    refused 'permission denied' '["/etc/passwd"]'
    tells 1 'seccomp profile' container "$pod" "$true" "$(profile cut)"
    refused SCMP_ACT_NONE "$true" "$(profile wrong)"
    refused 500 "$true" '{"resources": {"cpuset_cpus": "500"}}'
    refused /etc/passwd "$true" '{}' "$(mounted /etc/passwd)"
    tells 1 /etc/passwd/none container "$pod" "$true" '{}' "$(mounted /etc/passwd/none)"
    container "$pod" "$true" '{}' "$(mounted /tmp/made-by-containerd)"
    [ -d /tmp/made-by-containerd ]
    gone "$pod"
    same '' "$(cofferdam --root /run/containerd/runc/k8s.io list -q)"
}

test_stats_of_a_container_without_limits() {
    local pod box
    pod=$(pod)
    box=$(container "$pod" '["sh", "-c", "while :; do :; done"]')
    of_container StartContainer "$box"
    within 60 counted "$box"
    gone "$pod"
}

# counted CONTAINER: containerd tells what it uses of each, as the kubelet asks.
counted() {
    of_container ContainerStats "$1" | jq -e '.stats
        | (.cpu.usage_core_nano_seconds.value | tonumber) > 0 and (.memory.working_set_bytes.value | tonumber) > 0'
}
