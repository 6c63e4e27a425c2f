"""
All benchmarks, or those that are named: ``python -m tests.benchmarks [NAME ...]``, or ``make bench``.

Each in a process of its own; what they wrote to build/bench is put together in build/bench.json, and as a table for
people in build/bench.md.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.benchmarks.report import BUILD, row

NAMES = ("scheduler", "command_line", "adoption", "costs", "failover")
HEAD = "| what | measured | goal | | beside it | note |\n|---|---|---|---|---|---|"


def main(names: list[str]) -> int:
    """Return 1 when a benchmark failed, or is not known; a goal that is missed is no failure."""
    unknown = {*names} - {*NAMES}
    if unknown:
        print(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 1
    failed = []
    for name in names or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode != 0:
            failed.append(name)
    reports = [json.loads(path.read_text()) for name in NAMES if (path := BUILD / f"{name}.json").exists()]
    (BUILD.parent / "bench.json").write_text(json.dumps(reports, indent=2) + "\n")
    rows = [row(measured) for report in reports for measured in report["measured"]]
    (BUILD.parent / "bench.md").write_text("\n".join([HEAD, *rows]) + "\n")
    print(f"figures: build/bench.json, build/bench.md{', FAILED: ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
