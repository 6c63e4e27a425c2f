"""The machine's own clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone


class SystemClock:
    """The :class:`~airflow_provider_mwaa_dr.core.ports.Clock` of this machine."""

    def monotonic(self) -> float:
        """
        Return seconds since boot, suspend included.

        Python's ``time.monotonic`` stands still while a Linux machine is suspended, and a view of the state would look
        fresh after a night in a suspended laptop (or a paused virtual machine).
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
