"""Users who check their DAGs with mypy see the types of the public interfaces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).with_name("typed_consumer.py")


def check(path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """
    Check a file as a user would, without the configuration of this repository.

    Airflow is not installed here, so the base classes of hooks and operators have any type. Errors in the provider
    itself are not shown: they are checked with its own configuration.
    """
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={cache}",
         str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_code_of_a_user_passes_the_strict_check(tmp_path: Path) -> None:
    """And a wrong use fails: an interface of unknown types would accept it."""
    cache = tmp_path / "cache"
    done = check(CONSUMER, cache)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.py"
    text = CONSUMER.read_text(encoding="utf-8")
    wrong.write_text(
        text.replace("hook.is_active(), bool", "hook.is_active(), str")
        .replace("clock.advance(5)", 'clock.advance("5")')
        .replace('target_region="us-east-1"', "target_region=1")
    )
    done = check(wrong, cache)
    assert done.stdout.count("error:") == 3, done.stdout


def test_the_wheel_tells_type_checkers_that_it_has_types() -> None:
    """PEP 561."""
    assert (ROOT / "airflow_provider_mwaa_dr" / "py.typed").is_file()
