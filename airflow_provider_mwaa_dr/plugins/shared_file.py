"""
Small files that the task processes of one machine share. No other process can use them to harm a task.

Any process of the machine may create something else with the same path: a link, a FIFO, a folder, a huge file, a file
of another user. None of these may hang a task, redirect a write or be used as content. Each raises an OSError, and
callers then continue without the file.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_LIMIT_BYTES = 1_000_000
"""More than twice the size limit of a DynamoDB item, which is 400 KB."""
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path) -> str:
    """
    Return the text of a regular file of this user.

    :raises FileNotFoundError: there is none.
    :raises OSError: *path* is not a regular file of this user, or the file is too large.
    :raises UnicodeDecodeError: it is not a text.
    """
    descriptor = _open(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(_LIMIT_BYTES + 1)
    if len(content) > _LIMIT_BYTES:
        raise OSError(f"{path} is larger than {_LIMIT_BYTES:,} bytes")
    return content.decode()


def write(path: Path, text: str) -> None:
    """
    Replace *path* by a file with *text*; readers get the complete old file or the complete new one.

    Follows no link: it replaces a link, a FIFO or another user's file, if the folder allows it.

    :raises OSError: the file could not be written, for example because *path* is a folder.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}")
    # A killed process with the same id, or another user, may have created this file. Then O_EXCL would fail.
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
    Return the age of a file of this user, in seconds; None if there is none, or if its time is in the future.

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
    Return the descriptor of a file that processes lock, and create the file if there is none. The caller closes it.

    :raises OSError: *path* is not a regular file of this user.
    """
    return _open(path, os.O_RDWR | os.O_CREAT)


def _open(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | _SAFE, 0o600)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise OSError(f"{path} is not a regular file of user {os.geteuid()}")
