"""
Run all benchmarks, or the given ones: ``python -m tests.benchmarks [NAME ...]``, or ``make bench``.

Each benchmark runs in its own process and writes its figures to build/bench. This program collects them in
build/bench.json, in a table in build/bench.md, and in the plots build/bench-growth.png, build/bench-parts.png and
build/bench-ratios.png.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.benchmarks.plots import draw_growth, draw_parts, draw_ratios, factor, growth
from tests.benchmarks.report import BUILD, row

NAMES = ("scheduler", "command_line", "adoption", "backup", "costs", "running", "failover")
HEAD = "| what | measured | goal | | compared with | note |\n|---|---|---|---|---|---|"


def main(names: list[str]) -> int:
    """Return 1 if a benchmark failed or does not exist. A missed goal is not a failure."""
    unknown = {*names} - {*NAMES}
    if unknown:
        print(f"Unknown benchmark: {', '.join(sorted(unknown))}. Known are {', '.join(NAMES)}.", file=sys.stderr)
        return 1
    failed = []
    for name in names or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode != 0:
            failed.append(name)
    reports = [json.loads(path.read_text()) for name in NAMES if (path := BUILD / f"{name}.json").exists()]
    (BUILD.parent / "bench.json").write_text(json.dumps(reports, indent=2) + "\n")
    measured = [found for report in reports for found in report["measured"]]
    lines = [HEAD, *map(row, measured)]
    if series := growth(measured):
        draw_growth(series, BUILD.parent / "bench-growth.png")
        lines += [
            "",
            "| by the number of DAGs | largest size | cost, compared with the size before | DAGs |",
            "|---|---|---|---|",
        ]
        for name, found in series.items():
            cost, size = factor(found)
            lines.append(
                f"| {name} | {size:.3g} times as many DAGs | {cost:.2g} times as much | {found[-1]['size']:,} |"
            )
    draw_parts(measured, BUILD.parent / "bench-parts.png")
    draw_ratios(measured, BUILD.parent / "bench-ratios.png")
    (BUILD.parent / "bench.md").write_text("\n".join(lines) + "\n")
    print(f"figures: build/bench.json, build/bench.md{', FAILED: ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
