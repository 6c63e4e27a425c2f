"""
Small files that the task processes of one machine share, read and written without trust in what is in their place.

Any process of the machine may put something there: a link, a FIFO, a folder, a huge file, a file of another user. None
of these may hang a task, redirect a write or be believed. Each is an OSError here, and callers do without the file.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_LIMIT_BYTES = 1_000_000
"""More than twice the 400 KB that an item of DynamoDB may have."""
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path) -> str:
    """
    Return the text of a regular file of this user.

    :raises FileNotFoundError: there is none.
    :raises OSError: there is something else in its place, or it is too large.
    :raises UnicodeDecodeError: it is no text.
    """
    descriptor = _open(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(_LIMIT_BYTES + 1)
    if len(content) > _LIMIT_BYTES:
        raise OSError(f"{path} is larger than {_LIMIT_BYTES:,} bytes")
    return content.decode()


def write(path: Path, text: str) -> None:
    """
    Put a file with *text* in the place of what is there; readers see the old one or the new one, whole.

    Follows no link: a link, a FIFO or another user's file is replaced if the folder allows it.

    :raises OSError: it could not be written, for instance because there is a folder in its place.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}")
    # Left by a process of the same number that was killed, or put there: opened exclusively, it would be in the way.
    with suppress(FileNotFoundError):
        own.unlink()
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        own.replace(path)
    except OSError:
        with suppress(OSError):
            own.unlink()
        raise


def age_s(path: Path, *, now: float) -> float | None:
    """
    Return how long ago a file of this user was written, in seconds; None when there is none, or it is of the future.

    :param now: seconds since 1970.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    age = now - found.st_mtime
    return age if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and age >= 0 else None


def open_lock(path: Path) -> int:
    """
    Return the descriptor of a file that processes lock, made if there is none. The caller closes it.

    :raises OSError: there is something else in its place.
    """
    return _open(path, os.O_RDWR | os.O_CREAT)


def _open(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | _SAFE, 0o600)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise OSError(f"{path} is not a regular file of user {os.geteuid()}")
