"""
What the simulation of all kinds of runs takes out to show that it is needed.

:data:`KIND_RULES` has a function for each rule, what a history that goes wrong without it reports, and the seed of such
a history. ``python -m tests.simulation --world kinds --without NAME`` runs histories without one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from airflow_provider_mwaa_dr.agent import leader
from airflow_provider_mwaa_dr.core import ledger, translation
from airflow_provider_mwaa_dr.core.bookkeeping import (
    Bookkeeper,
    outcomes,
    publishing,
    resolving,
    resuming,
    role_changes,
)
from airflow_provider_mwaa_dr.core.ledger import SCHEDULED, Head, LedgerRun
from airflow_provider_mwaa_dr.core.translation import Era
from tests.simulation.kinds_airflow import KindsAirflow

Patch = pytest.MonkeyPatch

# The head of a DAG, and the dates that are taken.


def with_heads_of_scheduled_runs_only(patch: Patch) -> None:
    """The intervals of a backfill then execute again, unless their last success is adopted for look-backs."""
    patch.setattr(ledger, "AUTOMATED", (SCHEDULED,))
    patch.setattr(resolving, "last_successes", lambda *_: [])


def without_heads_of_partitions(patch: Patch) -> None:
    patch.setattr(Head, "_with_partition", lambda head, _: head)


def without_dates_that_other_runs_hold(patch: Patch) -> None:
    patch.setattr(Head, "_with_dated", lambda head, *_: head)


def with_requested_runs_that_repeat_a_date(patch: Patch) -> None:
    """The other region has executed the date while the region that a user requested it in was lost."""
    for module in (resolving, resuming):
        patch.setattr(module, "passed_by", lambda *_, **__: None)


def with_own_ends_that_remain(patch: Patch) -> None:
    """A run that a user requested in a standby then holds the date of an interval, which no region executes."""
    patch.setattr(Bookkeeper, "resolve", lambda *_, **__: False)


def with_own_ends_dropped_before_the_history_is_adopted(patch: Patch) -> None:
    """The scheduler then creates intervals again that another region executed."""
    patch.setattr(resolving, "history", lambda *_: [])
    patch.setattr(resolving, "results", lambda *_: {})


# Two runs of one interval.


def with_runs_that_only_their_ids_identify(patch: Patch) -> None:
    patch.setattr(ledger, "is_same_interval", lambda run, other: run.key == other.key)


def with_ended_runs_that_are_retained_by_their_ids(patch: Patch) -> None:
    """The other region then cannot read that its run of the same interval is no longer needed."""
    patch.setattr(publishing, "is_known_elsewhere", lambda run, others: any(run.key in other.runs for other in others))


# Two versions of Airflow.


def with_one_era_for_all_versions(patch: Patch) -> None:
    patch.setattr(leader, "Era", _NoEra)


class _NoEra:
    @staticmethod
    def of(version: str) -> None:
        return None


def with_resumed_runs_that_keep_a_date_that_another_run_needs(patch: Patch) -> None:
    patch.setattr(translation, "resumed_at", lambda run, *_: run.logical_date)


def with_adopted_runs_that_keep_their_interval(patch: Patch) -> None:
    """The next run of the schedule may then have the date of the adopted one."""
    own_forms = translation.own_forms

    def first(run: LedgerRun, schedule: Any, era: Era) -> Any:
        return own_forms(run, schedule, era) and [era.named(run)]

    patch.setattr(translation, "own_forms", first)


def with_the_newest_run_by_its_logical_date(patch: Patch) -> None:
    patch.setattr(ledger, "mark_of", lambda run: run.logical_date)


def with_an_adopted_result_beside_the_run_that_executes_again(patch: Patch) -> None:
    """A user may then start the interval a second time. The adapter has this rule: plugins/metadata/foreign_runs.py."""
    patch.setattr(KindsAirflow, "_remove_copies", lambda *_: None)


# What a run carries, and conditions of assets.


def without_intervals_in_the_ledger(patch: Patch) -> None:
    to_run = outcomes.to_run

    def bare(*args: Any, **values: Any) -> LedgerRun:
        return replace(to_run(*args, **values), data_interval_start=None)

    for module in (outcomes, role_changes, publishing):
        patch.setattr(module, "to_run", bare)


def without_confs_in_the_ledger(patch: Patch) -> None:
    to_run = outcomes.to_run

    def bare(*args: Any, **values: Any) -> LedgerRun:
        run = to_run(*args, **values)
        return run if run.conf is None else replace(run, conf='{"n": -1}')

    for module in (outcomes, role_changes, publishing):
        patch.setattr(module, "to_run", bare)


def without_the_events_that_triggered_a_run(patch: Patch) -> None:
    """The run then begins without them."""
    to_run = outcomes.to_run

    def bare(*args: Any, **values: Any) -> LedgerRun:
        run = to_run(*args, **values)
        return run if not run.events else replace(run, events=run.events[:1])

    for module in (outcomes, role_changes, publishing):
        patch.setattr(module, "to_run", bare)


def with_half_filled_conditions_kept(patch: Patch) -> None:
    """The adapter has this rule: plugins/metadata/waiting_events.py."""
    patch.setattr(KindsAirflow, "drop_waiting_events", lambda *_: None)


class Wrong(NamedTuple):
    """What a history without the rule reports, as a regular expression, and the seed of one."""

    what: str
    seed: int


AGAIN, LOST, ENDS = "executed again without", "is lost", "the scheduler of .* ends: UniqueViolation"
KIND_RULES: Mapping[Callable[[Patch], None], Wrong] = {
    with_heads_of_scheduled_runs_only: Wrong(AGAIN, 21),
    without_heads_of_partitions: Wrong(AGAIN, 9),
    without_dates_that_other_runs_hold: Wrong(AGAIN, 6),
    with_own_ends_that_remain: Wrong("its own ends remain", 0),
    with_own_ends_dropped_before_the_history_is_adopted: Wrong(AGAIN, 10),
    with_runs_that_only_their_ids_identify: Wrong(AGAIN, 29),
    with_ended_runs_that_are_retained_by_their_ids: Wrong(AGAIN, 29),
    with_one_era_for_all_versions: Wrong(f"{ENDS}|{AGAIN}", 0),
    with_resumed_runs_that_keep_a_date_that_another_run_needs: Wrong(f"{ENDS}|{AGAIN}|{LOST}", 1),
    with_adopted_runs_that_keep_their_interval: Wrong(f"{ENDS}|{AGAIN}|{LOST}", 0),
    with_the_newest_run_by_its_logical_date: Wrong(f"{AGAIN}|{LOST}", 133),
    with_an_adopted_result_beside_the_run_that_executes_again: Wrong("has two rows in", 1),
    without_intervals_in_the_ledger: Wrong("it was created with", 0),
    without_confs_in_the_ledger: Wrong("has the conf", 2),
    without_the_events_that_triggered_a_run: Wrong("it began with", 2),
    with_half_filled_conditions_kept: Wrong("from an earlier role", 1),
}
