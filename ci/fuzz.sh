#!/usr/bin/env bash
# Fuzzes every parser of what the kernel, a process or a user wrote: each target of fuzz/, one after the other, on one core, for
# a number of executions. Prints a line per target.
#   RUNS      executions per target (default 10000000)
#   SECONDS_PER_TARGET  and no longer than this (default 3600)
#   SANITIZER (default none: the parsers are safe code, so a finding is a panic, a hang or too much memory; `address` looks into
#             the dependencies' unsafe code too, and takes twice as long)
# Needs a nightly toolchain, cargo-fuzz (`cargo install cargo-fuzz --locked`) and a C++ compiler. Inputs are kept in
# $CARGO_TARGET_DIR/fuzz-corpus, and the next run goes on from them; findings in $CARGO_TARGET_DIR/fuzz-findings.
# Exits with 1 on a finding, and with 2 if a target did not come to its number of executions for another reason.
# Usage: ci/fuzz.sh [TARGET]…
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
runs=${RUNS:-10000000} seconds=${SECONDS_PER_TARGET:-3600} sanitizer=${SANITIZER:-none}
output=$(realpath -m "${CARGO_TARGET_DIR:-fuzz/target}")
corpus=$output/fuzz-corpus findings=$output/fuzz-findings
[[ $runs =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ ]] || { echo "RUNS and SECONDS_PER_TARGET are numbers above 0" >&2; exit 2; }

# The longest input in bytes: what the parser needs to reach all of its branches, and no more, since long ones only cost time.
longest() {
  case $1 in
    events | events_written | mountinfo | mountinfo_written | record | run_folder | sockets_written) echo 1024 ;;
    args_values | cgroup_events | cgroup_path | lineage | marks | pids | run_id | stat_written | status_written) echo 256 ;;
    status) echo 2048 ;;
    *) echo 512 ;;
  esac
}

cargo +nightly fuzz build --sanitizer "$sanitizer" --fuzz-dir fuzz --target-dir "$output" 2>"$output.log" || {
  cat "$output.log" >&2
  exit 2
}
rm -f "$output.log"
programs=$output/$(rustc +nightly -vV | sed -n 's/^host: //p')/release
mkdir -p "$corpus" "$findings"
fuzz/seeds.sh "$corpus"
# Some targets read real files; in memory that costs little.
memory=/dev/shm; [ -w $memory ] || memory=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$memory/headcount-fuzz.XXXXXX"); export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir fuzz)
[ $# = 0 ] || targets=("$@")
outcome=0
printf '%-18s %11s %8s %9s  %s\n' target executions seconds per-second finding
for target in "${targets[@]}"; do
  mkdir -p "$corpus/$target"
  log=$findings/$target.log began=$EPOCHREALTIME status=0
  # One input may take 20 s, on a machine that has other work; the outer limit is for a fuzzer that does not keep its own.
  timeout --kill-after=10 $((seconds + 120)) "$programs/$target" -runs="$runs" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=2048 -max_len="$(longest "$target")" -print_final_stats=1 -artifact_prefix="$findings/$target-" \
    "$corpus/$target" >"$log" 2>&1 || status=$?
  took=$(awk "BEGIN { printf \"%.0f\", $EPOCHREALTIME - $began }")
  done_runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ $status != 0 ]; then
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    finding="status $status; again with: $programs/$target ${input:-(no input: see $log)}"
    outcome=1
  elif [ "${done_runs:-0}" -lt "$runs" ]; then
    finding="none, but stopped after $took of $seconds s"
    [ $outcome = 1 ] || outcome=2
  else
    finding=none
  fi
  printf '%-18s %11s %8s %9s  %s\n' "$target" "${done_runs:-?}" "$took" "$((${done_runs:-0} / (took > 0 ? took : 1)))" "$finding"
done
exit $outcome
