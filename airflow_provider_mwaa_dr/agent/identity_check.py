"""Whether this Airflow is its region's environment, according to the state table and to heartbeats."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.identity import Identity, RivalWatch, identity_problem, needs_rival_watch
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import (
    IDENTITY_CLAIMS,
    Clock,
    Observation,
    StateStore,
)
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.core.timing import Timing

log = get_logger(__name__)


class IdentityCheck:
    """
    Compares this Airflow with the environment that each read of the state names.

    :param timing: how long a live agent may be silent, and the time between two reads of the heartbeats.
    """

    def __init__(self, identity: Identity, store: StateStore, clock: Clock, timing: Timing) -> None:
        self._identity = identity
        self._store = store
        self._watch = RivalWatch(identity, clock, silence_s=timing.agent_silence_s)
        self._disputed: tuple[str, ...] = ()
        self._comparison = Timer(clock, timing.heartbeat_s)
        self._problem: LogOnChange[str | None] = LogOnChange(None)

    def with_rivals(self, observation: Observation) -> Observation:
        """
        Return *observation* with the environments that dispute the region, according to the heartbeats.

        Reads the heartbeats only if no registered name decides.
        """
        if not needs_rival_watch(self._identity, observation):
            return observation
        if self._comparison.is_due:
            region = self._identity.region
            claims = self._store.find_all(IDENTITY_CLAIMS, region)
            self._disputed = tuple(self._watch.compare([*self._store.agents(region), *claims]))
            self._comparison.restart()
        disputed = self._disputed or (() if self._watch.is_sure else observation.disputed)
        return replace(observation, disputed=disputed)

    def problem(self, compared: Observation) -> str | None:
        """
        Return why this Airflow may not be its region's environment; None if it is.

        :param compared: what :meth:`with_rivals` returned.
        """
        region = self._identity.region
        problem = identity_problem(self._identity, compared)
        if problem is None and needs_rival_watch(self._identity, compared) and not self._watch.has_compared:
            return (
                f"no environment is registered for {region}, and the agent waits for the next heartbeats, which "
                f"show whether another environment also counts as {region}; mwaa-dr init registers it"
            )
        return problem

    def problem_before_first_read(self) -> str | None:
        """Return what is wrong without a registered name; the variables that MWAA sets may be enough."""
        return identity_problem(self._identity, Observation(state=None, reconciled_epoch=None))

    def log(self, problem: str | None) -> None:
        """Log a problem when it changes and when it ends."""
        if not self._problem.changes_to(problem):
            return
        if problem is not None:
            log.error("This Airflow holds every run: %s.", problem)
        else:
            log.info("The settings and the state table now agree that this Airflow is %s.", self._identity.region)
