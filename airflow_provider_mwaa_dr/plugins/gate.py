"""
The gate of a scheduler: decides for each run that is about to start, and keeps the agent's thread running.

The decision is made in the scheduler's only thread, inside its transaction. It therefore takes no lock and makes no
network call.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.agent.history import HistoryKeeper
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper, option_texts
from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.metrics import Metrics, Publishers, Stats
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.agent.settings_carrier import SettingsCarrier
from airflow_provider_mwaa_dr.core.config import DRConfig, is_exempt
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, decide
from airflow_provider_mwaa_dr.core.ledger import SCHEDULED
from airflow_provider_mwaa_dr.core.ports import Clock, StateStore
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.plugins.fork_guard import ForkGuard

log = get_logger(__name__)

_JOB_WAIT_S = 60.0
_FIRST_READ_WAIT_S = 10.0
_THREAD_WAIT_S = 10.0
"""If the process cannot start the agent's thread, the start of the scheduler retries for so long."""
_RESTART_FIRST_S, _RESTART_LONGEST_S = 1.0, 30.0
"""Time between the end of an agent and its restart; it doubles while restarts fail."""
_GONE_WAIT_S = 5.0
"""How long a scheduler that ends waits for its agent's last heartbeat."""
_PULSE_S = 0.2
"""
Time between two checks whether a turn is due, and whether the scheduler's thread still decides with an older view.

The scheduler's thread cannot wake the agent: that would need a lock.
"""
_PASS_S = 0.5
"""The longest time that one pass of the scheduler over the queued runs takes."""


class Gate:
    """
    The gate of one scheduler, and its agent's thread.

    :param job: the scheduler's job, which Airflow passes to ``on_starting``.
    """

    def __init__(self, *, config: DRConfig, job: Any, clock: Clock) -> None:
        # This imports Airflow's models. A task process of Airflow 3 must not import them, and a hook of the scheduler
        # must not be the first to import them.
        from airflow_provider_mwaa_dr.plugins.metadata import database, inventory, settings, starting_run  # noqa: PLC0415

        self._starting_run = starting_run
        self._db = database.MetadataDb(job, exempt_dags=config.exempt_dags)
        self._inventory_db = inventory.MetadataInventoryDb()
        self._settings_db = settings.MetadataSettingsDb()
        self._config = config
        self._clock = clock
        self._pid = os.getpid()
        self._counts = GateCounts()
        self._held_at: dict[str, float] = {}
        self._metrics = _publishers(config, clock)
        self._loop: AgentLoop | None = None
        self._is_alive = False
        self._is_stopping = False
        self._guard = ForkGuard(clock)
        self._has_read_state = threading.Event()

    def start(self) -> None:
        """
        Start the agent and wait until it has read the state once, some seconds at most.

        Called before the scheduler forks a process. At the first fork, boto3 is then imported, and no import runs.
        """
        self._start_thread()
        os.register_at_fork(after_in_parent=self._after_fork)
        if self._is_alive and not self._has_read_state.wait(_FIRST_READ_WAIT_S):
            log.warning(
                "The agent of %s has not read the state yet; the gate holds runs until it has.", self._config.region
            )

    def stop(self) -> None:
        """
        Hold every run from now on, and let the agent write its last heartbeat; this takes some seconds at most.

        Called in the scheduler's own thread after its loop has ended, so no decision is in progress or uncommitted.
        """
        if os.getpid() != self._pid or self._is_stopping:
            return
        self._is_stopping = True
        if self._loop is None:
            return

        def end() -> None:
            with self._guard:
                if self._loop is not None:
                    self._loop.end()

        thread = threading.Thread(target=end, name="mwaa-dr-agent-end", daemon=True)
        thread.start()
        thread.join(_GONE_WAIT_S)
        if thread.is_alive():
            log.warning(
                "The agent of %s did not write the last heartbeat of this scheduler within %.0f s; a failover waits "
                "for the scheduler's lease to expire.",
                self._config.region,
                _GONE_WAIT_S,
            )

    def check(self, dag_run: Any) -> None:
        """Decide what happens to a run that is about to start, and do it inside the scheduler's transaction."""
        if os.getpid() != self._pid:
            return
        self.ensure_agent()
        now = self._clock.monotonic()
        view = self._loop.view if self._loop is not None and not self._is_stopping else None
        is_awaited = view is not None and (dag_run.dag_id, dag_run.run_id) in view.awaited
        decision = decide(
            view,
            region=self._config.region,
            exempt=_dag_is_exempt(dag_run, self._config.exempt_dags),
            now=now,
            lease_s=self._config.lease_s,
            point=DecisionPoint.GATE,
            on_unreachable=self._config.on_unreachable,
            requested_age_s=self._requested_age_s(dag_run),
            is_awaited=is_awaited,
        )
        if decision.action is Action.HOLD:
            self._held_at[dag_run.dag_id] = now
        elif decision.action is Action.RUN:
            # The gate has held an earlier run of the DAG in this pass. That run must start before this one, unless the
            # region is drained: the earlier run then starts in the other region.
            if is_awaited or now >= self._held_at.get(dag_run.dag_id, -_PASS_S) + _PASS_S:
                return
            why = "held: the gate has just held an earlier run of this DAG, which starts first"
            decision = replace(decision, action=Action.HOLD, reason=why)
        if decision.action is Action.SKIP:
            self._starting_run.skip_run(dag_run, decision.reason)
            self._counts.skipped += 1
            log.info("Skipping run %s of %s: %s", dag_run.run_id, dag_run.dag_id, decision.reason)
        else:
            is_new = self._starting_run.hold_run(dag_run, decision.reason)
            self._counts.held += 1
            log.log(
                logging.INFO if is_new else logging.DEBUG,
                "Holding run %s of %s: %s",
                dag_run.run_id,
                dag_run.dag_id,
                decision.reason,
            )

    def note_end_of_run(self) -> None:
        """Let the agent publish the end of a run soon. Takes no lock."""
        if self._loop is not None and os.getpid() == self._pid:
            self._loop.note_end_of_run()

    def _requested_age_s(self, dag_run: Any) -> float | None:
        """Return how long ago a user or an asset requested the run; None if the scheduler created it by itself."""
        if dag_run.run_type == SCHEDULED or dag_run.queued_at is None:
            return None
        return float((self._clock.now() - dag_run.queued_at).total_seconds())

    def ensure_agent(self) -> None:
        """
        Start the agent's thread, unless it runs.

        :raises RuntimeError: the process cannot start a thread now.
        """
        if self._is_alive or self._is_stopping or os.getpid() != self._pid:
            return
        if not (self._config.region and self._config.state_table):
            return
        self._is_alive = True
        try:
            threading.Thread(target=self._supervise, name="mwaa-dr-agent", daemon=True).start()
        except RuntimeError:
            self._is_alive = False
            raise

    def _start_thread(self) -> None:
        """Start the agent's thread. If the process cannot start one, retry for some seconds; later hooks retry, too."""
        deadline = self._clock.monotonic() + _THREAD_WAIT_S
        while True:
            try:
                self.ensure_agent()
                break
            except RuntimeError as error:
                if self._clock.monotonic() >= deadline:
                    log.error(
                        "The agent of %s could not start its thread (%s), so the gate holds every run. The provider "
                        "retries before each run that is about to start and after each process that the scheduler "
                        "forks. If this message stays the last one of the agent, restart this scheduler.",
                        self._config.region,
                        error,
                    )
                    break
            self._clock.sleep(_PULSE_S)

    def _after_fork(self) -> None:
        """Start the agent's thread if there is none: in a standby without runs, :meth:`check` is not called."""
        with suppress(RuntimeError):
            self.ensure_agent()

    def _supervise(self) -> None:
        """Run the agent, and restart it when it ends. In a standby with no runs, nothing else would restart it."""
        wait_s = _RESTART_FIRST_S
        try:
            while os.getpid() == self._pid and not self._is_stopping:
                began = self._clock.monotonic()
                try:
                    self._run_agent()
                except Exception as error:
                    if self._clock.monotonic() - began > _RESTART_LONGEST_S:
                        wait_s = _RESTART_FIRST_S
                    self._log_stopped(error, wait_s)
                    self._has_read_state.set()
                    self._clock.sleep(wait_s)
                    wait_s = min(2 * wait_s, _RESTART_LONGEST_S)
        finally:
            self._has_read_state.set()
            self._is_alive = False

    def _log_stopped(self, error: Exception, wait_s: float) -> None:
        with self._guard, suppress(Exception):  # a handler of the log may raise, too
            log.error("The agent of %s stopped; it restarts in %.0f s.", self._config.region, wait_s, exc_info=error)

    def _run_agent(self) -> None:
        """Run the agent's loop until this process ends."""
        with self._guard:
            loop = self._loop = self._make_loop()
            loop.warm_up()
        self._has_read_state.set()
        self._await_job()
        while os.getpid() == self._pid:
            with self._guard:
                if self._is_stopping:
                    return
                next_turn_at = loop.turn() + self._clock.monotonic()
            while (rest_s := next_turn_at - self._clock.monotonic()) > 0:
                self._clock.sleep(min(rest_s, _PULSE_S))
                if loop.awaits_scheduler:
                    with self._guard:
                        loop.acknowledge()
                # Without the guard: a table that does not answer must not delay the scheduler's forks.
                if loop.is_turn_due():
                    break
                loop.copy_history()

    def _make_loop(self) -> AgentLoop:
        """Return a new agent, with the view of the earlier agent."""
        from airflow import __version__ as airflow_version  # noqa: PLC0415

        from airflow_provider_mwaa_dr.plugins import send_notifications  # noqa: PLC0415  (a task process does not need it)

        store = conf.state_store(self._config, self._clock)
        every_s, carrier = min(60.0, 12 * self._config.heartbeat_s), None
        if self._config.carries:
            carrier = SettingsCarrier(
                store,
                self._settings_db,
                self._clock,
                region=self._config.region,
                peers=self._config.environments,
                modes=self._config.carries,
                accepted=self._config.accepted_differences,
                every_s=every_s,
            )
        inventory = InventoryKeeper(
            store,
            self._inventory_db,
            self._clock,
            region=self._config.region,
            options=option_texts(self._config),
            peers=self._config.environments,
            every_s=every_s,
            exempt_dags=self._config.exempt_dags,
            carrier=carrier,
        )
        return AgentLoop(
            config=self._config,
            store=store,
            runs=conf.runs_store(self._config, self._clock),
            db=self._db,
            clock=self._clock,
            counts=self._counts,
            airflow_version=airflow_version,
            view=self._loop.view if self._loop is not None else None,
            inventory=inventory,
            carrier=carrier,
            history=self._make_history(store, airflow_version),
            metrics=self._metrics,
            start_sender=send_notifications.start,
        )

    def _make_history(self, store: StateStore, airflow_version: str) -> HistoryKeeper | None:
        """Return what copies the history; None if it is off."""
        history = conf.history_store(self._config, self._clock)
        if history is None:
            return None
        return HistoryKeeper(
            history,
            self._db,
            self._clock,
            config=self._config,
            states=store,
            guard=self._guard,
            era=Era.of(airflow_version),
        )

    def _await_job(self) -> None:
        """Wait until the job is known to be a scheduler's: Airflow stores it after it has called ``on_starting``."""
        next_log_at = self._clock.monotonic() + _JOB_WAIT_S
        while os.getpid() == self._pid and (self._db.job_id is None or not self._db.is_scheduler):
            if self._clock.monotonic() >= next_log_at:
                next_log_at += 10 * _JOB_WAIT_S
                log.error(
                    "Airflow has not stored its scheduler's job for %.0f s. Until it does, the agent of %s waits, "
                    "and the gate holds every run.",
                    _JOB_WAIT_S,
                    self._config.region,
                )
            self._clock.sleep(0.1)


def _dag_is_exempt(dag_run: Any, exempt_dags: Collection[str]) -> bool:
    """Return whether the run's DAG is exempt. Makes no query: the scheduler has just set ``dag_run.dag``."""
    return is_exempt(dag_run.dag_id, getattr(dag_run.dag, "tags", None) or (), exempt_dags)


def _publishers(config: DRConfig, clock: Clock) -> Publishers:
    """Return where the agent publishes its figures."""
    own = [Metrics(_stats, clock)]
    if config.cloudwatch_metrics:
        from airflow_provider_mwaa_dr.aws.cloudwatch import CloudWatchStats  # noqa: PLC0415

        cloudwatch = CloudWatchStats(config.own_aws_region, config.environment or config.region, clock)
        # The namespace in CloudWatch stands for the prefix.
        own.append(Metrics(lambda: cloudwatch, clock, prefix=""))
    return Publishers(*own)


def _stats() -> Stats:
    from airflow_provider_mwaa_dr._compat import stats  # noqa: PLC0415  (a task process does not need it)

    found: Stats = stats()
    return found
