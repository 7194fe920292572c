#!/usr/bin/env bash
# The long campaigns, whose figures stand in README. As root, on an otherwise idle machine.
#   clean   1,000 clean runs with both cores busy: no alarm, and nothing left of the gate's own (as root and as uid 65534)
#   load    every case of the corpus, leak and clean, in all tiers, with both cores busy, ROUNDS times (default 3)
#   strikes a gate killed at 200 of its system calls, in each tier, and reaped after (STRIKES for another number)
#   argv    how often the arguments of dead ancestors were known: few daemons and many, idle and with both cores busy
#   records audit and reap with 100, 1,000 and 10,000 records of dead runs, and as many processes of one
# Usage: ci/campaign.sh [clean|load|strikes|argv|records]…
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0
cargo build --release --quiet --bin headcount
work=$(mktemp -d); chmod 755 "$work"
cp target/release/headcount "$work/gate"
cp -r tests/corpus "$work/corpus"

busy=()
make_busy() { # Two loops that end by themselves after an hour, or with this script.
  for _ in 1 2; do timeout 3600 sh -c 'while :; do :; done' & busy+=($!); done
}
finish() {
  for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

as() { # user, command…
  local who=$1; shift
  if [ "$who" = root ]; then "$@"; else
    setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all "$@"
  fi
}

clean() {
  make_busy
  local cases=("$work"/corpus/*.py "$work"/corpus/*.sh "$work"/corpus/*.pl)
  for who in root nobody; do
    mkdir -m 700 "$work/state-$who"
    [ "$who" = root ] || chown 65534:65534 "$work/state-$who"
    local alarms=0 runs=0 status
    while [ $runs -lt 1000 ]; do
      # Every other run is a plain command; the others are the corpus's clean twins, in turn.
      if [ $((runs % 2)) = 0 ]; then set -- sh -c 'sh -c : & wait'; else set -- "${cases[$((runs / 2 % ${#cases[@]}))]}" clean; fi
      status=0
      as "$who" env HEADCOUNT_STATE_DIR="$work/state-$who" "$work/gate" run -- "$@" </dev/null >/dev/null 2>"$work/err" || status=$?
      if [ $status != 0 ]; then alarms=$((alarms + 1)); cat "$work/err"; fi
      runs=$((runs + 1))
    done
    echo "clean: $runs runs as $who with both cores busy: $alarms alarms, $(ls "$work/state-$who/runs" | wc -l) run folders left"
    [ $alarms = 0 ]
  done
}

load() {
  make_busy
  for round in $(seq "${ROUNDS:-3}"); do
    HEADCOUNT_TESTS_MUST_RUN=1 cargo test --quiet --package headcount-tests --test gate corpus
    echo "load: round $round of the corpus with both cores busy passed"
  done
}

strikes() {
  STRIKES=${STRIKES:-200} cargo test --quiet --package headcount-tests --test gate a_gate_killed_anywhere -- --nocapture
}

argv() {
  ci/dead_ancestors.py "$work/gate" idle
  make_busy
  ci/dead_ancestors.py "$work/gate" "both cores busy"
}

records() { ci/cleanup_scale.py "$work/gate"; }

[ $# -gt 0 ] || set -- argv records strikes clean load
for part in "$@"; do "$part"; done
