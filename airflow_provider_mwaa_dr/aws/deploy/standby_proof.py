"""
The proof that a standby works, before a deployment touches the active environment.

An update may end as AVAILABLE although pip installed nothing, or although the execution role lacks permissions. What
counts is a heartbeat of the new version, and a worker that has loaded the fence. Nothing executes in a standby except
DAGs with the tag ``dr:control``, so the proof triggers the DAG ``dr_readiness``.
"""

from __future__ import annotations

from datetime import datetime

from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploymentStep, Say
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import ControlPlane
from airflow_provider_mwaa_dr.core.heartbeats import beats
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, AgentStatus, Clock, DagInfo, Environment, StateStore
from airflow_provider_mwaa_dr.exceptions import DeploymentError, MwaaError, MwaaUnreachableError

READINESS_DAG = "dr_readiness"
POLL_S = 10.0
SAY_S = 60.0


class StandbyProof:
    """
    Waits until the plugin works in a standby.

    :param environment: Airflow of the standby.
    :param plane: describes the standby; a fence that was loaded before the last update proves nothing.
    :param version: the version of the package that must run there.
    :param limit_s: how long the proof may take.
    """

    def __init__(
        self,
        store: StateStore,
        environment: Environment,
        plane: ControlPlane,
        clock: Clock,
        *,
        version: str,
        limit_s: float,
        say: Say,
    ) -> None:
        self._store = store
        self._environment = environment
        self._plane = plane
        self._clock = clock
        self._version = version
        self._limit_s = limit_s
        self._say = say
        self._said_at = 0.0

    def step(self) -> DeploymentStep:
        """Return the step. It changes nothing except a run of ``dr_readiness``."""
        return DeploymentStep(
            name=f"proof {self._environment.region}",
            detail=f"until an agent of version {self._version} and the fence work in {self._environment.name}",
            act=self._prove,
            waits=True,
        )

    def _prove(self) -> str:
        self._said_at = self._clock.monotonic()
        deadline = self._said_at + self._limit_s
        agents = self._await_agents(deadline)
        run = self._await_fence(deadline)
        how = f"a task of {run} loaded the fence" if run else "a worker has loaded the fence since the update"
        return f"{self._environment.name}: {agents} live agent(s) of version {self._version}, and {how}"

    def _await_agents(self, deadline: float) -> int:
        region = self._environment.region
        seen = beats(self._store.agents, [region])[region]
        while True:
            alive = [each for each in self._store.agents(region) if not each.gone and each.beat != seen.get(each.job)]
            new = [each for each in alive if each.provider_version == self._version]
            if new:
                return len(new)
            if self._clock.monotonic() >= deadline:
                raise self._failure(
                    f"No agent of version {self._version} sends heartbeats ({_described(alive)})",
                    "Look for the errors of pip in the log stream requirements_install of the scheduler, and for "
                    "mwaa_dr in the scheduler's log; check that the execution role may use the state table.",
                )
            self._wait(f"no heartbeat of version {self._version} yet")

    def _await_fence(self, deadline: float) -> str:
        """Return the run that was triggered to load the fence; empty if it was loaded already."""
        run_id = ""
        was_paused = False
        updated_at = self._plane.describe().updated_at
        why = f"Airflow lists no DAG {READINESS_DAG}"
        try:
            while not self._fence_is_loaded(since=updated_at):
                try:
                    if run_id:
                        why = f"run {run_id} of {READINESS_DAG} is {self._environment.run_state(READINESS_DAG, run_id)}"
                    elif (dag := self._readiness_dag()) is not None:
                        was_paused = was_paused or dag.is_paused
                        run_id = self._trigger(unpause=dag.is_paused)
                except MwaaUnreachableError as error:
                    why = f"Airflow does not answer ({error.message.rstrip('.')})"
                if self._clock.monotonic() >= deadline:
                    raise self._failure(
                        f"No worker has loaded the fence; {why}",
                        f"Look for the errors of pip in the log stream requirements_install of a worker, and for "
                        f"errors of {READINESS_DAG} in Airflow.",
                    )
                self._wait(f"no worker has loaded the fence yet; {why}")
        except MwaaError as error:
            raise self._failure(
                f"{READINESS_DAG} cannot be run: {error.message.rstrip('.')}",
                f"{error.advice} Or trigger {READINESS_DAG} in that environment yourself.".strip(),
            ) from error
        finally:
            if was_paused:
                self._pause_again()
        return f"{READINESS_DAG} {run_id}" if run_id else ""

    def _fence_is_loaded(self, *, since: datetime | None) -> bool:
        load = self._store.get(FENCE_LOADS, self._environment.region)
        return load is not None and (since is None or load.at >= since)

    def _readiness_dag(self) -> DagInfo | None:
        return next((dag for dag in self._environment.dags() if dag.dag_id == READINESS_DAG), None)

    def _trigger(self, *, unpause: bool) -> str:
        if unpause:
            self._environment.set_paused([READINESS_DAG], paused=False)
        run_id = f"mwaa_dr_deploy__{self._clock.now():%Y%m%dT%H%M%SZ}"
        self._environment.trigger(READINESS_DAG, run_id=run_id, note="mwaa-dr deploy: shows that the fence is loaded")
        return run_id

    def _pause_again(self) -> None:
        try:
            self._environment.set_paused([READINESS_DAG], paused=True)
        except MwaaError as error:
            self._say(f"WARNING: {READINESS_DAG} in {self._environment.name} stays unpaused: {error.message}")

    def _failure(self, why: str, advice: str) -> DeploymentError:
        return DeploymentError(
            f"{self._environment.name} is updated, but does not work: {why}. The active environment was not changed.",
            advice=f"{advice} Then run the same command again.",
        )

    def _wait(self, why: str) -> None:
        if self._clock.monotonic() - self._said_at >= SAY_S:
            self._said_at = self._clock.monotonic()
            self._say(f"{self._environment.name}: {why}; at most {self._limit_s / 60:g} minutes after the update")
        self._clock.sleep(POLL_S)


def _described(alive: list[AgentStatus]) -> str:
    versions = sorted({each.provider_version for each in alive})
    return f"live agents have version {', '.join(versions)}" if versions else "no agent is alive"
