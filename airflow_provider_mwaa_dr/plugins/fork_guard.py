"""Keeps the scheduler from forking while the agent works."""

from __future__ import annotations

import os
import threading

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import Clock

log = get_logger(__name__)

_FORK_WAIT_S = 10.0


class ForkGuard:
    """
    The agent enters this while it works; a fork of the scheduler waits until the work ends, ten seconds at most.

    LocalExecutor and Celery fork the scheduler at any time. The child inherits each lock that the agent's thread holds,
    and no thread of the child releases it. These are locks of the database pool, of a connection, and above all of a
    module that is being imported: each task of that worker that imports the module hangs. The first turn imports all of
    Airflow's models, which takes more than half a second when four Airflows start on two cores. With a limit of half a
    second, the scheduler forked a worker during that import, and the worker's tasks hung before their bodies (seen on
    3.3.1).

    A turn that takes longer than the limit waits for a lock or for the network. Forks wait so long once in each turn.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._is_held_by_fork = False
        self._left_s = _FORK_WAIT_S
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._left_s = _FORK_WAIT_S

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _before(self) -> None:
        began = self._clock.monotonic()
        self._is_held_by_fork = self._lock.acquire(timeout=self._left_s)
        self._left_s = max(0.0, self._left_s - (self._clock.monotonic() - began))

    def _in_parent(self) -> None:
        if self._is_held_by_fork:
            self._is_held_by_fork = False
            self._lock.release()
        else:
            log.warning(
                "A process was forked while the agent had been at work for more than %.0f s: tasks of that process may "
                "hang. If a task stays in the state running and writes nothing to its log, clear the task, or restart "
                "this scheduler.",
                _FORK_WAIT_S,
            )

    def _in_child(self) -> None:
        self._lock = threading.RLock()
