"""Two MWAA environments in the sandbox's AWS, with real sockets, versioned buckets and roles, for deployments."""

from __future__ import annotations

import io
import json
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import boto3
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.common_models import CloudFormationModel

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_stack
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.aws.dynamodb.tables import DynamoDBTables
from airflow_provider_mwaa_dr.cli import main
from airflow_provider_mwaa_dr.cli.runtime import Runtime, system_runtime
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, AgentStatus, Environment, FenceLoad, StateStore
from airflow_provider_mwaa_dr.core.sites import Site, Sites
from airflow_provider_mwaa_dr.sandbox.cloud.aws_server import AwsServer
from airflow_provider_mwaa_dr.testing import FakeEnvironment, ManualClock

A, B = "us-east-2", "us-east-1"
UPDATE_S = 25 * 60.0


class Alarm(CloudFormationModel):
    """An alarm from a template. moto's CloudFormation creates no alarms, so this class keeps their properties."""

    @staticmethod
    def cloudformation_name_type() -> str:
        return "AlarmName"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudWatch::Alarm"

    @classmethod
    def create_from_cloudformation_json(  # type: ignore[override]
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        made = cls()
        made.properties = cloudformation_json["Properties"]
        made.physical_resource_id = resource_name
        cloudwatch_backends[account_id][region_name].alarms[resource_name] = made  # type: ignore[assignment]
        return made

    @classmethod
    def update_from_cloudformation_json(  # type: ignore[override]
        cls, original_resource: Any, new_resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> Any:
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)

    @classmethod
    def delete_from_cloudformation_json(  # type: ignore[override]
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        cloudwatch_backends[account_id][region_name].alarms.pop(resource_name, None)

    properties: dict[str, Any]
    physical_resource_id: str


@dataclass(frozen=True)
class Result:
    """Exit code and output of a call."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout, which must be exactly one JSON document."""
        return json.loads(self.out)

    @property
    def changed(self) -> list[str]:
        """Names of the steps that changed something."""
        return [step["name"] for step in self.document["steps"] if step["changed"]]


class Terminal(io.StringIO):
    """A stdin that is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(kw_only=True)
class Cloud:
    """
    An AWS with an environment in each of *regions*, and a command line that uses it.

    :param regions: ids of the sites.
    :param aws_regions: AWS region of each site whose id is a name.
    :ivar versions: Airflow version by region; *statuses*: status by region.
    :ivar airflows: Airflow of each region: its API.
    :ivar make_environment: opens the environment of a site for a command; None: one of *airflows*.
    """

    home: Path
    session: boto3.session.Session
    regions: tuple[str, str] = (A, B)
    aws_regions: Mapping[str, str] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=ManualClock)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    variables: dict[str, str] = field(default_factory=dict)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    make_environment: Callable[[Site], Environment] | None = None
    tried: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._beat = 0
        self._clients: dict[tuple[str, str], Any] = {}
        self.first, self.second = self.regions
        self.names = {self.first: f"etl-primary-{self.id}", self.second: f"etl-secondary-{self.id}"}
        self.buckets = {region: f"bucket-{name}" for region, name in self.names.items()}
        self.state_table, self.runs_table = f"state-{self.id}", f"runs-{self.id}"
        self.stack = f"mwaa-dr-{self.id}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        for region, name in self.names.items():
            self.environments[region] = {
                "name": name,
                "region": self.aws_region(region),
                "airflow_url": "http://127.0.0.1:9",
                "airflow_version": "3.3.1",
                "auth": {"header": "none"},
                "bucket": self.buckets[region],
                "role": f"role-{name}",
            }
        self.airflows = {region: FakeEnvironment(region, name, clock=self.clock) for region, name in self.names.items()}
        self.set_variables({})

    def set_variables(self, changes: Mapping[str, str]) -> None:
        """Replace environment variables of the command line; an empty text unsets one."""
        variables = {
            "DR_STATE_TABLE": self.state_table,
            "DR_RUNS_TABLE": self.runs_table,
            "DR_ENVIRONMENTS": str(self.sites),
            **changes,
        }
        self.variables = {name: text for name, text in variables.items() if text}

    def aws_region(self, site: str) -> str:
        """Return the AWS region of a site."""
        return self.aws_regions.get(site, site)

    @property
    def sites(self) -> Sites:
        """The sites."""
        return Sites(
            Site(id=site, environment=name, aws_region=self.aws_region(site)) for site, name in self.names.items()
        )

    def start(self) -> None:
        """Serve in a thread, and create the resources that an environment needs."""
        (self.home / "aws").mkdir(parents=True, exist_ok=True)
        self.configure()
        self.server = AwsServer(self.home, clock=self.clock.monotonic)
        self._thread = threading.Thread(target=self.server.serve, daemon=True)
        self._thread.start()
        for region, name in self.names.items():
            place = self.aws_region(region)
            location = {"CreateBucketConfiguration": {"LocationConstraint": place}} if place != "us-east-1" else {}
            s3 = self.client("s3", region)
            s3.create_bucket(Bucket=self.buckets[region], **location)
            s3.put_bucket_versioning(Bucket=self.buckets[region], VersioningConfiguration={"Status": "Enabled"})
            self.client("iam", region).create_role(
                RoleName=f"role-{name}", Path="/service-role/", AssumeRolePolicyDocument="{}"
            )

    def stop(self) -> None:
        """End the thread and close the port."""
        self.server.stop()
        self._thread.join()
        self.server.close()
        for client in self._clients.values():
            client.close()

    def configure(self, **changes: Any) -> None:
        """Write the server's configuration. The server reads it again at the next request."""
        config = {
            "state_model": "each its own",
            "state_region": self.aws_region(self.first),
            "callers": {"control": self.port},
            "environments": self.environments,
            "update_s": UPDATE_S,
            **changes,
        }
        path = self.home / "aws" / "config.json"
        path.with_suffix(".new").write_text(json.dumps(config))
        path.with_suffix(".new").replace(path)

    def describe(self, region: str, **members: Any) -> None:
        """Set members of GetEnvironment for the environment of *region*, as from its creation."""
        described = self.environments[region].setdefault("described", {})
        described.update(members)
        self.configure()

    def client(self, service: str, site: str) -> Any:
        """Return a boto3 client in the region of *site* for the test itself."""
        create: Any = self.session.client
        region = self.aws_region(site)
        if (service, region) not in self._clients:
            self._clients[service, region] = create(service, region_name=region, endpoint_url=self.url)
        return self._clients[service, region]

    def environment(self, region: str) -> dict[str, Any]:
        """Return the answer of GetEnvironment."""
        answer = self.server.mwaa._describe(self.server.config().environments[region], "control")
        return dict(answer)

    def put(self, region: str, key: str, content: bytes) -> str:
        """Write an object; return its version."""
        answer = self.client("s3", region).put_object(Bucket=self.buckets[region], Key=key, Body=content)
        return str(answer["VersionId"])

    def get(self, region: str, key: str, version: str | None = None) -> bytes:
        """Return an object's content."""
        named = {"VersionId": version} if version else {}
        answer = self.client("s3", region).get_object(Bucket=self.buckets[region], Key=key, **named)
        return bytes(answer["Body"].read())

    def in_use(self, region: str, what: str = "Requirements") -> bytes:
        """Return the file that the environment uses."""
        found = self.environment(region)
        return self.get(region, found[f"{what}S3Path"], found[f"{what}S3ObjectVersion"])

    def keys(self, region: str) -> set[str]:
        """Return the keys of the bucket."""
        answer = self.client("s3", region).list_objects_v2(Bucket=self.buckets[region])
        return {row["Key"] for row in answer.get("Contents", ())}

    def versions(self, region: str) -> int:
        """Return the number of object versions in the bucket."""
        return len(self.client("s3", region).list_object_versions(Bucket=self.buckets[region]).get("Versions", ()))

    def alarms(self, site: str) -> dict[str, dict[str, Any]]:
        """Return the properties of the alarms of *site*, by their name without the stack's name."""
        found = cloudwatch_backends["123456789012"][self.aws_region(site)].alarms
        prefix = f"{alarms_stack(self.stack, self.sites.site(site))}-"
        return {name.removeprefix(prefix): vars(found[name])["properties"] for name in found if prefix in name}

    def come_alive(
        self,
        region: str,
        *,
        version: str = __version__,
        loads_fence: bool = True,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """
        From now on, an updated environment has an agent, the DAG dr_readiness, and a worker with the fence.

        :param around: a context for what the environment does.
        """

        def turn() -> None:
            self.clock.after(10, turn)
            with around():
                act()

        def act() -> None:
            found = self.environment(region)
            if found["Status"] != "AVAILABLE" or "dr.enabled" not in found["AirflowConfigurationOptions"]:
                return
            self._beat += 1
            self.store().put_agent(
                AgentStatus(
                    region=region, job="1", host="h", at=self.clock.now(), beat=self._beat, version=1, epoch=0,
                    provider_version=version, airflow_version="3.3.1",
                )
            )  # fmt: skip
            airflow = self.airflows[region]
            if "dr_readiness" not in airflow.paused | airflow.unpaused:
                airflow.add_dag("dr_readiness", is_paused=True)
            elif loads_fence and airflow.notes:
                self.store().put(FENCE_LOADS, FenceLoad(region=region, at=datetime.now(timezone.utc)))

        self.clock.after(10, turn)

    def store(self) -> DynamoDBStateStore:
        """Return the state table."""
        return self.open(self.state_table, tuple(dict.fromkeys(map(self.aws_region, self.regions))))

    def copy(self, region: str) -> DynamoDBStateStore:
        """Return one replica of the state table."""
        return self.open(self.state_table, (region,))

    def open(self, table: str, regions: Sequence[str]) -> DynamoDBStateStore:
        """Return a store with a timeout that is long enough for a busy machine."""
        return DynamoDBStateStore(table, regions, clock=self.clock, session=self.session, timeout_s=20)

    def updated(self) -> None:
        """Wait until the running updates have ended."""
        self.clock.advance(UPDATE_S)

    def __call__(self, *argv: str, answer: str | None = None) -> Result:
        """Run a command of ``mwaa-dr`` with the stack's name."""
        return self.run(*argv, "--stack", self.stack, answer=answer)

    def run(self, *argv: str, answer: str | None = None) -> Result:
        """Run ``mwaa-dr``."""
        out, err = io.StringIO(), io.StringIO()

        def make_store(config: DRConfig) -> StateStore:
            if config.eventual_mode is None:
                return self.open(config.state_table, config.replicas)
            copies = {region: self.open(config.state_table, (region,)) for region in config.replicas}
            return EventualStateStore(copies, mode=config.eventual_mode, clock=self.clock)

        runtime: Runtime = replace(
            system_runtime(),
            environ=self.variables,
            stdin=io.StringIO() if answer is None else Terminal(answer),
            stdout=out,
            stderr=err,
            clock=self.clock,
            who="ana@laptop",
            make_store=make_store,
            make_environment=self.make_environment or (lambda site: self.airflows[site.id]),
            make_tables=lambda config: DynamoDBTables(config.replicas, clock=self.clock, session=self.session),
            make_runs=lambda config: DynamoDBRunsStore(
                config.runs_table, config.replicas, clock=self.clock, session=self.session, timeout_s=20
            ),
            try_requirements=self._try_requirements,
            boto3_session=self.session,
        )
        code = main(argv, runtime=runtime)
        return Result(code, out.getvalue(), err.getvalue())

    def _try_requirements(
        self, _environ: Mapping[str, str], version: str, requirements: bytes, plugins: bytes | None
    ) -> str:
        self.tried.append((requirements, plugins))
        return f"not tried with Airflow {version}"

    def deploy(self, *argv: str) -> Result:
        """Run ``mwaa-dr deploy --both-at-once --yes --json``: no Airflow runs here that could prove anything."""
        return self("deploy", "--both-at-once", *argv, "--yes", "--json")

    def undeploy(self, *argv: str) -> Result:
        """Run ``mwaa-dr undeploy --yes --json``."""
        return self("undeploy", *argv, "--yes", "--json")
