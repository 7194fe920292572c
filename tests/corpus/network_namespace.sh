#!/bin/sh
# Leaks: a background child in a network namespace (and user namespace) of its own.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that asks the network (a socket diagnosis, /proc/net) or an abstract Unix
#   socket for what is left: neither goes across namespaces.

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
here=$(readlink /proc/self/ns/net)
# unshare becomes the shell and that the sleep: one process.
unshare --user --net sh -c '
    readlink /proc/self/ns/net >"$0" && exec sleep 120
' "$folder/ready" &
there=$(timeout 20 head -n 1 "$folder/ready")
rm -r "$folder"
if [ -z "$there" ] || [ "$there" = "$here" ]; then
    exit 1
fi
if [ "$1" = clean ]; then
    kill -TERM "$!"
    wait "$!" 2>/dev/null
fi
exit 0
