"""A file that an environment uses, changed in its bucket: requirements.txt and plugins.zip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from airflow_provider_mwaa_dr.aws.bucket import Bucket
from airflow_provider_mwaa_dr.exceptions import RefusedError


class BuildOn(str, Enum):
    """Which version of a file counts where the bucket has a newer one than the environment uses."""

    IN_USE = "in-use"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """
    What an environment's file is to become.

    :param key: in the bucket.
    :param before, after: its content; the same when nothing has to change.
    :param version: the version that holds *after* already; None when it is still to be written.
    :param is_in_use: whether the environment uses exactly that version.
    """

    bucket: Bucket
    key: str
    before: bytes
    after: bytes
    version: str | None
    is_in_use: bool

    @property
    def needs_upload(self) -> bool:
        """Whether the bucket lacks it."""
        return self.version is None

    def upload(self) -> str:
        """Return the version that holds *after*, written now if it has to be."""
        return self.version if self.version is not None else self.bucket.put(self.key, self.after)


def plan_file(
    bucket: Bucket,
    key: str | None,
    version: str | None,
    *,
    own_key: str,
    change: Callable[[bytes], bytes],
    build_on: BuildOn | None = None,
) -> FileChange | None:
    """
    Return what the file is to become; None when there is none and *change* makes none.

    What the environment uses is what is changed. A newer version in the bucket is somebody's who has not updated the
    environment yet: taking it would put it into force, passing it over would bury it. Unless it says what is wanted
    anyway, as after an interruption, a person has to decide.

    :param key: None: the environment has no such file, and *own_key* is used.
    :param version: the version in use; None: the latest.
    :param change: idempotent.
    :raises RefusedError: the bucket has a newer version, and *build_on* does not say which one counts.
    """
    latest = bucket.get(key or own_key)
    if key is None:
        # Nobody else writes there; whatever it holds is ours, from an earlier call.
        after = change(b"")
        if not after:
            return None
        is_there = latest is not None and latest.content == after
        return FileChange(
            bucket=bucket,
            key=own_key,
            before=b"",
            after=after,
            version=latest.version if is_there and latest else None,
            is_in_use=False,
        )
    used = latest if version is None or (latest and latest.version == version) else bucket.get(key, version=version)
    before = used.content if used else b""
    after = change(before)
    if after == before and build_on is not BuildOn.LATEST:
        return FileChange(bucket=bucket, key=key, before=before, after=after, version=version or "", is_in_use=True)
    if latest and used and latest.content not in {before, after}:
        if build_on is None:
            raise RefusedError(
                f"{bucket}/{key} has a newer version ({latest.version}) than the environment uses ({used.version}). "
                "Nothing was changed.",
                advice="Update the environment to it first, or say which of the two counts: --build-on latest or "
                "--build-on in-use.",
            )
        if build_on is BuildOn.LATEST:
            before, after = latest.content, change(latest.content)
    is_there = latest is not None and latest.content == after
    return FileChange(
        bucket=bucket,
        key=key,
        before=before,
        after=after,
        version=latest.version if is_there and latest else None,
        is_in_use=bool(is_there and latest and used and latest.version == used.version),
    )
