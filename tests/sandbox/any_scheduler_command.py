"""
``mwaa-dr`` with an error: the acknowledgement of one scheduler counts for its region. Control of test_two_schedulers.

The error is in both functions of core/lease.py, and in each module that uses them. Otherwise the command would wait
until the lease has expired, which the control must not need.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from airflow_provider_mwaa_dr.cli import application
from airflow_provider_mwaa_dr.core import lease
from airflow_provider_mwaa_dr.core.failover import drain, lease_wait
from airflow_provider_mwaa_dr.core.ports import AgentStatus


def main() -> int:
    """Return the exit code of the command."""

    def has_acknowledged(agents: Sequence[AgentStatus], version: int) -> bool:
        return any(agent.version >= version for agent in agents)

    lease.has_acknowledged = lease.live_have_acknowledged = has_acknowledged
    drain.has_acknowledged = has_acknowledged
    lease_wait.has_acknowledged = lease_wait.live_have_acknowledged = has_acknowledged
    return application.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
