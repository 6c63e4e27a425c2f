"""The provider's wheel in a user's ``plugins.zip``: bytes in, bytes out."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from airflow_provider_mwaa_dr.exceptions import ConfigError, RefusedError

T = TypeVar("T")

_OURS = re.compile(r"^airflow_provider_mwaa_dr-(?P<version>[^-/]+)(?:-[^/]+)?-[^-/]+-[^-/]+-[^-/]+\.whl$")
_WRITTEN_AT = (1980, 1, 1, 0, 0, 0)
"""A fixed time: the same wheel makes the same archive, so a repeated deployment recognises it."""
_LEFT = "mwaa-dr.txt"
_WHY_LEFT = b"mwaa-dr undeploy left this file: an environment that has a plugins.zip cannot go back to having none.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel of this distribution."""

    name: str
    version: str
    content: bytes

    @property
    def sha256(self) -> str:
        """The hash of the file, for a requirements.txt with hashes."""
        return hashlib.sha256(self.content).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Wheel:
        """Return the wheel in *path*. :raises ConfigError: it cannot be read, or is a wheel of another distribution."""
        found = _OURS.match(path.name)
        if found is None:
            raise ConfigError(
                f"{path.name} is not the file name of a wheel of airflow-provider-mwaa-dr.",
                option="wheel",
                advice="Build one with `python -m build --wheel`, and keep its name: pip reads it.",
            )
        try:
            content = path.read_bytes()
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                broken = archive.testzip()
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"The wheel {path} cannot be read: {error}.",
                option="wheel",
                advice="Give the path of a readable wheel.",
            ) from error
        if broken is not None:
            raise ConfigError(
                f"The wheel {path} is damaged: the checksum of its file {broken} is wrong.",
                option="wheel",
                advice="Build or download it again.",
            )
        return cls(name=path.name, version=found["version"], content=content)


def merge(archive: bytes, wheel: Wheel) -> bytes:
    """
    Return *archive* with *wheel*, and with no other wheel of the provider; the same bytes if nothing has to change.

    If the archive has no wheel of the provider, its bytes are kept and the wheel is appended.

    :param archive: empty: the environment has no plugins.zip.
    """
    if archive and _names(archive) == [_LEFT]:
        archive = b""
    ours = _ours(archive)
    if ours == {wheel.name: wheel.content}:
        return archive
    buffer = io.BytesIO(_without_ours(archive) if ours else archive)
    with zipfile.ZipFile(buffer, "a") as target:
        entry = zipfile.ZipInfo(wheel.name, date_time=_WRITTEN_AT)
        entry.external_attr = 0o644 << 16
        target.writestr(entry, wheel.content)
    return buffer.getvalue()


def remove(archive: bytes) -> bytes:
    """Return *archive* without wheels of the provider; the same bytes if it has none. The result is never empty."""
    return _without_ours(archive) if archive and _ours(archive) else archive


def wheels_in(archive: bytes) -> list[str]:
    """Return the names of the provider's wheels in *archive*."""
    return sorted(_ours(archive))


def _names(archive: bytes) -> list[str]:
    return _with_archive(archive, zipfile.ZipFile.namelist)


def _ours(archive: bytes) -> dict[str, bytes]:
    if not archive:
        return {}
    return _with_archive(
        archive, lambda source: {name: source.read(name) for name in source.namelist() if _OURS.match(name)}
    )


def _without_ours(archive: bytes) -> bytes:
    def copy(source: zipfile.ZipFile) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            target.comment = source.comment
            for entry in source.infolist():
                if not _OURS.match(entry.filename):
                    target.writestr(entry, source.read(entry), compress_type=entry.compress_type)
            if not target.namelist():
                target.writestr(zipfile.ZipInfo(_LEFT, date_time=_WRITTEN_AT), _WHY_LEFT)
        return buffer.getvalue()

    return _with_archive(archive, copy)


def _with_archive(archive: bytes, act: Callable[[zipfile.ZipFile], T]) -> T:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as source:
            return act(source)
    except zipfile.BadZipFile as error:
        raise RefusedError(
            f"The environment's plugins file is not a ZIP archive ({error}); it was not changed.",
            advice="Put a plugins.zip in its place, update the environment to it, and deploy again.",
        ) from error
