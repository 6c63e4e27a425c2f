"""An agent's reads of the state, and the view that the gate gets from them."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.agent.acknowledgements import Acknowledgements
from airflow_provider_mwaa_dr.agent.confirmation import Confirmation
from airflow_provider_mwaa_dr.agent.identity_check import IdentityCheck
from airflow_provider_mwaa_dr.agent.ledger_wait import LedgerWait
from airflow_provider_mwaa_dr.agent.role_history import RoleHistory
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Role, View, may_close, role_of, why_role_unknown
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import Clock, StateStore
from airflow_provider_mwaa_dr.core.state import STATE_ID, DRState, regions_of
from airflow_provider_mwaa_dr.exceptions import StateAccessError, StateError, StateUnreachableError, TableNotFoundError

log = get_logger(__name__)


class OlderStateError(Exception):
    """A read returned an older state than an earlier read, or no state."""


class StateChangedError(Exception):
    """The state has changed during a long turn."""


class StateReader:
    """
    Reads the state for one agent.

    :ivar view: the last read. It is replaced in one assignment and never changed, because the gate's thread reads it.
    :ivar role: the roles of the region according to these reads.
    :ivar unreadable: why the agent cannot use the last answer of the state table; None if it can.
    """

    def __init__(
        self,
        store: StateStore,
        clock: Clock,
        *,
        region: str,
        identity: IdentityCheck,
        acknowledgements: Acknowledgements,
        ledger_wait: LedgerWait,
        confirmation: Confirmation,
        view: View | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._identity = identity
        self._acknowledgements = acknowledgements
        self._ledger_wait = ledger_wait
        self._confirmation = confirmation
        self._logged_role: LogOnChange[tuple[Role, str | None] | None] = LogOnChange(None)
        self._last_read_at = clock.monotonic()
        """When the agent last read the state; this includes reads that set no new view."""
        self._awaited: frozenset[RunKey] = frozenset()
        self.view = view
        self.role = RoleHistory(region, clock.now())
        self.unreadable: str | None = None

    def read(self) -> None:
        """Read the state and replace the view; never replace it by an older state."""
        read_at, now = self._clock.monotonic(), self._clock.now()
        try:
            observation = self._store.observe(self._region)
            state, seen = observation.state, self.view.state if self.view is not None else None
            if seen is not None and (state is None or seen.is_newer_than(state)):
                found = "no state item" if state is None else f"epoch {state.epoch}, version {state.version}"
                raise OlderStateError(
                    f"The state table answered with {found} after epoch {seen.epoch}, version {seen.version}: "
                    f"{self._region} does not use this answer. If the table was restored from a backup, or the item "
                    f"{STATE_ID} was changed by hand, run mwaa-dr init --active REGION --above-every-epoch."
                )
        except (StateError, OlderStateError) as error:
            is_answer = not isinstance(error, (StateUnreachableError, StateAccessError, TableNotFoundError))
            self.unreadable = str(error) if is_answer else None
            raise
        self.unreadable = None
        compared = self._identity.with_rivals(observation)
        problem = self._identity.problem(compared)
        self._last_read_at = read_at
        view = View.of(
            observation,
            read_at,
            problem=problem,
            waits_for=self._ledger_wait.reason(state),
            awaited=self._awaited,
            confirmed_at=self._confirmation.permits_from(observation, read_at=read_at),
        )
        self.view = view
        self._identity.log(problem)
        self.role.note(view, now)
        self._acknowledgements.view_is_set(state)
        self._log_role(view)
        if compared.disputed != observation.disputed:
            # The workers' fences read it with the state.
            self._store.put_dispute(self._region, compared.disputed)

    def warm_up(self) -> None:
        """
        Read the state without setting a view, so that all imports are done early.

        :raises StateError: the state could not be read.
        """
        self._store.observe(self._region)

    def confirm(self, state: DRState) -> None:
        """
        Read the state again, if the last read is too old for a step that cannot be undone.

        :raises StateChangedError: epoch or phase have changed; the next turn decides again.
        """
        now = self._clock.monotonic()
        if may_close(now - self._last_read_at, lease_s=state.lease_s):
            return
        again = self._store.observe(self._region).state
        if again is None or (again.epoch, again.phase) != (state.epoch, state.phase):
            found = "no state item" if again is None else f"epoch {again.epoch}, {again.phase.value}"
            raise StateChangedError(
                f"The turn read epoch {state.epoch}, {state.phase.value}, {now - self._last_read_at:.0f} s ago, and "
                f"the state table now has {found}: nothing is closed, paused or resumed."
            )
        self._last_read_at = now

    def show_ledger_wait(self, state: DRState) -> None:
        """Let the notes of held runs name why the region waits for its ledger."""
        if self.view is not None:
            self.view = replace(self.view, waits_for=self._ledger_wait.reason(state))

    def set_awaited(self, runs: frozenset[RunKey]) -> None:
        """Give the gate the held runs that work in progress waits for."""
        self._awaited = runs
        if self.view is not None and self.view.awaited != runs:
            self.view = replace(self.view, awaited=runs)

    def peers(self) -> tuple[str, ...]:
        """Return the registered regions from this region's own item, and the regions that the state names."""
        view = self.view
        if view is None or view.state is None:
            return ()
        return tuple(sorted({*(view.registered or ()), *regions_of(view.state)}))

    @property
    def problem(self) -> str | None:
        """Why this Airflow may not be its region's environment, as far as the agent knows; None if it is."""
        return self.view.problem if self.view is not None else self._identity.problem_before_first_read()

    @property
    def lease_s(self) -> float | None:
        """The lease of the view; None if there is none, or while a plan recovers a state that may have no lease."""
        state = self.view.state if self.view is not None else None
        if state is None or state.problems or (state.plan is not None and state.plan.is_recovery):
            return None
        return state.lease_s

    @property
    def held_because(self) -> str | None:
        """Why the last read gives the region no role; None if the region has one."""
        if self.unreadable is not None or self.view is None:
            return self.unreadable
        return why_role_unknown(self.view, self._region)

    def _log_role(self, view: View) -> None:
        state, role = view.state, role_of(view, self._region)
        why = why_role_unknown(view, self._region) if role is Role.UNKNOWN else None
        if not self._logged_role.changes_to((role, why)):
            return
        if state is None or why is not None:
            epoch = "unknown" if state is None else state.epoch
            log.warning("%s holds every run, and closes none (epoch %s): %s", self._region, epoch, why)
            return
        log.warning("DR State Plugin: Current region %s is %s", self._region, role.value.upper())
        log.info(
            "%s is %s: active %s, epoch %d, version %d, phase %s",
            self._region,
            role.value,
            state.active_region,
            state.epoch,
            state.version,
            state.phase.value,
        )
