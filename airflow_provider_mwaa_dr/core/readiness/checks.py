"""The list of all readiness checks. Each check that does not refuse a failover has one entry in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from airflow_provider_mwaa_dr.core.readiness import dags, environments, tables, upgrade
from airflow_provider_mwaa_dr.core.readiness.model import Check, CheckResult, Facts, Verdict
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS

ADVISORY_CHECKS: Mapping[str, Check] = {
    "rights": tables.check_rights,
    "state": tables.check_state,
    "table": tables.check_table,
    "runs_table": tables.check_runs_table,
    "unreachable": environments.check_unreachable,
    "provider": environments.check_provider,
    "airflow": environments.check_airflow,
    "waiting": dags.check_waiting,
    "identity": environments.check_identity,
    "unpublished": tables.check_unpublished,
    "settings": environments.check_settings,
    "options": environments.check_options,
    "renamed": upgrade.check_renamed,
    "teams": upgrade.check_teams,
    "logs": environments.check_logs,
    "clocks": environments.check_clocks,
    "dags": dags.check_dags,
    "exempt": dags.check_exempt,
    "paused": dags.check_paused,
    "test_dag": dags.check_test_dag,
    "inventory": environments.check_inventory,
    "imports": dags.check_imports,
    "schedules": upgrade.check_schedules,
    "code": dags.check_code,
    "past": dags.check_past,
    "watchers": dags.check_watchers,
    "pools": environments.check_pools,
    "variables": environments.check_variables,
    "connections": environments.check_connections,
    "packages": environments.check_packages,
    "capacity": environments.check_capacity,
    "drill": tables.check_drill,
    "items": tables.check_items,
}
"""
The checks that do not refuse a failover, by name, in the order of the output. ``[dr] accepted_differences`` may accept
their results. The reference shows their docstrings.
"""

NAMES = (*(refusal.name for refusal in REFUSALS), *ADVISORY_CHECKS)
"""The names of all checks except ``accepted``, which checks the declarations themselves."""


def check_accepted(facts: Facts) -> CheckResult:
    """Whether the differences that ``[dr] accepted_differences`` declares name existing checks."""
    declared = facts.settings.accepted_differences
    wrong = [each for each in declared if each.partition(":")[0] not in ADVISORY_CHECKS]
    if wrong:
        return CheckResult(
            name="accepted",
            verdict=Verdict.WARN,
            why=f"have no effect: {', '.join(wrong)}",
            advice=f"Write CHECK or CHECK:NAME, where CHECK is one of {', '.join(ADVISORY_CHECKS)}.",
        )
    return CheckResult(name="accepted", verdict=Verdict.OK, why=", ".join(declared) or "no difference is declared")


def check_all(facts: Facts) -> Sequence[CheckResult]:
    """Return the results of all checks; first those that refuse a failover."""
    results = [refusal(facts) for refusal in REFUSALS]
    for name, check in ADVISORY_CHECKS.items():
        result = check(facts)
        if result.verdict is not Verdict.OK and name in facts.settings.accepted_differences:
            result = replace(result, verdict=Verdict.OK, why=f"accepted: {result.why}", advice="")
        results.append(result)
    return [*results, check_accepted(facts)]
