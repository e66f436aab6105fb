#!/bin/bash
# Runs in the guest, as root: prepares it for the runtime, then runs the suites that /payload/settings names.
set -uo pipefail
# shellcheck source=/dev/null
. /payload/settings
export DRIVER TESTS TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

main() {
    prepare
    local suite
    for suite in $SUITES; do
        timeout 3100 bash /payload/integration/tap.sh "$suite" || true
        sync
    done
    journalctl -b --no-pager >/results/journal.log
    free -m >/results/memory.log
}

# Nothing but this program may start a container here, or, to prove the suites, what ORACLE names in its place. dockerd does not start without a runc, whatever it is told to use.
prepare() {
    install -m 755 "$(command -v "${ORACLE:-/payload/cofferdam}")" /usr/local/bin/cofferdam
    rm -f /usr/bin/runc /usr/bin/crun
    ln -sf /usr/local/bin/cofferdam /usr/sbin/runc
    mkdir -p /etc/containers/containers.conf.d
    cat >/etc/containers/containers.conf.d/cofferdam.conf <<CONF
[containers]
log_driver = "k8s-file"
[engine]
runtime = "cofferdam"
cgroup_manager = "$DRIVER"
events_logger = "file"
runtime_supports_json = ["cofferdam"]
[engine.runtimes]
cofferdam = ["/usr/local/bin/cofferdam"]
CONF
}

main
