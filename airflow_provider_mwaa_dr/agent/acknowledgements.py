"""Which of the agent's views the scheduler's thread uses."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.core.state import DRState


@dataclass(frozen=True, slots=True)
class _Pending:
    """A view that the scheduler's thread possibly does not use yet; *pulse* was read after the view was set."""

    version: int
    epoch: int
    pulse: object


class Acknowledgements:
    """
    The views that the scheduler's thread has acknowledged. A failover waits for the newest one.

    :ivar newest: version and epoch of the newest view that the scheduler's thread uses.
    """

    def __init__(self, db: RegionDb) -> None:
        self._db = db
        self._pending: list[_Pending] = []
        self._last_set: tuple[int, int] | None = None
        self.newest = (0, 0)

    def view_is_set(self, state: DRState | None) -> None:
        """Note that a view of *state* was set, before this call."""
        if state is not None and (state.version, state.epoch) != self._last_set:
            # The pulse is read after the view is set. Once the pulse changes, the scheduler's thread has finished all
            # decisions that it made with an older view.
            self._last_set = (state.version, state.epoch)
            self._pending.append(_Pending(state.version, state.epoch, self._db.pulse()))

    def update(self) -> None:
        """Read the scheduler's pulse, and update :attr:`newest`."""
        pulse = self._db.pulse()
        while self._pending and self._pending[0].pulse != pulse:
            passed = self._pending.pop(0)
            self.newest = (passed.version, passed.epoch)

    @property
    def is_pending(self) -> bool:
        """Whether the scheduler's thread may still decide with a view that is older than the agent's last one."""
        return bool(self._pending)
