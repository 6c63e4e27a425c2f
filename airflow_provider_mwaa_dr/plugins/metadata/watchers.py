"""The triggers that a triggerer runs: watchers of assets, and triggers of deferred tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from sqlalchemy import Text, cast, distinct, exists, func, select

from airflow_provider_mwaa_dr.core.watching import Watchers
from airflow_provider_mwaa_dr.plugins.execution import HELD_MARK
from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption
from airflow_provider_mwaa_dr.plugins.metadata.schema import ASSET_CONSUMERS, JOBS, TASKS, TRIGGERS, WATCHERS
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction, utc_now

_HELD_TASK = "airflow_provider_mwaa_dr.plugins.held_task.HeldTaskTrigger"


@dataclass(frozen=True, slots=True)
class TriggersByUse:
    """
    Ids of triggers, by what Airflow needs them for.

    :param watchers: watchers of assets, without those that only exempt DAGs need.
    :param deferred: triggers of deferred tasks, without those of exempt DAGs and of tasks that the fence holds.
    """

    watchers: frozenset[int]
    deferred: frozenset[int]


def triggers_by_use(exempt: Exemption, *, with_deferred: bool) -> TriggersByUse:
    """
    Return the triggers in the database.

    :param with_deferred: whether to read those of deferred tasks, too.
    """
    with transaction() as session:
        watchers = session.execute(select(distinct(_watching()))).scalars() if WATCHERS is not None else ()
        return TriggersByUse(
            watchers=frozenset(watchers) - _exempt_only(session, exempt),
            deferred=frozenset(session.execute(_deferred(exempt)).scalars()) if with_deferred else frozenset(),
        )


def count_watchers(exempt: Exemption) -> Watchers:
    """Return how many watchers the region has, and which triggerers may run them."""
    if WATCHERS is None:
        return Watchers()
    count = len(triggers_by_use(exempt, with_deferred=False).watchers)
    if not count:
        return Watchers()
    threshold_s = conf.getint("triggerer", "triggerer_health_check_threshold", fallback=30)
    query = (
        select(JOBS.c.id)
        .where(
            JOBS.c.job_type == "TriggererJob",
            JOBS.c.state == "running",
            JOBS.c.latest_heartbeat > utc_now() - timedelta(seconds=threshold_s),
        )
        .order_by(JOBS.c.id)
    )
    with transaction() as session:
        return Watchers(count=count, triggerers=tuple(str(job_id) for job_id in session.execute(query).scalars()))


def _watching() -> Any:
    assert WATCHERS is not None  # noqa: S101  (callers check it)
    return WATCHERS.c.trigger_id


def _exempt_only(session: Any, exempt: Exemption) -> frozenset[int]:
    """Return the watchers that exempt DAGs need, and no other DAG."""
    if WATCHERS is None:
        return frozenset()
    consumer = ASSET_CONSUMERS.c.dag_id
    of_asset = ASSET_CONSUMERS.c.asset_id == WATCHERS.c.asset_id
    needed = select(distinct(_watching())).where(exists().where(of_asset, exempt.covers(consumer)))
    by_others = select(distinct(_watching())).where(exists().where(of_asset, ~exempt.covers(consumer)))
    return frozenset(session.execute(needed).scalars()) - frozenset(session.execute(by_others).scalars())


def _deferred(exempt: Exemption) -> Any:
    """Return the query of the triggers of deferred tasks that a region without the role must not run."""
    # A task that was held before it began waits with a trigger of Airflow. Its arguments show that it is held.
    arguments = func.coalesce(cast(TASKS.c.next_kwargs, Text), "")
    return (
        select(TASKS.c.trigger_id)
        .join(TRIGGERS, TRIGGERS.c.id == TASKS.c.trigger_id)
        .where(
            TASKS.c.state == "deferred",
            ~exempt.covers(TASKS.c.dag_id),
            TRIGGERS.c.classpath != _HELD_TASK,
            ~arguments.contains(HELD_MARK, autoescape=True),
        )
    )
