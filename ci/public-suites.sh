#!/usr/bin/env bash
# The gate around the test suites of two public projects that nobody here wrote: joblib (Python: process pools, shared memory,
# resource trackers) and tape (Node: a test runner whose tests start others). Installs both from their registries into
# $CACHE, runs their tests under the gate, and prints what it found. Usage: ci/public-suites.sh [joblib|tape]…
set -euo pipefail
cd "$(dirname "$0")/.."
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headcount/public-suites}
GATE=${GATE:-$PWD/target/release/headcount}
mkdir -p "$CACHE"
[ -x "$GATE" ] || cargo build --release --quiet --bin headcount

report() { # name, status
  python3 - "$CACHE/$1.json" "$1" "$2" <<'PY'
import collections, json, sys
file, name, status = sys.argv[1:]
report = json.load(open(file))
print(f"{name}: headcount ended with {status}, the suite with {report['exit']}, verdict {report['verdict']} "
      f"(tiers {', '.join(report['tiers'])}), {len(report['leaks'])} leaks, {report['stats']}")
for (kind, argv, test), count in collections.Counter(
    (leak["kind"], " ".join(leak["argv"])[:150], (leak["test"] or {}).get("id")) for leak in report["leaks"]
).most_common(20):
    print(f"  {count} × {kind}: {argv} (test {test})")
PY
}

joblib() {
  [ -x "$CACHE/python/bin/pytest" ] || {
    python3 -m venv "$CACHE/python"
    "$CACHE/python/bin/pip" install --quiet joblib==1.6.0 pytest==9.0.2 numpy
  }
  local tests
  tests=$("$CACHE/python/bin/python" -c 'import joblib, os; print(os.path.join(os.path.dirname(joblib.__file__), "test"))')
  local status=0
  (cd "$CACHE" && "$GATE" run --timeout 20m --report json="$CACHE/joblib.json" -- \
    "$CACHE/python/bin/pytest" -q -p no:cacheprovider "$tests/test_parallel.py" "$tests/test_memmapping.py" \
      "$tests/test_cloudpickle_wrapper.py" "$tests/test_missing_multiprocessing.py") || status=$?
  report joblib "$status"
}

tape() {
  [ -d "$CACHE/tape/package/node_modules/tap" ] || {
    mkdir -p "$CACHE/tape"
    # Of what its developers use, only what its tests load: the rest asks for versions that no registry has any more.
    (cd "$CACHE/tape" && npm pack --silent tape@5.10.2 >/dev/null && tar xzf tape-5.10.2.tgz && cd package &&
      npm pkg delete devDependencies &&
      npm install --silent --no-audit --no-fund --ignore-scripts --no-save concat-stream@1 es-value-fixtures@1 falafel@2 \
        js-yaml@3 semver@6 tap@8 tap-parser@5 array.prototype.flatmap@1 >/dev/null)
  }
  local status=0
  (cd "$CACHE/tape/package" && "$GATE" run --timeout 10m --report json="$CACHE/tape.json" -- \
    node_modules/.bin/tap --no-coverage --reporter=dot test/*.js >"$CACHE/tape.out") || status=$?
  tail -n 6 "$CACHE/tape.out"
  report tape "$status"
}

[ $# -gt 0 ] || set -- joblib tape
for suite in "$@"; do "$suite"; done
