#!/bin/sh
# The runtime $REAL_RUNTIME, but for a `delete` of a container that still runs: that is tried again for ten seconds.
# killsig waits for the end of a program that it has sent a signal to, for a time that is too short on a loaded machine.
case " $* " in
    *" delete "*) ;;
    *) exec "$REAL_RUNTIME" "$@" ;;
esac
for _ in $(seq 100); do
    status=0
    said=$("$REAL_RUNTIME" "$@" 2>&1) || status=$?
    case $said in
        *"that is not stopped: running"*) sleep 0.1 ;;
        *) break ;;
    esac
done
[ -z "$said" ] || echo "$said" >&2
exit $status
