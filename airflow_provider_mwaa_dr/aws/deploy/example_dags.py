"""The example DAGs in the package."""

from __future__ import annotations

from pathlib import Path

import airflow_provider_mwaa_dr

ALWAYS_DEPLOYED = ("dr_readiness.py",)
"""What ``mwaa-dr deploy`` copies: a run of it in a standby shows that the fence is loaded."""
DEPLOYED = (*ALWAYS_DEPLOYED, "dr_failover.py", "dr_test_dag.py")
"""What ``mwaa-dr deploy --dags`` copies."""
EXAMPLE_DAGS = "example_dags"
"""Their folder in an installed package."""


def example_dags() -> Path:
    """Return the folder with the example DAGs: inside an installed package, beside the package in a checkout."""
    package = Path(airflow_provider_mwaa_dr.__file__).parent
    inside = package / EXAMPLE_DAGS
    return inside if inside.is_dir() else package.parent / "example_dags"
