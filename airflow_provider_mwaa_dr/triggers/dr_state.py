"""The trigger that waits until a region is active. Airflow stores the class path of a trigger: do not rename it."""

from __future__ import annotations

from typing import Any

from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.exceptions import DRError, StateNotFoundError, StateUnreachableError, UnusableStateError
from airflow_provider_mwaa_dr.triggers.polling import PollingTrigger


class ActiveRegionTrigger(PollingTrigger):
    """
    Fires once a region has the active role.

    The event is ``{"status": "success", "active_region", "epoch"}``, or ``{"status": "error", "message",
    "is_worth_a_retry"}`` when waiting cannot succeed. The trigger keeps waiting while the state cannot be read, does
    not exist yet, or names no registered region.

    :param region: region to wait for.
    """

    def __init__(self, *, region: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.region = region
        self._logged: LogOnChange[str | None] = LogOnChange(None)

    def own_arguments(self) -> dict[str, Any]:
        """Return the region."""
        return {"region": self.region}

    def poll(self) -> dict[str, Any] | None:
        """Read the state once. Return the event, or None to continue."""
        try:
            state = self.hook.active_state()
        except (StateUnreachableError, StateNotFoundError, UnusableStateError) as error:
            self._log_once(f"Waiting: the active region is not known. {error}")
            return None
        except DRError as error:
            return self.failure_event(error)
        self._log_once(f"{state.active_region} is active (epoch {state.epoch}); waiting for {self.region}")
        if state.active_region != self.region:
            return None
        return {"status": "success", "active_region": state.active_region, "epoch": state.epoch}

    def _log_once(self, message: str) -> None:
        """Log *message* only if it differs from the last one, because a wait may last for months."""
        if self._logged.changes_to(message):
            self.log.info("%s", visible(message))
