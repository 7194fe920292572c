#!/usr/bin/env bash
# Writes first inputs for the fuzz targets into FOLDER/TARGET/, from this machine's own /proc, so that none are committed.
# Nothing is taken that could hold a secret: of other processes only what every user may read, and of environments one made here.
# Usage: fuzz/seeds.sh FOLDER
set -euo pipefail
folder=${1:?usage: fuzz/seeds.sh FOLDER}

seed() { # target, name: the input is on stdin
  mkdir -p "$folder/$1"
  # A process may be gone by now: then there is one seed less.
  cat >"$folder/$1/$2" 2>/dev/null || true
  [ -s "$folder/$1/$2" ] || rm -f "$folder/$1/$2"
}

count=0
for process in /proc/[0-9]*; do
  pid=${process#/proc/}
  for file in stat status cgroup; do
    case $file in cgroup) target=cgroup_path ;; *) target=$file ;; esac
    head -c 4096 "$process/$file" 2>/dev/null | seed "$target" "$pid" || true
  done
  count=$((count + 1))
  [ $count -lt 32 ] || break
done
# Of two lines each, since an input is short: every table is cut into such pieces, heading first where it has one.
for table in tcp tcp6 udp udp6 unix; do
  for line in 2 3 4; do
    sed -n "1p;${line}p" "/proc/self/net/$table" 2>/dev/null | seed sockets "$table$line" || true
  done
done
for line in 1 2 3 4 5 6 7 8; do sed -n "${line}p" /proc/self/mountinfo | seed mountinfo "$line"; done
seq 1 7 | seed pids some
printf 'populated 1\nfrozen 0\n' | seed cgroup_events some

environment=(HEADCOUNT_TOKEN=00112233445566778899aabbccddeeff PWD=/srv EMPTY=)
for variable in HEADCOUNT_TEST=t 'PYTEST_CURRENT_TEST=tests/test_a.py::test_b (call)' NEXTEST_TEST_NAME=a::b \
  NEXTEST_BINARY_ID=crate::bin BATS_TEST_FILENAME=a.bats BATS_TEST_NAME=b TEST_TARGET=//a:b npm_package_name=a \
  npm_lifecycle_event=test; do
  for target in test_id strings; do
    env -i "${environment[@]}" "$variable" cat /proc/self/environ | seed "$target" "${variable%%=*}"
  done
done

run=00112233445566778899aabbccddeeff
printf '%s' $run | seed run_id one
printf '%s,%s' ${run//0/f} $run | seed run_id nested
record='{"schema":"headcount.run/1","run_id":"'$run'","host":{"boot_id":"b","pid_namespace":4026531836,"pid":7,"inode":9,'
record+='"start_ticks":11},"cgroup":"/sys/fs/cgroup/headcount-'$run'","program":"sh","tiers":["token"]}'
printf '%s' "$record" | seed record one

# A fork, an exec and an exit as the kernel sends them on a little-endian machine: nlmsghdr, cn_msg, proc_event.
message() { # kind's four bytes, then numbers below 256
  printf 'L\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\50\0\0\0'
  printf "$1"'\0\0\0\0\0\0\0\0\0\0\0\0'
  shift
  for number in "$@"; do printf "\\x$(printf %02x "$number")"'\0\0\0'; done
}
message '\1\0\0\0' 7 7 9 9 0 0 | seed events fork
message '\2\0\0\0' 9 9 0 0 0 0 | seed events exec
{ message '\1\0\0\0' 7 7 9 9 0 0; message '\0\0\0\200' 9 9 0 17 7 7; } | seed events exit

number=0
for text in --password=x 'Authorization: Bearer x' 'postgres://u:x@h/db' 'http://h/?token=x&a=b' '{"password": "x"}' \
  'TOKEN=x run --secret x; next' ghp_0123456789abcdef0123 'curl -u me:x'; do
  number=$((number + 1))
  printf '%s' "$text" | seed redact_text "$number"
done
printf 'a\\\303\251\377\033[2J\342\200\256\n' | seed text some

for line in 'run --grace 2s -- pytest -q' 'run --report json=x --report text -- true' 'run --tier token,cgroup --tier +namespace true' \
  'run --timeout 1m --on-leak report --leak-exit-code 7 --require-tier events -- true' 'audit --report json' reap doctor; do
  number=$((number + 1))
  printf '%s' "$line" | tr ' ' '\n' | seed args "$number"
done
for value in 500ms '1m 30s' json=x text +namespace token,events none 7; do
  number=$((number + 1))
  printf '%s' "$value" | seed args_values "$number"
done
