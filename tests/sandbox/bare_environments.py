"""Bare environments without Airflow's processes, and a user who deploys into bare environments."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.config import Config
from moto.moto_api._internal import moto_api_backend

from airflow_provider_mwaa_dr.sandbox.cloud.aws_server import AwsServer
from airflow_provider_mwaa_dr.sandbox.cloud.buckets import Buckets
from airflow_provider_mwaa_dr.sandbox.cloud.tables import EndpointSession
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from airflow_provider_mwaa_dr.sandbox.runtime.description import aws_config
from airflow_provider_mwaa_dr.sandbox.runtime.home import ACTIVE, BARE_NAMES, REGIONS, Blueprint, new_blueprint
from tests.waiting import wait_until

UPDATE_S = 900.0


def bare_blueprint() -> Blueprint:
    """Return the blueprint of a bare home with the environments of the documents."""
    return new_blueprint(
        versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={}, bare=True
    )


@contextmanager
def environments(home: Path, *, requirements: bool = True) -> Iterator[Mapping[str, str]]:
    """
    Yield the variables for an AWS with the two environments of the documents, which have no Airflow.

    :param requirements: whether the environments have a requirements.txt.
    """
    blueprint = bare_blueprint()
    config = aws_config(blueprint)
    (home / "aws").mkdir(parents=True)

    def configure() -> None:
        for environment in config["environments"].values():
            environment["is_bare"] = False
            environment["auth"] = {"header": "none"}
        part = home / "aws" / "config.part"
        part.write_text(json.dumps(config))
        part.replace(home / "aws" / "config.json")

    configure()
    server = AwsServer(home)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        variables = airflow_settings.driver_variables(blueprint)
        for name, region in blueprint.regions.items():
            described = Buckets(variables).create(region)
            config["environments"][name]["described"] = {
                member: value
                for member, value in described.items()
                if requirements or not member.startswith("Requirements")
            }
        configure()
        yield variables
    finally:
        server.stop()
        thread.join()
        server.close()
        # moto's resources belong to this process, and the next call has the same names.
        moto_api_backend.reset()


class Deployer:
    """
    A user of two bare environments.

    :param variables: those with which ``mwaa-dr`` acts on the emulated AWS.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._session = EndpointSession(variables)

    def environment(self, region: str) -> Mapping[str, Any]:
        """Return MWAA's description of an environment."""
        found: Mapping[str, Any] = self._mwaa(region).get_environment(Name=BARE_NAMES[region])
        return found["Environment"]

    def use(self, region: str, name: str, key: str, content: bytes) -> None:
        """
        Write a file into a bucket, update the environment with it, and return when the update has ended.

        :param name: ``Requirements`` or ``Plugins``.
        """
        changes = {f"{name}S3Path": key, f"{name}S3ObjectVersion": self.put(region, key, content)}
        self._mwaa(region).update_environment(Name=BARE_NAMES[region], **changes)
        wait_until(lambda: self.environment(region)["Status"] == "AVAILABLE", "the update ends", deadline_s=UPDATE_S)

    def put(self, region: str, key: str, content: bytes) -> str:
        """Write a file into a bucket, and return its version. The environment goes on using the old version."""
        answer = self._s3(region).put_object(Bucket=f"{BARE_NAMES[region]}-bucket", Key=key, Body=content)
        return str(answer["VersionId"])

    def file_in_use(self, region: str, name: str) -> bytes | None:
        """Return the content of the ``Requirements`` or ``Plugins`` of an environment; None if there is none."""
        environment = self.environment(region)
        if not (key := environment.get(f"{name}S3Path")):
            return None
        answer = self._s3(region).get_object(
            Bucket=f"{BARE_NAMES[region]}-bucket", Key=key, VersionId=environment[f"{name}S3ObjectVersion"]
        )
        return bytes(answer["Body"].read())

    def deploy(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``mwaa-dr deploy --wait`` to its end."""
        command = [sys.executable, "-m", "airflow_provider_mwaa_dr.cli", "deploy", "--active", ACTIVE]
        environment = airflow_settings.process_variables(
            {**self._variables, **variables}, bin_folder=Path(sys.executable).parent
        )
        done = subprocess.run(
            [*command, "--wait", "--yes", *words],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        print(*words, done.returncode, done.stdout, sep="\n")
        return done

    def _mwaa(self, region: str) -> Any:
        return self._session.client("mwaa", region_name=region, config=Config(inject_host_prefix=False))

    def _s3(self, region: str) -> Any:
        return self._session.client("s3", region_name=region)
