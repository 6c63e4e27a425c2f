"""
IAM policies with least privilege, one for each purpose, for users who grant permissions without the template.

``tests/contract/test_policies.py`` compares each list of actions with the calls that the code makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.aws.deploy.example_dags import DEPLOYED
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """
    The resources that the policies apply to.

    :param environments: environment name by region.
    :param buckets: bucket by region.
    :param roles: execution role by region.
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
    airflow_role: str = "Op"

    def table(self, name: str) -> str:
        """Return the ARN of a table's replicas in all regions."""
        return f"arn:{self.partition}:dynamodb:*:{self.account}:table/{name}"


Document = dict[str, Any]


def policies(scope: Scope) -> dict[str, Any]:
    """Return all policies by purpose; ``execution`` has one policy for each region."""
    return {
        "execution": {region: execution(scope, region) for region in sorted(scope.environments)},
        "finishing": finishing(scope),
        "flipping": flipping(scope),
        "rest_api": rest_api(scope),
        "deploying": deploying(scope),
    }


def execution(scope: Scope, region: str) -> Document:
    """Return the policy for the execution role of a region: it reads both tables, and writes the region's own items."""
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
        _allow("WriteOwnState", ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"], state, own_state),
        _allow("ReadLedger", ["dynamodb:GetItem", "dynamodb:Query"], runs),
        _allow("WriteOwnLedger", ["dynamodb:DeleteItem", "dynamodb:PutItem"], runs, own_runs),
    )


def finishing(scope: Scope) -> Document:
    """
    Return the additional policy for an execution role: its agents may then finish a failover whose caller stopped.
    """
    state = scope.table(scope.state_table)
    changes = ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
    return _document(
        _allow("FinishFailover", ["dynamodb:PutItem"], state, ["ACTIVE_REGION", "FAILOVER#*"]),
        # The set of DAGs that could not be unpaused, with its pages and their announcements.
        _allow("RecordLeftOver", changes, state, ["PAUSED#*"]),
    )


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


def rest_api(scope: Scope) -> Document:
    """Return the policy for calls to the environments' REST APIs; needed together with :func:`flipping`."""
    environments, roles = [], []
    for region, name in _here_first(scope):
        prefix = f"arn:{scope.partition}:airflow:{region}:{scope.account}"
        environments.append(f"{prefix}:environment/{name}")
        roles.append(f"{prefix}:role/{name}/{scope.airflow_role}")
    return _document(
        _allow("SeeEnvironments", ["airflow:GetEnvironment"], environments),
        _allow("DriveAirflow", ["airflow:CreateWebLoginToken", "airflow:InvokeRestApi"], roles),
    )


def deploying(scope: Scope) -> Document:
    """
    Return the policy for the calls that ``mwaa-dr deploy`` and ``undeploy`` make themselves.

    CloudFormation creates tables, policies and alarms with the caller's permissions, unless it has a service role. The
    caller needs those permissions (dynamodb, iam and cloudwatch) in addition.
    """
    pairs = _here_first(scope)
    objects = [
        f"arn:{scope.partition}:s3:::{scope.buckets[region]}/{key}"
        for region, _ in pairs
        for key in ("*requirements.txt", "*plugins.zip", *(f"{scope.dag_folders[region]}/{name}" for name in DEPLOYED))
    ]
    return _document(
        _allow(
            "UpdateEnvironments",
            ["airflow:GetEnvironment", "airflow:UpdateEnvironment"],
            [f"arn:{scope.partition}:airflow:{region}:{scope.account}:environment/{name}" for region, name in pairs],
        ),
        # https://docs.aws.amazon.com/mwaa/latest/userguide/access-policies.html
        _allow(
            "PassExecutionRoles",
            ["iam:PassRole"],
            sorted({f"arn:{scope.partition}:iam::{scope.account}:role/*{scope.roles[region]}" for region, _ in pairs}),
        ),
        _allow(
            "SeeBuckets",
            ["s3:GetBucketVersioning", "s3:ListBucket"],
            sorted({f"arn:{scope.partition}:s3:::{scope.buckets[region]}" for region, _ in pairs}),
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
                for stack in (scope.stack, alarms_stack(scope.stack))
                for region, _ in pairs
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
    )


def _here_first(scope: Scope) -> list[tuple[str, str]]:
    return list(scope.environments.items())


def _allow(
    sid: str, actions: Sequence[str], resource: str | Sequence[str], leading_keys: Sequence[str] = ()
) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resource if isinstance(resource, str) else list(resource),
    }
    if leading_keys:
        statement["Condition"] = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(leading_keys)}}
    return statement


def _document(*statements: dict[str, Any]) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
