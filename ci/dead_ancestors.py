#!/usr/bin/python3
"""How often `headcount run` knew the arguments of ancestors that were gone, by the argv_known of its reports.

Usage: dead_ancestors.py GATE LABEL. Two loads: 5 daemons a run, 60 runs; and 100 daemons a run, 3 runs. Each daemon has two
shells above it that end at once, and the command.
"""

import json
import os
import subprocess
import sys
import tempfile

CHAIN = "i=0; while [ $i -lt COUNT ]; do sh -c 'sh -c \"sleep 60 & exit 0\" below; exit 0' above; i=$((i+1)); done; exit 0"


def main() -> int:
    gate, label = sys.argv[1], sys.argv[2]
    for count, runs in ((5, 60), (100, 3)):
        known = total = chains = lost = 0
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                report = os.path.join(folder, "report.json")
                command = [gate, "run", "--grace", "0s", "--on-leak", "report", "--report", f"json={report}"]
                command += ["--report", "text=/dev/null", "--", "sh", "-c", CHAIN.replace("COUNT", str(count))]
                subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL)
                with open(report, encoding="utf-8") as file:
                    content = json.load(file)
            assert "events" in content["tiers"], content["missing_tiers"]
            assert len(content["leaks"]) == count, len(content["leaks"])
            for leak in content["leaks"]:
                chains += 1
                lost += "spawned_by" in leak["evidence_missing"]
                gone = [link for link in leak["spawned_by"] if not link["alive"]]
                assert len(gone) == 3 or "spawned_by" in leak["evidence_missing"], leak
                total += len(gone)
                known += sum(link["argv_known"] for link in gone)
        print(
            f"argv, {label}, {count} daemons a run: known of {known} of {total} dead ancestors "
            f"({100 * known / total:.1f} %); {lost} of {chains} chains incomplete"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
