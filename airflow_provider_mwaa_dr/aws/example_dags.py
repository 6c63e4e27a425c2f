"""The example DAGs, as they come with the package."""

from __future__ import annotations

from pathlib import Path

import airflow_provider_mwaa_dr

DEPLOYED = ("dr_failover.py", "dr_test_dag.py")
"""Those that a DR set is used with."""
EXAMPLE_DAGS = "sandbox/example_dags"
"""Where an installed package has them."""


def example_dags() -> Path:
    """Return the folder they are in: inside an installed package, beside it in a checkout."""
    package = Path(airflow_provider_mwaa_dr.__file__).parent
    inside = package / EXAMPLE_DAGS
    return inside if inside.is_dir() else package.parent / "example_dags"
