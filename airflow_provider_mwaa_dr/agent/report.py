"""What an agent knows after a turn, as the content of a heartbeat and as figures for metrics."""

from __future__ import annotations

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.agent.acknowledgements import Acknowledgements
from airflow_provider_mwaa_dr.agent.confirmation import Confirmation
from airflow_provider_mwaa_dr.agent.history import HistoryKeeper
from airflow_provider_mwaa_dr.agent.housekeeping import Housekeeping
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper
from airflow_provider_mwaa_dr.agent.leader import Leader
from airflow_provider_mwaa_dr.agent.metrics import Figures, Publisher
from airflow_provider_mwaa_dr.agent.observer import Observer
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.agent.process import Process
from airflow_provider_mwaa_dr.agent.settings_carrier import SettingsCarrier
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.agent.triggerers import TriggererList
from airflow_provider_mwaa_dr.agent.waits import WaitsReader
from airflow_provider_mwaa_dr.core.display import shortened
from airflow_provider_mwaa_dr.core.gate import Role, role_of
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Clock, IdentityClaim
from airflow_provider_mwaa_dr.core.state import DRState

_MOST_EXEMPT = 20
"""The most exempt DAGs that a heartbeat names."""


class Reporter:
    """
    Collects what the parts of one agent know. Makes no call to a table or database, and changes nothing.

    :param inventory: None if this agent lists none.
    :param carrier: None if this agent copies no settings.
    :param metrics: where the agent publishes its figures; None if it publishes none.
    """

    def __init__(
        self,
        process: Process,
        clock: Clock,
        counts: GateCounts,
        *,
        reader: StateReader,
        acknowledgements: Acknowledgements,
        leader: Leader,
        housekeeping: Housekeeping,
        waits: WaitsReader,
        triggerers: TriggererList,
        confirmation: Confirmation,
        observer: Observer,
        inventory: InventoryKeeper | None,
        carrier: SettingsCarrier | None,
        history: HistoryKeeper | None,
        metrics: Publisher | None,
    ) -> None:
        self._process = process
        self._clock = clock
        self._counts = counts
        self._reader = reader
        self._role = reader.role
        self._acknowledgements = acknowledgements
        self._leader = leader
        self._housekeeping = housekeeping
        self._waits = waits
        self._triggerers = triggerers
        self._confirmation = confirmation
        self._observer = observer
        self._inventory = inventory
        self._carrier = carrier
        self._history = history
        self._metrics = metrics

    def awaited(self) -> tuple[object, ...]:
        """Return the values of a heartbeat for which engines and other agents wait."""
        ledger = self._leader.ledger
        bookkeeper = ledger.bookkeeper
        view = self._reader.view
        return (
            self._acknowledgements.newest,
            view.heartbeat_request if view is not None else None,
            # The first read as a standby is awaited, too: after a crash it shows which runs were requested later.
            self._role.standby_as_of is not None,
            self._role.reconciled,
            self._leader.closer.unclosed,
            ledger.wait.error,
            self._inventory_error,
            self._settings_problem,
            self._history.error if self._history is not None else None,
            self._reader.held_because,
            self._reader.lease_s,
            (self._leader.restorer.version, self._leader.restorer.left),
            (self._waits.found.awaited, self._waits.found.idle),
            (self._triggerers.found, self._triggerers.unguarded),
            (bookkeeper.final_plan_id, bookkeeper.waiting, bookkeeper.repeats, bookkeeper.unread)
            if bookkeeper is not None
            else None,
        )

    def status(
        self, job_id: str, state: DRState | None, schedulers: tuple[str, ...], *, beat: int, is_last: bool
    ) -> AgentStatus:
        """
        Return a heartbeat.

        :param state: the state of this turn; None if it could not be read.
        :param schedulers: the jobs of the schedulers that the database lists.
        :param is_last: whether the scheduler will start no further run.
        """
        config, ledger = self._process.config, self._leader.ledger
        bookkeeper = ledger.bookkeeper
        version, epoch = self._acknowledgements.newest
        reconciled = self._role.reconciled
        is_active = role_of(self._reader.view, config.region) is Role.ACTIVE
        is_adopted = state is not None and is_active and reconciled == state.epoch
        return AgentStatus(
            region=config.region,
            job=job_id,
            host=self._process.host,
            at=self._clock.now(),
            beat=beat,
            version=version,
            epoch=epoch,
            provider_version=__version__,
            airflow_version=self._process.airflow_version,
            adopted_epoch=reconciled if is_adopted else None,
            reconciled_epoch=reconciled,
            on_unreachable=config.on_unreachable.value,
            eventual=config.eventual_mode.value if config.eventual_mode is not None else None,
            schedulers=schedulers,
            fence_file_s=config.fence_file_s,
            gone=is_last,
            fence_ok=self._housekeeping.fence_ok,
            unclosed_runs=self._leader.closer.unclosed,
            held=self._counts.held,
            skipped=self._counts.skipped,
            closed=self._leader.closer.closed,
            problems=config.problems,
            ledger_lag_s=bookkeeper.lag_s if bookkeeper is not None else None,
            ledger_error=ledger.wait.error,
            has_ledger=bookkeeper is not None,
            standby_as_of=self._role.standby_as_of,
            final_plan_id=bookkeeper.final_plan_id if bookkeeper is not None else None,
            waiting=bookkeeper.waiting if bookkeeper is not None else (),
            repeats=bookkeeper.repeats if bookkeeper is not None else (),
            unread=bookkeeper.unread if bookkeeper is not None else (),
            inventory_error=self._inventory_error,
            history_error=self._history.error if self._history is not None else None,
            history=self._history.texts if self._history is not None else (),
            exempt=self._exempt,
            ledger_wait_s=ledger.wait.left_s,
            environment=self._process.identity.environment,
            aws_region=self._process.identity.aws_region,
            held_because=self._reader.held_because,
            awaited=len(self._waits.found.awaited),
            waits=self._waits.found.tasks,
            idle=self._waits.found.idle,
            watchers=self._triggerers.found.count,
            triggerers=self._triggerers.found.triggerers,
            unguarded=self._triggerers.unguarded,
            life=self._confirmation.life,
            lease_s=self._reader.lease_s,
            lists_dags=True,
            restored_version=self._leader.restorer.version,
            not_restored=self._leader.restorer.left,
            settings_problem=self._settings_problem,
            silent=self._observer.silent(),
            knows_hold=True,
        )

    def identity_claim(self, job_id: str, *, beat: int, problem: str) -> IdentityClaim:
        """Return the item that this Airflow writes in place of heartbeats, because it may not be the environment."""
        identity = self._process.identity
        return IdentityClaim(
            region=identity.region,
            environment=identity.environment,
            aws_region=identity.aws_region,
            job=job_id,
            at=self._clock.now(),
            beat=beat,
            problem=problem,
            site=identity.site_of_claims,
        )

    def publish_figures(self, heartbeats: int) -> None:
        """
        Publish what this agent knows as metrics.

        :param heartbeats: the number of heartbeats written.
        """
        if self._metrics is not None:
            self._metrics.publish(self._figures(heartbeats))

    def _figures(self, heartbeats: int) -> Figures:
        now, view, region = self._clock.monotonic(), self._reader.view, self._process.config.region
        state = view.state if view is not None else None
        ledger = self._leader.ledger
        lag_s = None
        if (
            ledger.bookkeeper is not None
            and ledger.is_leading
            and view is not None
            and state is not None
            and state.active_region == region
            and view.reconciled_epoch == state.epoch
        ):
            # The region has published nothing yet: the lag is at least the time since this agent started.
            lag_s = ledger.bookkeeper.lag_s if ledger.bookkeeper.lag_s is not None else now - self._process.began
        return Figures(
            role=role_of(view, region),
            epoch=state.epoch if state is not None else None,
            state_age_s=now - (view.read_at if view is not None else self._process.began),
            ledger_lag_s=lag_s,
            heartbeats=heartbeats,
            held=self._counts.held,
            skipped=self._counts.skipped,
            closed=self._leader.closer.closed,
            hold_alarms=self._leader.hold_alarm.count,
        )

    @property
    def _exempt(self) -> tuple[str, ...] | None:
        exempt = self._inventory.exempt if self._inventory is not None else None
        return None if exempt is None else tuple(shortened(exempt, _MOST_EXEMPT))

    @property
    def _settings_problem(self) -> str | None:
        return self._carrier.problem if self._carrier is not None else None

    @property
    def _inventory_error(self) -> str | None:
        return self._inventory.error if self._inventory is not None else None
