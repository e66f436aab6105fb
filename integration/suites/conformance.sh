# shellcheck shell=bash
# The validation suite of the OCI, on a host with all controllers and nothing but cgroup v2. It was built outside.

main_tap() {
    export RUNTIME=/usr/local/bin/cofferdam RESULTS=/results/conformance
    mkdir -p "$RESULTS"
    # The programs write where they are.
    cp -a /payload/conformance /var/tmp/conformance
    cd /var/tmp/conformance
    unshare --mount --propagation private -- /payload/integration/conformance/run.sh --inside >&3
}
