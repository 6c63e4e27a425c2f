"""
Processes that keep running after the command that started them, each in its own session.

A SIGKILL of an Airflow scheduler does not end its LocalExecutor workers. They overwrite their command line and their
environment, and have their own process groups, but they cannot leave the session. So this module ends whole sessions.
The kernel uses a pid again after its process has ended, so each process is stored with its start time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_mwaa_dr.exceptions import DRError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HAS_PROC = Path("/proc/self/stat").exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSession:
    """
    A process that leads a session, and all processes that it starts.

    :param pid: of the leader. It is also the session's id, which the kernel does not use again while a member runs.
    :param started: the leader's start time in the format of the operating system; empty if it ended immediately.
    """

    pid: int
    started: str


def start(arguments: Sequence[str | os.PathLike[str]], *, environment: Mapping[str, str], log: Path) -> ProcessSession:
    """
    Start a process in its own session. It keeps running after the caller has ended. Its output is appended to *log*.

    :raises OSError: the program does not exist or may not be executed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [os.fspath(argument) for argument in arguments]
    # Not subprocess: a Popen object warns if it is deleted while its process runs, which is intended here.
    pid = os.posix_spawn(
        command[0],
        command,
        dict(environment),
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    return ProcessSession(pid=pid, started=_started(pid) or "")


def is_alive(session: ProcessSession) -> bool:
    """Return whether the leader runs. A zombie does not count."""
    _reap(session.pid)
    return bool(session.started) and _started(session.pid) == session.started


def wait(session: ProcessSession) -> int:
    """Return the exit code of a leader that this process started; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(session.pid, 0)[1])


def log_tail(log: Path) -> str:
    """Return the last lines of a log, for an error message."""
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    return "\n".join(text.splitlines()[-15:]) or "(no output)"


def members(session: ProcessSession) -> Sequence[int]:
    """
    Return the running processes of the session, also if the leader has ended.

    Empty if another process has the leader's pid now: the kernel uses a pid again only when no member of the session is
    left.
    """
    leader = _started(session.pid)
    if not session.started or (leader is not None and leader != session.started):
        return ()
    if session.started.partition(" ")[0] != _boot():
        return ()
    return tuple(pid for pid in _all_pids() if _session_id(pid) == session.pid and _started(pid) is not None)


def end(sessions: Iterable[ProcessSession], *, grace_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """
    End all processes of *sessions*: SIGTERM to the leaders, and after *grace_s* SIGKILL to all until none is left.

    Idempotent: sessions that have ended are ignored. With *grace_s* 0 only SIGKILL is sent.

    :raises DRError: a process still runs after ten seconds of SIGKILL (uninterruptible, or of another user).
    """
    left = list(sessions)
    if grace_s > 0:
        for session in left:
            if is_alive(session):
                _signal(session.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while any(members(session) for session in left) and time.monotonic() < deadline:
            for session in left:
                _reap(session.pid)
            sleep(0.1)
    deadline = time.monotonic() + 10
    while True:
        # A member may fork while the list is made. So repeat until a list after the last kill is empty.
        living = [pid for session in left for pid in members(session)]
        if not living:
            return
        for pid in living:
            _signal(pid, signal.SIGKILL)
        for session in left:
            _reap(session.pid)
        if time.monotonic() > deadline:
            raise DRError(
                f"Processes {living} did not end within 10 s of SIGKILL.",
                advice="Check them with ps: they belong to another user, or hang in the kernel.",
            )
        sleep(0.02)


def end_followers(session: ProcessSession, *, grace_s: float) -> None:
    """End every process of a session except its leader: SIGTERM, and after *grace_s* SIGKILL. Idempotent."""
    deadline = time.monotonic() + grace_s
    number = signal.SIGTERM
    signalled: set[int] = set()
    while followers := [pid for pid in members(session) if pid != session.pid]:
        if time.monotonic() > deadline:
            number, signalled = signal.SIGKILL, set()
        for pid in set(followers) - signalled:
            _signal(pid, number)
            signalled.add(pid)
        time.sleep(0.1)


def signal_all(sessions: Iterable[ProcessSession], number: int) -> None:
    """Send a signal to every process of *sessions*."""
    for session in sessions:
        for pid in members(session):
            _signal(pid, number)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _boot() -> str:
    """Return an id of this boot of the machine, because start times repeat after a reboot."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "-"


def _started(pid: int) -> str | None:
    """Return the start time of a process; None if it does not exist or is a zombie."""
    if HAS_PROC:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        # The command name is in brackets, and may contain brackets itself.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{_boot()} {fields[19]}"
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if not answer or answer[0].startswith("Z") else f"{_boot()} {answer[1].strip()}"


def _session_id(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _all_pids() -> Sequence[int]:
    if HAS_PROC:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    answer = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=True).stdout
    return [int(line) for line in answer.split()]
