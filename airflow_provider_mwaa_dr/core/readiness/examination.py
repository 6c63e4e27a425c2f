"""Reads the facts about a DR set, and runs all checks on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, StateStore, Tables
from airflow_provider_mwaa_dr.core.readiness.checks import check_all
from airflow_provider_mwaa_dr.core.readiness.collect import collect_facts
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The facts about a failover from *source* to *target*, and the results of all checks."""

    facts: Facts
    results: Sequence[CheckResult]

    @property
    def source(self) -> str:
        """The active region."""
        return self.facts.source.region

    @property
    def target(self) -> str:
        """The region to fail over to."""
        return self.facts.target.region

    def count(self, verdict: Verdict) -> int:
        """Return how many checks have *verdict*."""
        return sum(result.verdict is verdict for result in self.results)


def examine(
    store: StateStore,
    tables: Tables,
    environments: Mapping[str, Environment],
    clock: Clock,
    settings: DRConfig,
    *,
    target: str | None = None,
    on_wait: Callable[[str], object] = lambda _: None,
) -> Examination:
    """
    Return the results of all checks for a failover to *target*. Changes nothing.

    Never raises for a region that is down: its facts are then unknown, and it is not called again.

    :param target: the region to fail over to; None if the set has only one region besides the active one.
    :param on_wait: called with each region for whose heartbeat this waits.
    :raises StateError: the state could not be read, or there is none: no check is possible.
    :raises ConfigError: *target* is active, not in the set, or not given although there are several.
    """
    facts = collect_facts(store, tables, environments, clock, settings, target=target, on_wait=on_wait)
    return Examination(facts=facts, results=check_all(facts))
