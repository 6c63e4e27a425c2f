"""The databases of a home, with the real server."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from airflow_provider_mwaa_dr.sandbox.runtime.postgres import Postgres


def test_a_removed_home_is_made_anew_in_the_same_process() -> None:
    """Stopped, its folder removed and started again, the server is there, empty."""
    # Not tmp_path: as root the server runs under a user of its own, which must be able to reach the folder.
    home = Path(tempfile.mkdtemp(prefix="mwaa-dr-"))
    postgres = Postgres(home / "postgres" / "data")
    try:
        for _ in range(2):
            assert postgres.start()
            assert postgres.create_database("region")
            postgres.stop()
            assert not postgres.is_running()
            shutil.rmtree(home)
    finally:
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)
