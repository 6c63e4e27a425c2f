"""State table and runs table in the emulated AWS, which loses all data when it stops."""

from __future__ import annotations

import base64
import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_state_store
from airflow_provider_mwaa_dr.core.config import DRConfig, environment_texts, parse_config
from airflow_provider_mwaa_dr.core.initialization import initialize, plan_initialization
from airflow_provider_mwaa_dr.exceptions import StateError
from airflow_provider_mwaa_dr.sandbox.runtime.home import write_private_json

KEYS = {"state_table": ("state_id",), "runs_table": ("pk", "sk")}
"""Partition key and, if there is one, sort key, by the name of the setting for the table."""


BOUNDED = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1, "mode": "standard"})
"""Short timeouts, because an injected fault may drop a request. With boto3's defaults it would take five minutes."""


class SandboxTables:
    """
    The tables, as the control environment reads them.

    :param variables: the variables with which ``mwaa-dr`` acts on the sandbox. Those of this process are ignored.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.config: DRConfig = parse_config(environment_texts(variables))
        self._session = EndpointSession(variables)
        self.store = open_state_store(self.config, clock=SystemClock(), session=self._session)
        self.runs = DynamoDBRunsStore(
            self.config.runs_table, self.config.replicas, clock=SystemClock(), session=self._session
        )

    def ensure(self, *, active: str, saved: Path, say: Callable[[str], object]) -> None:
        """
        Create missing tables with the *saved* items, and initialise them like ``mwaa-dr init --active``. Idempotent.

        :param active: the active region of a new DR set; an existing one keeps its active region.
        :raises StateError: the emulated AWS does not answer.
        """
        items = json.loads(saved.read_text(), object_hook=_from_json) if saved.exists() else {}
        for region in self._copies():
            client = self._client(region)
            existing = client.list_tables()["TableNames"]
            for table, key in self._tables().items():
                if table in existing:
                    continue
                client.create_table(
                    TableName=table,
                    AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in key],
                    KeySchema=[
                        {"AttributeName": name, "KeyType": kind}
                        for name, kind in zip(key, ("HASH", "RANGE"), strict=False)
                    ],
                    BillingMode="PAY_PER_REQUEST",
                )
                for item in items.get(table, ()):
                    client.put_item(TableName=table, Item=item)
        plan = plan_initialization(
            self.store,
            active_region=None if self.active_region() else active,
            environments=self.config.environments,
            lease_s=self.config.lease_s,
            by=f"{getpass.getuser()} (mwaa-dr sandbox up)",
            at=SystemClock().now(),
        )
        if plan.changes_something:
            initialize(self.store, plan)
            say(f"state table: {plan.state.active_region} is active, epoch {plan.state.epoch}")

    def save(self, path: Path) -> None:
        """Write the tables' items to *path*, for the next start. If each region has a copy, use the active region's."""
        region = self.active_region() if len(self._copies()) > 1 else None
        pages = self._client(region or self.config.state_table_region).get_paginator("scan")
        saved = {
            table: [item for page in pages.paginate(TableName=table, ConsistentRead=True) for item in page["Items"]]
            for table in self._tables()
        }
        write_private_json(path, saved, default=_to_json)

    def _tables(self) -> dict[str, tuple[str, ...]]:
        """Return the key attributes by table. A runs table is optional."""
        return {name: key for setting, key in KEYS.items() if (name := getattr(self.config, setting))}

    def _copies(self) -> Sequence[str]:
        """Return the regions that have their own copy of the tables; with strong consistency, one region."""
        return self.config.replicas if self.config.eventual_mode is not None else (self.config.state_table_region,)

    def active_region(self) -> str | None:
        """Return the active region; None if there is no state item, or no answer."""
        try:
            return self.store.read().active_region
        except StateError:
            return None

    def has_reconciled(self, region: str) -> bool:
        """Return whether an agent of *region* has read the state and has reconciled its open runs with the epoch."""
        state = self.store.read()
        return any(
            agent.version >= state.version and agent.reconciled_epoch == state.epoch
            for agent in self.store.agents(region)
        )

    def _client(self, region: str) -> Any:
        # Not the provider's client: creating a table on a busy machine may take longer than its timeout of one second.
        return self._session.client("dynamodb", region_name=region)


def _to_json(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _from_json(values: dict[str, Any]) -> Any:
    return base64.b64decode(values["base64"]) if set(values) == {"base64"} else values


class EndpointSession(Session):
    """A boto3 session whose clients use one endpoint and ignore this process's AWS_ENDPOINT_URL."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_DEFAULT_REGION"],
        )
        self._endpoint_url = variables["AWS_ENDPOINT_URL"]

    def client(self, *arguments: Any, **options: Any) -> Any:
        """Return a client for the endpoint."""
        create: Any = super().client  # boto3's type stubs have overloads for literal service names only
        config = BOUNDED.merge(options.pop("config", None) or Config())
        return create(*arguments, **options, endpoint_url=self._endpoint_url, config=config)
