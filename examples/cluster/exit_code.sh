#!/bin/sh
# Runs a launcher and ends with the code that the run deserves.
#
#   sh exit_code.sh RUN COMMAND...
#
# torchrun ends with 1 whatever its workers ended with, so the run folder decides: 75 where the same command goes on (a
# signal came, a process died, a machine was taken), else the command's own code. Signals are passed on, once each.
run=$1
shift
stamp=$(mktemp)
"$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM INT HUP USR1
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do # a signal ends `wait` and not the command
    code=0
    wait "$child" || code=$?
done
status=none
if [ "$code" -ne 0 ] && [ -f "$run/run.json" ] && ! [ "$stamp" -nt "$run/run.json" ]; then
    status=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["status"])' "$run/run.json") || status=none
fi
rm -f "$stamp"
case $status in
interrupted | running) exit 75 ;;
esac
exit "$code"
