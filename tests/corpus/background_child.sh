#!/bin/sh
# Leaks: a plain background child of the shell, in the same process group and session.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that only waits for CMD and takes its exit status 0 for the end. Also by
#   one that walks the tree of parents once CMD is gone: the child then belongs to init.

trap '' PIPE

case "$# $1" in
'1 leak')
    # The fork is done when the next line runs, so it is in place.
    sleep 120 &
    exit 0
    ;;
'1 clean')
    sleep 120 &
    kill -TERM "$!"
    # dash writes "Terminated" for it here, which is no news.
    wait "$!" 2>/dev/null
    exit 0
    ;;
*)
    echo "usage: $0 leak|clean" >&2
    exit 2
    ;;
esac
