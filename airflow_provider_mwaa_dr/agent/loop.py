"""
The background loop of one scheduler: reads the state, reconciles its region's runs, sends heartbeats.

The loop has its own thread and makes every call that may block. The gate only reads :attr:`AgentLoop.view`. The loop
does not import Airflow: it reads and changes the metadata database through :class:`RegionDb`.

The agent does its work in turns, which use the metadata database. Between two turns it only reads the state, more
often, and starts the next turn early if there is something to do.
"""

from __future__ import annotations

from airflow_provider_mwaa_dr.agent.acknowledgements import Acknowledgements
from airflow_provider_mwaa_dr.agent.confirmation import Confirmation
from airflow_provider_mwaa_dr.agent.heartbeat import Heartbeat
from airflow_provider_mwaa_dr.agent.history import HistoryKeeper
from airflow_provider_mwaa_dr.agent.housekeeping import Housekeeping
from airflow_provider_mwaa_dr.agent.identity_check import IdentityCheck
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper
from airflow_provider_mwaa_dr.agent.leader import Leader
from airflow_provider_mwaa_dr.agent.ledger_wait import LedgerWait
from airflow_provider_mwaa_dr.agent.metrics import Publisher
from airflow_provider_mwaa_dr.agent.notifier import StartSender
from airflow_provider_mwaa_dr.agent.observer import Observer
from airflow_provider_mwaa_dr.agent.ports import GateCounts, RegionDb
from airflow_provider_mwaa_dr.agent.process import Process
from airflow_provider_mwaa_dr.agent.region_list import RegionList
from airflow_provider_mwaa_dr.agent.report import Reporter
from airflow_provider_mwaa_dr.agent.settings_carrier import SettingsCarrier
from airflow_provider_mwaa_dr.agent.state_reader import OlderStateError, StateChangedError, StateReader
from airflow_provider_mwaa_dr.agent.triggerers import TriggererList
from airflow_provider_mwaa_dr.agent.waits import WaitsReader
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Role, View, role_of, why_not_permitted
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import StateError

log = get_logger(__name__)

_HURRY_S = 0.5
"""Time between two turns while a failover is in progress, or while there are more runs to adopt than a turn adopts."""
_HURRIED_READ_S = 0.2
"""Time between two reads of the state while a failover is in progress. Each of its steps waits for such a read."""
_REQUESTED_S = 10.0
"""How long the reads are as frequent after a caller has requested heartbeats: its failover is about to begin."""
_BATCH_S = 1.0
"""Shortest time until the end of a run starts the next turn, so that one ledger entry has all ends of a second."""
_COMMIT_S = 0.5
"""Airflow reports the end of a run before its transaction is committed. A turn that began later finds the end."""
_EXPECTED = (StateError, OlderStateError, StateChangedError)
"""Errors that are logged without a traceback."""


class AgentLoop:
    """
    One scheduler's agent.

    :param store: the state table; created in the agent's thread, where boto3 may be imported.
    :param runs: the ledger; None if no runs table is set.
    :param counts: the gate's counts, for the heartbeat.
    :param view: the last view of an earlier agent in this process.
    :param inventory: lists the DAGs and settings of the region's Airflow; None: this agent lists none.
    :param carrier: copies settings between the sites; None: this agent copies none. It needs *inventory*.
    :param history: copies the history; None: it is off.
    :param metrics: where the agent publishes its figures; None: this agent publishes none.
    :param start_sender: starts a process that sends notifications; None: this agent sends none.
    """

    def __init__(
        self,
        *,
        config: DRConfig,
        store: StateStore,
        runs: RunsStore | None = None,
        db: RegionDb,
        clock: Clock,
        counts: GateCounts,
        airflow_version: str,
        view: View | None = None,
        inventory: InventoryKeeper | None = None,
        carrier: SettingsCarrier | None = None,
        history: HistoryKeeper | None = None,
        metrics: Publisher | None = None,
        start_sender: StartSender | None = None,
    ) -> None:
        region, process = config.region, Process.of(config, clock, airflow_version=airflow_version)
        ledger_wait = LedgerWait(clock, region=region, limit_s=config.ledger_wait_s)
        self._config = config
        self._db = db
        self._clock = clock
        self._inventory = inventory
        self._carrier = carrier
        self._history = history
        self._acknowledgements = Acknowledgements(db)
        self._confirmation = Confirmation(config)
        self._observer = Observer(store, clock, every_s=config.heartbeat_s, is_on=config.eventual_mode is None)
        self._reader = StateReader(
            store,
            clock,
            region=region,
            identity=IdentityCheck(process.identity, store, clock, Timing.from_config(config)),
            acknowledgements=self._acknowledgements,
            ledger_wait=ledger_wait,
            confirmation=self._confirmation,
            view=view,
        )
        self._housekeeping = Housekeeping(process, store, db, clock, counts)
        self._leader = Leader(
            process,
            store=store,
            runs=runs,
            db=db,
            clock=clock,
            reader=self._reader,
            ledger_wait=ledger_wait,
            housekeeping=self._housekeeping,
            start_sender=start_sender,
        )
        self._regions = RegionList(store, clock, region=region)
        self._waits = WaitsReader(db, self._reader, region=region)
        self._triggerers = TriggererList(store, db, clock, region=region, every_s=12 * config.heartbeat_s)
        self._reporter = Reporter(
            process,
            clock,
            counts,
            reader=self._reader,
            acknowledgements=self._acknowledgements,
            leader=self._leader,
            housekeeping=self._housekeeping,
            waits=self._waits,
            triggerers=self._triggerers,
            confirmation=self._confirmation,
            observer=self._observer,
            inventory=inventory,
            carrier=carrier,
            history=history,
            metrics=metrics,
        )
        self._heartbeat = Heartbeat(
            store,
            db,
            reader=self._reader,
            acknowledgements=self._acknowledgements,
            reporter=self._reporter,
            confirmation=self._confirmation,
            clock=clock,
            every_s=config.heartbeat_s,
        )
        self._error: LogOnChange[str | None] = LogOnChange(None)
        self._has_ended = False
        self._read_at: float | None = None
        """When the next read between two turns is due; None: the table did not answer, and only turns read it."""
        self._hurried_until = 0.0
        """Until when a failover is expected, because a caller has requested heartbeats."""
        self._run_ended_at: float | None = None
        """When the last run of this scheduler ended whose end the agent may not have found yet."""

    @property
    def view(self) -> View | None:
        """
        The last read of the state; None after the end.

        The gate's thread reads it. The agent's thread replaces it in one assignment.
        """
        return None if self._has_ended else self._reader.view

    @property
    def awaits_scheduler(self) -> bool:
        """Whether the scheduler's thread may still decide with a view that is older than the agent's last one."""
        return self._acknowledgements.is_pending

    def turn(self) -> float:
        """
        Do all the work of one turn; never raises.

        :return: seconds until the next turn.
        """
        if self._has_ended:
            return self._config.refresh_s
        started = self._heartbeat.turned_at = self._clock.monotonic()
        if self._run_ended_at is not None and started - self._run_ended_at >= _COMMIT_S:
            self._run_ended_at = None
        is_next_read_awaited = is_hurried = False
        self._read_at = None
        try:
            self._read()
            self._read_at = started + self._read_every_s
            is_hurried = self._is_failover_open
            schedulers = self._db.alive_schedulers()
            heartbeat_error = self._report(schedulers)
            observer_error = self._observe()
            waits_error = self._read_waits(schedulers)
            is_next_read_awaited = self._work(schedulers)
            # Gate and fence wait for the reconciled epoch, and the gate for the confirmed heartbeat.
            is_next_read_awaited |= self._awaits_read(self._reader.view, started)
            is_hurried |= self._leader.ledger.has_more
            self._log_turn_error(heartbeat_error or observer_error or waits_error)
        except Exception as error:  # no error ends the loop; the view ages, and the gate holds
            self._log_turn_error(error)
            if self._reader.unreadable is not None:
                self._report_unreadable()
        self._reporter.publish_figures(self._heartbeat.written)
        refresh_s = min(self._config.refresh_s, _HURRY_S) if is_hurried else self._config.refresh_s
        next_at = started + refresh_s
        if self._heartbeat.awaits_turn_at > started:
            # An early turn must not defer the next heartbeat.
            next_at = min(next_at, self._heartbeat.awaits_turn_at)
        return 0.1 if is_next_read_awaited else max(0.1, next_at - self._clock.monotonic())

    def is_turn_due(self) -> bool:
        """
        Return whether the next turn has to start now: the state has changed, or a run has ended; never raises.

        Called several times a second between two turns. It reads the state if that is due, replaces the view, and uses
        no database, so the scheduler may fork meanwhile. If the table does not answer, only the next turn reads it.
        """
        if self._has_ended:
            return False
        now = self._clock.monotonic()
        if self._read_at is not None and now >= self._read_at:
            before = self._reader.view
            try:
                every_s = self._read_every_s
                self._read_at = max(self._read_at + every_s, now + every_s / 2)
                self._read()
            except Exception:  # the next turn reads it again, and logs the error
                self._read_at = None
                return False
            if before is None or before.differs_from(self._reader.view):
                return True
        has_end = self._run_ended_at is not None and self._leader.ledger.is_publishing
        return has_end and now >= self._heartbeat.turned_at + _BATCH_S

    def copy_history(self) -> None:
        """
        Export or import some of the history, if it is on; never raises.

        Called between two turns, without the guard against forks. It enters the guard for each use of the database.
        """
        if self._history is None or self._has_ended:
            return
        ledger = self._leader.ledger
        self._history.step(
            self._reader.view,
            peers=self._reader.peers(),
            is_leading=ledger.is_publishing,
            ledger=ledger.bookkeeper,
        )

    def note_end_of_run(self) -> None:
        """Let the next turn start within about a second: a run has ended. The scheduler's thread calls this."""
        self._run_ended_at = self._clock.monotonic()

    def _read(self) -> None:
        """Read the state, and read it more often from now on if a caller has requested heartbeats."""
        before = self._reader.view
        self._reader.read()
        view = self._reader.view
        if before is not None and view is not None and view.heartbeat_request != before.heartbeat_request:
            self._hurried_until = self._clock.monotonic() + _REQUESTED_S

    @property
    def _is_failover_open(self) -> bool:
        state = self._reader.view.state if self._reader.view is not None else None
        return state is not None and state.phase is not Phase.STEADY

    @property
    def _read_every_s(self) -> float:
        is_hurried = self._is_failover_open or self._clock.monotonic() < self._hurried_until
        return min(self._config.state_read_s, _HURRIED_READ_S) if is_hurried else self._config.state_read_s

    def acknowledge(self) -> None:
        """
        Publish immediately which view the scheduler's thread uses since the last turn; never raises.

        Called between two turns, because a failover waits for this heartbeat. Does not read the state.
        """
        try:
            self._acknowledgements.update()
            view = self._reader.view
            if not self._has_ended and view is not None and self._heartbeat.has_new_acknowledgement:
                self._heartbeat.send(view.state, self._db.alive_schedulers())
        except Exception as error:  # the next heartbeat publishes it
            self._log_turn_error(error)

    def end(self) -> None:
        """
        Publish in the last heartbeat that this scheduler will start no further run; never raises.

        The caller has closed the scheduler's gate permanently. The agent does nothing afterwards.
        """
        view, self._reader.view, self._has_ended = self._reader.view, None, True
        if view is None or view.problem is not None:
            return  # this agent must not write heartbeats of the region
        try:
            self._heartbeat.send(view.state, (), is_last=True)
        except Exception as error:  # a failover then waits for the lease to expire
            self._log_turn_error(error)

    def warm_up(self) -> None:
        """
        Read the state before the scheduler's job is known, so that all imports are done early; never raises.

        The read sets no view, so the gate still holds. A failover does not wait for a scheduler that the metadata
        database does not list yet, so such a scheduler must not start a run.
        """
        try:
            self._reader.warm_up()
        except Exception as error:
            self._log_turn_error(error)

    # The steps of a turn.

    def _report(self, schedulers: tuple[str, ...]) -> Exception | None:
        """
        Send the heartbeat, if it is time for one, before any other item is read: no unreadable item may prevent it.

        :return: why the heartbeat could not be sent; the rest of the turn continues.
        """
        view = self._reader.view
        # If the region's item has an unusable value, the heartbeat restores the epoch that the agent knew before.
        if view is None or not view.problems:
            self._reader.role.reconciled = view.reconciled_epoch if view is not None else None
        self._acknowledgements.update()
        if not self._heartbeat.is_due(self._clock.monotonic()):
            return None
        try:
            self._heartbeat.send(view.state if view is not None else None, schedulers)
        except Exception as error:  # the turn logs it at the end of its work
            return error
        return None

    def _observe(self) -> Exception | None:
        """
        Read which heartbeats are silent.

        :return: why they could not be read; the rest of the turn continues.
        """
        try:
            self._observer.turn(sorted({self._config.region, *self._reader.peers()}))
        except Exception as error:  # the turn logs it at the end of its work
            return error
        return None

    def _awaits_read(self, view: View | None, started: float) -> bool:
        """Whether this view permits the gate nothing in one of the next two turns, and a read permits more now."""
        sent_at = self._confirmation.sent_at
        if view is None or sent_at is None or not started <= view.read_at <= sent_at:
            return False
        return why_not_permitted(view, self._config.region, now=sent_at + 2 * self._config.refresh_s) is not None

    def _read_waits(self, schedulers: tuple[str, ...]) -> Exception | None:
        """
        Read which held runs work in progress waits for, and which triggerers may run watchers.

        :return: why this is not known; the gate then holds these runs, and the rest of the turn continues.
        """
        view = self._reader.view
        if view is None or view.state is None or role_of(view, self._config.region) is Role.UNKNOWN:
            self._waits.forget()
            return None
        is_leading = bool(schedulers) and schedulers[0] == self._db.job_id
        try:
            self._waits.turn(view.state, is_leading=is_leading)
            self._triggerers.turn(view.state, is_leading=is_leading)
        except Exception as error:  # the turn logs it at the end of its work
            return error
        return None

    def _report_unreadable(self) -> None:
        """Send the heartbeat, if it is time for one, with the reason why the state cannot be used; never raises."""
        try:
            self._acknowledgements.update()
            if self._heartbeat.is_due(self._clock.monotonic()):
                self._heartbeat.send(None, self._db.alive_schedulers())
        except Exception as error:  # the next turn retries
            self._log_turn_error(error)

    def _work(self, schedulers: tuple[str, ...]) -> bool:
        """
        Reconcile the region's runs and keep its ledger, if this agent leads; publish awaited values in a heartbeat.

        :return: whether this turn wrote a value for which gate and fence wait.
        """
        view = self._reader.view
        if view is not None and view.problem is not None:
            self._stand_aside(view.state, schedulers)
            return False
        state = view.state if view is not None else None
        reconciled = view.reconciled_epoch if view is not None else None
        # This is the region's oldest live scheduler.
        is_leading = bool(schedulers) and schedulers[0] == self._db.job_id
        has_listed = view is not None and state is not None and self._regions.turn(view, state, is_leading=is_leading)
        has_reconciled = False
        is_known = role_of(view, self._config.region) is not Role.UNKNOWN
        if state is None or not is_known:
            # The open runs may belong to this region, so none is closed, published or taken over.
            pass
        elif is_leading:
            has_reconciled = self._leader.turn(state, reconciled, schedulers)
            if has_reconciled:
                reconciled = state.epoch
        else:
            self._leader.stop()
            if self._carrier is not None:
                self._carrier.forget()
        self._housekeeping.turn(state)
        if view is None or not view.problems:
            self._reader.role.reconciled = reconciled
        self._acknowledgements.update()
        if self._heartbeat.has_new_values:
            self._heartbeat.send(state, schedulers)
        if (
            is_known
            and is_leading
            and state is not None
            and state.phase is Phase.STEADY
            and self._inventory is not None
        ):
            self._inventory.try_turn()
            if self._carrier is not None and reconciled == state.epoch and self._carrier.try_turn(state):
                self._inventory.make_due()
        return has_reconciled or has_listed

    def _stand_aside(self, state: DRState | None, schedulers: tuple[str, ...]) -> None:
        """Write only the identity claim: this Airflow is not the region's environment. Change nothing of the region."""
        # Another environment writes the region's items. If this one becomes the region's, it reads all of them again.
        self._reader.role.forget()
        self._leader.forget()
        self._acknowledgements.update()
        if self._heartbeat.is_due(self._clock.monotonic()) or not self._heartbeat.has_claimed:
            self._heartbeat.send(state, schedulers)

    def _log_turn_error(self, error: Exception | None) -> None:
        """Log an error when it changes and when it ends, and not in each turn."""
        found = None if error is None else f"{type(error).__name__}: {error}"
        if not self._error.changes_to(found):
            return
        view, region = self._reader.view, self._config.region
        epoch = view.state.epoch if view is not None and view.state is not None else "unknown"
        if found is None:
            log.info("The agent of %s works again (epoch %s); before: %s", region, epoch, self._error.before)
        else:
            log.warning(
                "The agent of %s could not finish its turn (epoch %s): %s. If this lasts longer than the lease, the "
                "region holds its runs.",
                region,
                epoch,
                found.rstrip("."),
                exc_info=error if not isinstance(error, _EXPECTED) else None,
            )
