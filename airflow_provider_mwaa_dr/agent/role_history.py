"""Which role the region had, and since when, as far as one agent has read."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_mwaa_dr.core.gate import Role, View, role_of


class RoleHistory:
    """
    The region's roles according to one agent's reads of the state.

    :ivar reconciled: the epoch to which the region's open runs belonged at the end of the last turn.
    :ivar standby: the region's reconciled epoch, and when the agent last read that the region is a standby.
    :ivar active: the last epoch in which the region was active, and when the agent first read it.
    :ivar read_at: when the agent last read the state.
    """

    def __init__(self, region: str, now: datetime) -> None:
        self._region = region
        self.reconciled: int | None = None
        self.standby: tuple[int | None, datetime] | None = None
        self.active: tuple[int | None, datetime] = None, now
        self.read_at = now

    def note(self, view: View, at: datetime) -> None:
        """Store the role in *view*, which the agent read at *at*."""
        state, role, reconciled = view.state, role_of(view, self._region), view.reconciled_epoch
        if state is not None and role is Role.STANDBY and reconciled in {None, state.epoch}:
            self.standby = reconciled, at
        if state is not None and role is Role.ACTIVE and self.active[0] != state.epoch:
            self.active = state.epoch, at
        self.read_at = at

    @property
    def standby_as_of(self) -> datetime | None:
        """When the agent last read that the region is a standby with reconciled runs; None if it is not."""
        epoch, at = self.standby or (None, None)
        return at if epoch == self.reconciled else None

    def forget(self) -> None:
        """Forget the region's items: another environment writes them."""
        self.reconciled = self.standby = None
