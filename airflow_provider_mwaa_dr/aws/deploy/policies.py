"""
IAM policies with least privilege, one for each purpose, for users who grant permissions without the template.

``tests/contract/test_policies.py`` compares each permission with the calls that the code makes. It also writes the
tables in ``docs/reference/rights.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.aws.cloudwatch import NAMESPACE
from airflow_provider_mwaa_dr.aws.deploy.customer_keys import keys_of_buckets, keys_of_table
from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploySpec
from airflow_provider_mwaa_dr.aws.deploy.example_dags import DEPLOYED
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_stack
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import DeployedEnvironment
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.core.sites import Sites
from airflow_provider_mwaa_dr.core.state import STATE_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """
    The resources that the policies apply to.

    :param environments: environment name by site.
    :param buckets: bucket by site.
    :param roles: ARN of the execution role by site.
    :param dag_folders: folder of the DAGs in the bucket, by site.
    :param table_keys: ARNs of the customer-managed KMS keys of the tables.
    :param bucket_keys: ARNs of the customer-managed KMS keys of the buckets.
    :param topic: ARN of the SNS topic for notifications; empty: there is none.
    :param bus: ARN of the event bus for notifications; empty: there is none.
    :param airflow_role: Airflow role with which a failover calls the REST API of an environment; Op is enough.
    """

    partition: str
    account: str
    state_table: str
    runs_table: str
    stack: str
    environments: Mapping[str, str]
    buckets: Mapping[str, str]
    roles: Mapping[str, str]
    dag_folders: Mapping[str, str]
    table_keys: Sequence[str] = ()
    bucket_keys: Sequence[str] = ()
    topic: str = ""
    bus: str = ""
    airflow_role: str = "Op"

    @property
    def sites(self) -> Sites:
        """The sites with their AWS regions."""
        return Sites.of(self.environments)

    def table(self, name: str) -> str:
        """Return the ARN of a table's replicas in all regions."""
        return f"arn:{self.partition}:dynamodb:*:{self.account}:table/{name}"


Document = dict[str, Any]

_CHANGES = ("dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem")
_FINISHED_ATTRIBUTES = (
    "changed_by", "last_updated", "left_over", "phase", "plan", "state_id", "version", "write_token",
)  # fmt: skip
"""The attributes of the state item that change when an agent finishes a failover, and those of the condition."""


def scope_of(aws: Aws, environments: Mapping[str, DeployedEnvironment], spec: DeploySpec) -> tuple[Scope, list[str]]:
    """
    Return the scope of a deployment, and what is unknown about it. Reads the keys of tables and buckets.

    :param environments: by site.
    """
    one = next(iter(environments.values()))
    sites = Sites(environment.site for environment in environments.values())
    tables = [keys_of_table(aws, name, sites.aws_regions) for name in (spec.state_table, spec.runs_table)]
    buckets = {site: environment.bucket for site, environment in environments.items()}
    bucket_keys = keys_of_buckets(aws, [(each.region, each.bucket) for each in environments.values()])
    scope = Scope(
        partition=one.partition,
        account=one.account,
        state_table=spec.state_table,
        runs_table=spec.runs_table,
        stack=spec.stack,
        environments=sites,
        buckets=buckets,
        roles={region: environment.role_arn for region, environment in environments.items()},
        dag_folders={region: environment.dags for region, environment in environments.items()},
        table_keys=sorted({arn for table in tables for arn in table.arns}),
        bucket_keys=bucket_keys.arns,
        topic=spec.notification_topic,
        bus=spec.notification_bus,
    )
    return scope, [text for keys in (*tables, bucket_keys) for text in keys.unknown]


def policies(scope: Scope) -> dict[str, Any]:
    """
    Return all policies by purpose; ``execution`` has one policy for each site.

    ``using_table_keys`` is missing if no table has a customer-managed KMS key.
    """
    documents = {
        "execution": {region: execution(scope, region) for region in sorted(scope.environments)},
        "finishing": finishing(scope),
        "notifying": notifying(scope),
        "writing_back": writing_back(scope),
        "flipping": flipping(scope),
        "reading": reading(scope),
        "rest_api": rest_api(scope),
        "deploying": deploying(scope),
    }
    return {**documents, "using_table_keys": using_table_keys(scope)} if scope.table_keys else documents


def execution(scope: Scope, region: str) -> Document:
    """Return the policy for the execution role of a site: it reads both tables, and writes the site's own items."""
    state, runs = scope.table(scope.state_table), scope.table(scope.runs_table)
    own_state = [
        f"AGENT#{region}#*",
        f"ENVIRONMENT#{region}",
        f"FENCE#{region}",
        f"SNAPSHOT#{region}",
        f"SNAPSHOT#{region}#*",
        f"INVENTORY#{region}",
        f"INVENTORY#{region}#*",
        f"UNPUBLISHED#{region}",
    ]
    own_runs = [f"LOG#{region}", f"PICTURE#{region}"]
    return _document(
        _allow("ReadState", ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Scan"], state),
        _allow(
            "WriteOwnState",
            ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
            state,
            _keys(*own_state),
        ),
        # Only for [dr] carry_variables, carry_connections and carry_pools. Each value in these items is sealed.
        _allow(
            "WriteOwnSettings",
            ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
            state,
            _keys(f"SETTINGS#{region}", f"SETTINGS#{region}#*"),
        ),
        _allow("ReadLedger", ["dynamodb:GetItem", "dynamodb:Query"], runs),
        _allow("WriteOwnLedger", ["dynamodb:DeleteItem", "dynamodb:PutItem"], runs, _keys(*own_runs)),
        # Without this statement, [dr] history_days has no effect.
        _allow("CopyHistory", ["dynamodb:PutItem"], runs, _keys(f"HISTORY#{region}")),
        _allow(
            "PutMetrics",
            ["cloudwatch:PutMetricData"],
            "*",
            {"StringEquals": {"cloudwatch:namespace": NAMESPACE}},
        ),
    )


def finishing(scope: Scope) -> Document:
    """
    Return the additional policy for an execution role: its agents may then finish a failover whose caller stopped.

    It excludes the attributes that name the active region: active_region, epoch, failover_count and previous_region.
    """
    state = scope.table(scope.state_table)
    return _document(
        _allow(
            "FinishFailover",
            ["dynamodb:UpdateItem"],
            state,
            _keys(STATE_ID) | {"ForAllValues:StringEquals": {"dynamodb:Attributes": [*_FINISHED_ATTRIBUTES]}},
        ),
        _allow("RecordFailover", ["dynamodb:PutItem"], state, _keys("FAILOVER#*")),
        # The set of DAGs that could not be unpaused, with its pages and their announcements.
        _allow("RecordLeftOver", _CHANGES, state, _keys("PAUSED#*")),
    )


def notifying(scope: Scope) -> Document:
    """
    Return the additional policy for execution roles and for callers of a failover: they may send its notifications.

    Airflow notifiers need the first statement, and may need further permissions.
    """
    return _document(
        _allow("RecordNotifications", ["dynamodb:PutItem"], scope.table(scope.state_table), _keys("NOTIFICATION#*")),
        *([_allow("Publish", ["sns:Publish"], scope.topic)] if scope.topic else []),
        *([_allow("PutEvents", ["events:PutEvents"], scope.bus)] if scope.bus else []),
    )


def writing_back(scope: Scope) -> Document:
    """
    Return the policy for an execution role whose agents write back a newer epoch that was overwritten.

    Only for tables with eventual consistency, and not attached by default: it allows to move the active role.
    """
    return _document(
        _allow("WriteBack", ["dynamodb:UpdateItem"], scope.table(scope.state_table), _keys(STATE_ID)),
    )


def using_table_keys(scope: Scope) -> Document:
    """
    Return the policy for all users of tables with customer-managed KMS keys: the roles of all other policies.

    It allows what AWS's own key policy for tables allows their users, except for kms:CreateGrant, which the owner of a
    table needs. https://docs.aws.amazon.com/kms/latest/developerguide/services-dynamodb.html
    """
    actions = ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")
    return _document(_use_keys("UseTableKeys", actions, scope.table_keys, "dynamodb"))


def flipping(scope: Scope) -> Document:
    """Return the policy for failovers and checks: for the control environment, and for users of ``mwaa-dr``."""
    actions = ["BatchGetItem", "DeleteItem", "GetItem", "PutItem", "Scan", "UpdateItem"]
    return _document(
        _allow("FlipState", [f"dynamodb:{action}" for action in actions], scope.table(scope.state_table)),
        # mwaa-dr init --above-every-epoch also reads the highest epoch of the ledger.
        _allow("ReadLedger", ["dynamodb:GetItem", "dynamodb:Query"], scope.table(scope.runs_table)),
        _allow(
            "SeeTables", ["dynamodb:DescribeTable"], [scope.table(scope.state_table), scope.table(scope.runs_table)]
        ),
    )


def reading(scope: Scope) -> Document:
    """Return the policy for ``mwaa-dr status`` and ``mwaa-dr history``, which change nothing."""
    actions = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Scan"]
    return _document(
        _allow("ReadState", actions, scope.table(scope.state_table)),
        _allow("SeeEnvironments", ["airflow:GetEnvironment"], _environments(scope)),
    )


def rest_api(scope: Scope) -> Document:
    """Return the policy for calls to the environments' REST APIs; needed together with :func:`flipping`."""
    actions = ["airflow:CreateWebLoginToken", "airflow:InvokeRestApi"]
    return _document(
        _allow("SeeEnvironments", ["airflow:GetEnvironment"], _environments(scope)),
        _allow("DriveAirflow", actions, _airflow_roles(scope)),
    )


def deploying(scope: Scope) -> Document:
    """
    Return the policy for the calls that ``mwaa-dr deploy`` and ``undeploy`` make themselves.

    CloudFormation creates tables, policies and alarms with the caller's permissions, unless it has a service role. The
    caller needs those permissions (dynamodb, iam and cloudwatch) in addition.
    """
    regions = list(dict.fromkeys(site.aws_region for site in scope.sites.all))
    objects = [
        f"arn:{scope.partition}:s3:::{scope.buckets[site]}/{key}"
        for site in scope.sites
        for key in ("*requirements.txt", "*plugins.zip", *(f"{scope.dag_folders[site]}/{name}" for name in DEPLOYED))
    ]
    return _document(
        _allow(
            "UpdateEnvironments",
            ["airflow:GetEnvironment", "airflow:UpdateEnvironment"],
            _environments(scope),
        ),
        # A run of dr_readiness in the standby shows that the fence works there.
        _allow("RunReadiness", ["airflow:InvokeRestApi"], _airflow_roles(scope)),
        # https://docs.aws.amazon.com/mwaa/latest/userguide/access-policies.html names only this service. Roles also
        # trust airflow-env.amazonaws.com, but the caller passes them to airflow.amazonaws.com.
        _allow(
            "PassExecutionRoles",
            ["iam:PassRole"],
            sorted({scope.roles[site] for site in scope.sites}),
            {"StringEquals": {"iam:PassedToService": "airflow.amazonaws.com"}},
        ),
        _allow(
            "SeeBuckets",
            ["s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:ListBucket"],
            sorted({f"arn:{scope.partition}:s3:::{scope.buckets[site]}" for site in scope.sites}),
        ),
        _allow("ChangeFiles", ["s3:DeleteObject", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"], objects),
        _allow(
            "MakeStack",
            [
                "cloudformation:CreateStack",
                "cloudformation:DeleteStack",
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStacks",
                "cloudformation:GetTemplate",
                "cloudformation:UpdateStack",
            ],
            [
                f"arn:{scope.partition}:cloudformation:{region}:{scope.account}:stack/{stack}/*"
                for region, stack in _stacks(scope)
            ],
        ),
        _allow(
            "SeeTables",
            ["dynamodb:DescribeTable"],
            [scope.table(scope.state_table), scope.table(scope.runs_table)],
        ),
        _allow(
            "WriteFirstState",
            [
                "dynamodb:BatchGetItem",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Scan",
                "dynamodb:UpdateItem",
            ],
            scope.table(scope.state_table),
        ),
        _allow(
            "SeeKeys",
            ["kms:DescribeKey"],
            [f"arn:{scope.partition}:kms:{region}:{scope.account}:key/*" for region in regions],
        ),
        *(
            [_use_keys("UseBucketKeys", ["Decrypt", "GenerateDataKey"], scope.bucket_keys, "s3")]
            if scope.bucket_keys
            else []
        ),
    )


def _use_keys(sid: str, actions: Sequence[str], keys: Sequence[str], service: str) -> dict[str, Any]:
    """Return the statement that allows to use KMS keys, but only through a service."""
    condition = {"StringLike": {"kms:ViaService": f"{service}.*.amazonaws.com"}}
    return _allow(sid, [f"kms:{action}" for action in actions], keys, condition)


def _stacks(scope: Scope) -> list[tuple[str, str]]:
    """Return region and name of each stack: that of the tables may be in the region of any site."""
    tables = [(site.aws_region, scope.stack) for site in scope.sites.all]
    return list(
        dict.fromkeys([*tables, *((site.aws_region, alarms_stack(scope.stack, site)) for site in scope.sites.all)])
    )


def _environments(scope: Scope) -> list[str]:
    return [
        f"arn:{scope.partition}:airflow:{site.aws_region}:{scope.account}:environment/{site.environment}"
        for site in scope.sites.all
    ]


def _airflow_roles(scope: Scope) -> list[str]:
    return [
        f"arn:{scope.partition}:airflow:{site.aws_region}:{scope.account}:role/{site.environment}/{scope.airflow_role}"
        for site in scope.sites.all
    ]


def _allow(
    sid: str, actions: Sequence[str], resource: str | Sequence[str], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resource if isinstance(resource, str) else list(resource),
    }
    if condition is not None:
        statement["Condition"] = condition
    return statement


def _keys(*patterns: str) -> dict[str, Any]:
    """Return the condition that a request is about items with these keys only."""
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(patterns)}}


def _document(*statements: dict[str, Any]) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
