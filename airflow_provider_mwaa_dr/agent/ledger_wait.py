"""How long a region waits for its ledger, and why."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.state import DRState

log = get_logger(__name__)


class LedgerWait:
    """
    The last error of the region's ledger, and the wait for it of a region that becomes active.

    A refusal may end like a timeout: credentials are renewed, a key or a policy is restored. Only a region that becomes
    active has a limit. Without a limit, no region would execute.

    :param limit_s: ``[dr] ledger_wait_s``.
    """

    def __init__(self, clock: Clock, *, region: str, limit_s: float) -> None:
        self._clock = clock
        self._region = region
        self.limit_s = limit_s
        self._error: LogOnChange[str | None] = LogOnChange(None)
        self._begun: tuple[int, float] | None = None
        """The epoch for which the region waits for its ledger, and the start of the wait."""

    @property
    def error(self) -> str | None:
        """Why the ledger could not be used at the last call; None if it worked."""
        return self._error.value

    def note(self, error: str | None) -> None:
        """Store the result of a call to the ledger; log an error when it changes and when it ends."""
        if not self._error.changes_to(error):
            return
        if error is None:
            log.info("The ledger of %s works again; before: %s", self._region, self._error.before)
        else:
            log.warning("The ledger of %s cannot be used: %s", self._region, error)

    def is_over(self, state: DRState) -> bool:
        """Whether the region, which becomes active, has waited for its ledger for ``ledger_wait_s``."""
        now = self._clock.monotonic()
        if self._begun is None or self._begun[0] != state.epoch:
            self._begun = state.epoch, now
            log.warning(
                "%s waits for its ledger for at most %.0f s before it continues without it (epoch %d): %s",
                self._region,
                self.limit_s,
                state.epoch,
                self.error,
            )
        return now - self._begun[1] >= self.limit_s

    def reason(self, state: DRState | None) -> str:
        """Return why the open runs are not reconciled, for the notes of held runs; empty if the ledger works."""
        error = self.error
        if error is None or state is None:
            return ""
        if state.active_region != self._region:
            return f"the region closes no run that its ledger has not accepted; its ledger refuses: {error}"
        return f"it waits at most {self.limit_s:g} s for its ledger, which refuses: {error}"

    @property
    def left_s(self) -> float | None:
        """Seconds until the region continues without its ledger; None while it does not wait."""
        if self._begun is None:
            return None
        return max(0.0, self._begun[1] + self.limit_s - self._clock.monotonic())

    def end(self) -> None:
        """End the wait. The error stays until the ledger works."""
        self._begun = None

    def forget(self) -> None:
        """Forget wait and error: this agent does not use the ledger any longer."""
        self._begun = None
        self._error.forget(None)
