"""Changes of the files that an environment uses, in its bucket: requirements.txt and plugins.zip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from airflow_provider_mwaa_dr.aws.deploy.bucket import Bucket
from airflow_provider_mwaa_dr.exceptions import RefusedError


class BuildOn(str, Enum):
    """The version of a file to change, if the bucket has a newer version than the environment uses."""

    IN_USE = "in-use"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """
    The change of one file of an environment.

    :param key: key in the bucket.
    :param before, after: content before and after the change; equal if nothing has to change.
    :param version: the version that has the content *after* already; None if it has to be uploaded.
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
        """Whether no version in the bucket has the new content."""
        return self.version is None

    def upload(self) -> str:
        """Return the version with the content *after*; upload it first if necessary."""
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
    Return the change of the file; None if the file does not exist and *change* creates none.

    The change applies to the version that the environment uses. The bucket may have a newer version from a user who has
    not updated the environment yet. To build on it would activate that user's change; to ignore it would hide that
    change. Therefore the user has to decide, unless the newer version already has the wanted content, as after an
    interruption.

    :param key: None: the environment has no such file, and *own_key* is used.
    :param version: the version in use; None: the latest version.
    :param change: returns the new content; idempotent.
    :raises RefusedError: the bucket has a newer version, and *build_on* is None.
    """
    latest = bucket.get(key or own_key)
    if key is None:
        # Only the provider writes this key, so an existing object is from an earlier deployment.
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
                advice="Update the environment to the newer version first, or choose the version to change: "
                "--build-on latest or --build-on in-use.",
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
