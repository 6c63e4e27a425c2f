"""The machine's own clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone


class SystemClock:
    """The :class:`~airflow_provider_mwaa_dr.core.ports.Clock` of this machine."""

    def monotonic(self) -> float:
        """
        Return seconds since boot, including the time in suspend.

        On Linux, Python's ``time.monotonic`` stops while the machine is suspended. After a night in a suspended laptop
        or a paused virtual machine, an old view of the state would then count as fresh.
        """
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def now(self) -> datetime:
        """Return the aware UTC wall-clock time."""
        return datetime.now(tz=timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Wait in this thread."""
        time.sleep(seconds)
