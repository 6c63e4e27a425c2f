"""The bucket and the execution role of each environment of a bare home, in the emulated AWS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.sandbox.cloud.tables import EndpointSession
from airflow_provider_mwaa_dr.sandbox.runtime.home import Region

DAGS = "dags"
REQUIREMENTS = "requirements.txt"
USERS_REQUIREMENTS = b"# What the pipelines need. Ask the data team before you change it.\nrequests\n"
USERS_OPTIONS = {"core.default_task_retries": "0", "core.max_active_tasks_per_dag": "16"}
"""Airflow's own defaults, so that they have no effect."""


class Buckets:
    """
    The buckets of the environments.

    :param variables: the variables with which ``mwaa-dr`` acts on the sandbox. Those of this process are ignored.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._session = EndpointSession(variables)

    def create(self, region: Region) -> Mapping[str, Any]:
        """Create the bucket and the role of a new environment, and return its members for GetEnvironment."""
        s3 = self._s3(region)
        # S3 rejects us-east-1 as a LocationConstraint.
        location = {"CreateBucketConfiguration": {"LocationConstraint": region.place}}
        s3.create_bucket(Bucket=region.bucket, **({} if region.place == "us-east-1" else location))
        s3.put_bucket_versioning(Bucket=region.bucket, VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket=region.bucket, Key=f"{DAGS}/", Body=b"")
        requirements = s3.put_object(Bucket=region.bucket, Key=REQUIREMENTS, Body=USERS_REQUIREMENTS)
        self._session.client("iam", region_name=region.place).create_role(
            RoleName=region.role, Path="/service-role/", AssumeRolePolicyDocument="{}"
        )
        return {
            "DagS3Path": DAGS,
            "RequirementsS3Path": REQUIREMENTS,
            "RequirementsS3ObjectVersion": requirements["VersionId"],
            "AirflowConfigurationOptions": dict(USERS_OPTIONS),
        }

    def read(self, region: Region, key: str, version: str) -> bytes:
        """Return a version of an object."""
        answer = self._s3(region).get_object(Bucket=region.bucket, Key=key, VersionId=version)
        return bytes(answer["Body"].read())

    def put_dags(self, region: Region, folder: Path) -> None:
        """Write the files of *folder* into the DAGs folder of the bucket."""
        s3, prefix = self._s3(region), region.described.get("DagS3Path", DAGS).strip("/")
        for path in dag_files(folder):
            s3.put_object(Bucket=region.bucket, Key=f"{prefix}/{path}", Body=(folder / path).read_bytes())

    def _s3(self, region: Region) -> Any:
        return self._session.client("s3", region_name=region.place)


def dag_files(folder: Path) -> list[str]:
    """Return the paths of all files in a DAGs folder, relative to it, without Python's caches."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
