"""
An update of an emulated MWAA environment: the emulated AWS starts one process for each update.

``python -m airflow_provider_mwaa_dr.sandbox.runtime.update --home HOME REGION`` reads the changes from stdin, rebuilds
the region's Airflow, and ends with 0. If that fails, it writes the reason to stdout and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox


def main(argv: list[str] | None = None) -> int:
    """Run one update."""
    parser = argparse.ArgumentParser(prog="update", description="Update an environment of the sandbox.")
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home")
    parser.add_argument("region")
    arguments = parser.parse_args(argv)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    sandbox = Sandbox(arguments.home, say=lambda line: print(line, file=sys.stderr, flush=True))
    try:
        sandbox.update(arguments.region, json.load(sys.stdin))
    except (DRError, OSError) as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
