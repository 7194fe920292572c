#!/bin/sh
# Leaks: what `nohup COMMAND &` leaves: a child that ignores SIGHUP, with its output in a file.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that relies on SIGHUP (the end of the session or of the terminal), and one
#   that waits for the end of file on the stdout and stderr of CMD: nohup has sent both elsewhere.

trap '' PIPE

case "$# $1" in
'1 leak' | '1 clean') ;;
*)
    echo "usage: $0 leak|clean" >&2
    exit 2
    ;;
esac

folder=$(mktemp -d) || exit 1
mkfifo "$folder/ready" || exit 1
# The shell opens the pipe after nohup has set itself up, and then is the sleep: one process.
nohup sh -c 'echo r >"$0" && exec sleep 120' "$folder/ready" >"$folder/nohup.out" 2>&1 &
[ "$(timeout 20 head -n 1 "$folder/ready")" = r ] || exit 1
if [ "$1" = clean ]; then
    # HUP would do nothing.
    kill -TERM "$!"
    wait "$!" 2>/dev/null
fi
# The output file lives on without a name, as long as the process holds it.
rm -r "$folder"
exit 0
