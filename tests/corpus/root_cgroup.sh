#!/bin/sh
# Leaks: a background child that root has moved to the root cgroup of the cgroup2 hierarchy.
# Remains after leak: 1 alive, 0 zombies.
# Needs: root.
# Needs: cgroup.
# Missed by: a detector that puts CMD in a cgroup and then looks in there (cgroup.procs,
#   cgroup.events, cgroup.kill): with this privilege a process can leave.

trap '' PIPE

case "$# $1" in
'1 leak' | '1 clean') ;;
*)
    echo "usage: $0 leak|clean" >&2
    exit 2
    ;;
esac

root=
while read -r _ _ _ _ point rest; do
    case $rest in *' - cgroup2 '*) root=$point ;; esac
done </proc/self/mountinfo
[ -n "$root" ] || exit 1

sleep 120 &
# In place when this write is through: the kernel moves it at once.
echo "$!" >"$root/cgroup.procs" || {
    kill "$!"
    exit 1
}
if [ "$1" = clean ]; then
    kill -TERM "$!"
    wait "$!" 2>/dev/null
fi
exit 0
