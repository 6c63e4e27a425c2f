"""Checks of what another version of Airflow changes: schedules, names of options, teams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from airflow_provider_mwaa_dr.core.inventory import DagSchedule
from airflow_provider_mwaa_dr.core.readiness.comparison import (
    UPGRADE_ADVICE,
    Difference,
    both_inventories,
    both_upgrade_facts,
    by_phrase,
    compare,
    not_checked,
)
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, RegionFacts, Unknown, Verdict


def check_schedules(facts: Facts) -> CheckResult:
    """
    Whether the schedule of each DAG has the same meaning in both regions. If not, the check shows the mark and the
    logical date of the next three runs. Airflow 3 gives the runs of a cron string other logical dates than Airflow 2.
    """
    upgrades, both = both_upgrade_facts(facts), both_inventories(facts)
    if isinstance(upgrades, Unknown) or isinstance(both, Unknown):
        why = upgrades.why if isinstance(upgrades, Unknown) else both.why if isinstance(both, Unknown) else ""
        return not_checked("schedules", why, UPGRADE_ADVICE)
    target, source = both
    same_days = upgrades[0].marks_from == upgrades[1].marks_from
    changes: dict[str, set[str]] = {}
    common = target.dags.keys() & source.dags.keys()
    for dag_id in common:
        ours, theirs = target.dags[dag_id].schedule, source.dags[dag_id].schedule
        if ours is None or theirs is None or not (ours.runs or theirs.runs):
            continue
        # Around midnight (UTC), one of two agents still lists the runs of the day before.
        if ours.runs != theirs.runs if same_days else ours.timetable != theirs.timetable:
            changes.setdefault(_schedule_change(facts, ours, theirs), set()).add(dag_id)
    return compare(
        "schedules",
        facts,
        by_phrase(Verdict.WARN, changes, others="other marks or logical dates"),
        fine=f"{len(common)} DAGs, with the same marks and logical dates in both regions",
        advice="A failover executes each mark once, also if its logical date changes. To keep the logical dates, set "
        "[scheduler] create_cron_data_intervals and create_delta_data_intervals to the same values in both "
        "environments, or use CronDataIntervalTimetable in the DAG. If the change is intended: "
        "accepted_differences = schedules:ID.",
    )


def _schedule_change(facts: Facts, target: DagSchedule, source: DagSchedule) -> str:
    """Return the next runs of a DAG in both regions, all times in UTC."""
    in_source = f"{facts.source.region} ({source.timetable})"
    in_target = f"{facts.target.region} ({target.timetable})"
    marks = [[mark for _, mark in each.runs] for each in (source, target)]
    dates = [_times(date for date, _ in each.runs) for each in (source, target)]
    if marks[0] == marks[1]:
        return (
            f"due {_times(marks[0])} (UTC) in both regions, with the logical dates {dates[0]} in {in_source}, and "
            f"{dates[1]} in {in_target}"
        )
    due = [
        f"due {_times(mark)} (UTC) with the logical dates {date}" if mark else "no further scheduled run"
        for mark, date in zip(marks, dates, strict=True)
    ]
    return f"{due[0]} in {in_source}, and {due[1]} in {in_target}"


def _times(times: Iterable[str]) -> str:
    return ", ".join(time.removesuffix("Z").removesuffix(":00") for time in times)


def check_renamed(facts: Facts) -> CheckResult:
    """
    Whether the target's version of Airflow knows the options that its environment or the source's environment sets. The
    names are those of Airflow's own lists of renamed and removed options. Values are never shown.
    """
    upgrades = both_upgrade_facts(facts)
    if isinstance(upgrades, Unknown):
        return not_checked("renamed", upgrades.why, UPGRADE_ADVICE)
    changed = upgrades[0].changed_options
    set_in_target, set_in_source = set(_set_options(facts.target)), set(_set_options(facts.source))
    in_target = (set_in_target & changed.keys()) | set(upgrades[0].unknown_options)
    # An option whose new name is set needs no action.
    in_source = {
        name for name in set_in_source & changed.keys() if changed[name] not in set_in_target and name not in in_target
    }
    sentences: dict[str, set[str]] = {}
    for where, names in ((facts.target.environment, in_target), (facts.source.environment, in_source)):
        for name in names:
            new = changed.get(name)
            change = f"renamed to {new}" if new else "unknown"
            phrase = f"set in {where}, and {change} in the version of {facts.target.environment}"
            sentences.setdefault(phrase, set()).add(name)
    return compare(
        "renamed",
        facts,
        by_phrase(Verdict.WARN, sentences, others=f"renamed or unknown in {facts.target.environment}"),
        fine=f"{facts.target.environment} knows the options that are set",
        advice="Set the new name in the target, and check the unit of its value: airflow config lint of the target's "
        "version describes each change. Remove an option that the version does not know, or declare it: "
        "accepted_differences = renamed:NAME.",
        doubts=[
            f"the options of {region.environment} are unknown: {region.description.why}"
            for region in facts.regions
            if isinstance(region.description, Unknown)
        ],
    )


def _set_options(region: RegionFacts) -> Iterable[str]:
    return () if isinstance(region.description, Unknown) else region.description.options


def check_teams(facts: Facts) -> CheckResult:
    """
    Whether both environments have the same teams (``team_name``, Airflow 3.2 and later), and whether the users of both
    sign in through IAM Identity Center.
    """
    upgrades = both_upgrade_facts(facts)
    if isinstance(upgrades, Unknown):
        return not_checked("teams", upgrades.why, UPGRADE_ADVICE)
    teams: dict[str, set[str]] = {}
    centers: Mapping[str, bool] = {}
    doubts = []
    for region, upgrade in zip(facts.regions, upgrades, strict=True):
        teams[region.environment] = set(upgrade.teams)
        if isinstance(region.description, Unknown):
            doubts.append(f"the sign-in of {region.environment} is unknown: {region.description.why}")
            continue
        teams[region.environment] |= region.description.teams
        centers = {**centers, region.environment: region.description.has_identity_center}
    one, other = teams
    differences = [
        Difference(Verdict.WARN, f"teams only in {one}", teams[one] - teams[other]),
        Difference(Verdict.WARN, f"teams only in {other}", teams[other] - teams[one]),
    ]
    if sorted(centers.values()) == [False, True]:
        only = next(environment for environment, has_center in centers.items() if has_center)
        differences.append(
            Difference(Verdict.WARN, f"users sign in through it only in {only}", ["IdentityCenter"], value_of=True)
        )
    return compare(
        "teams",
        facts,
        differences,
        fine="the same teams and the same sign-in in both environments",
        advice="A failover transfers no teams: a DAG, pool, variable or connection of a team has none in the other "
        "environment. Configure the same teams and sign-in in both environments, or declare the difference: "
        "accepted_differences = teams:NAME.",
        doubts=doubts,
    )
