"""The S3 bucket of an environment. MWAA requires versioning, and refers to each file by its version."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.exceptions import AwsMissingError, RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """One version of an object."""

    version: str
    content: bytes


class Bucket:
    """
    An S3 bucket with versioning.

    :param region: region of the environment; its bucket is in the same region.
    """

    def __init__(self, aws: Aws, region: str, name: str) -> None:
        self.name = name
        self._region = region
        self._s3 = aws("s3", region)

    def __str__(self) -> str:
        return f"s3://{self.name}"

    def require_versions(self) -> None:
        """Raise unless versioning is enabled. :raises RefusedError: versioning is not enabled."""
        status = self._s3.call_idempotent("get_bucket_versioning", Bucket=self.name).get("Status")
        if status != "Enabled":
            raise RefusedError(
                f"The bucket {self.name} ({self._region}) keeps no versions (versioning: {status or 'never enabled'}). "
                "MWAA requires versioning, and without it a change of requirements.txt cannot be undone.",
                advice=f"aws s3api put-bucket-versioning --bucket {self.name} --region {self._region} "
                "--versioning-configuration Status=Enabled",
            )

    def get(self, key: str, *, version: str | None = None) -> ObjectVersion | None:
        """Return an object in this *version*, or its latest version; None if it does not exist."""
        named = {"VersionId": version} if version else {}
        try:
            answer, content = self._s3.read_body("get_object", Bucket=self.name, Key=key, **named)
        except AwsMissingError as error:
            if error.code != "NoSuchKey" or version:
                error.advice = f"Check s3://{self.name}/{key}: the environment uses version {version or 'none'} of it."
                raise
            return None
        return ObjectVersion(version=answer.get("VersionId", ""), content=content)

    def put(self, key: str, content: bytes) -> str:
        """Write an object and return its version. Not idempotent: each call creates a version."""
        answer = self._s3.call_once("put_object", Bucket=self.name, Key=key, Body=content)
        return str(answer.get("VersionId", ""))

    def delete(self, key: str) -> None:
        """Put a delete marker on an object. S3 keeps its versions."""
        self._s3.call_idempotent("delete_object", Bucket=self.name, Key=key)
