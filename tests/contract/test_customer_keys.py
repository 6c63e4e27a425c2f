"""Existing tables and buckets with customer-managed KMS keys, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_provider_mwaa_dr.sandbox.cloud.aws_server import _ERRORS, protocol_error
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request
from tests.contract.cloud import A, B, Cloud
from tests.contract.conftest import EACH_SET
from tests.contract.role_calls import encrypt_bucket, key_in
from tests.tools.iam import Call, is_allowed

USES = ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo")


def make_state_table(cloud: Cloud, region: str, key: str | None) -> None:
    """Create a state table in one region; None: with a key that AWS owns."""
    cloud.client("dynamodb", region).create_table(
        TableName=cloud.state_table,
        KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        **({"SSESpecification": {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}} if key else {}),
    )


def policy_of(cloud: Cloud, logical: str) -> Mapping[str, Any] | None:
    """Return the document of a policy of the stack; None: the stack has no such policy."""
    iam = cloud.client("iam", A)
    for policy in iam.get_paginator("list_policies").paginate(Scope="Local").search("Policies[]"):
        if policy["PolicyName"].startswith(f"{cloud.stack}-{logical}-"):
            version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
            document: Mapping[str, Any] = version["PolicyVersion"]["Document"]
            return document
    return None


def attached(cloud: Cloud, region: str) -> set[str]:
    """Return the logical names of the stack's policies that the execution role of a region has."""
    rows = cloud.client("iam", A).list_attached_role_policies(RoleName=f"role-{cloud.names[region]}")
    return {row["PolicyName"].removeprefix(f"{cloud.stack}-").partition("-")[0] for row in rows["AttachedPolicies"]}


@pytest.fixture
def refuse(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function after whose call AWS refuses an operation of a service: no permission."""
    answer = cloud.server.answer

    def refuse(service: str, words: str) -> None:
        def serve(request: Request, called: str) -> Answer:
            if called == service and words in f"{request.headers.get('x-amz-target')} {request.path}":
                return protocol_error(request, called, _ERRORS[FaultKind.DENY])
            return answer(request, called)

        monkeypatch.setattr(cloud.server, "answer", serve)

    return refuse


@EACH_SET
def test_users_of_an_existing_table_may_use_its_key_through_dynamodb(cloud: Cloud) -> None:
    """Both execution roles get exactly this key; the output names it; a second deployment changes nothing."""
    key = key_in(cloud, cloud.first)
    make_state_table(cloud, cloud.first, key)
    result = cloud.deploy("--active", cloud.first)
    assert result.code == 0, result.out
    assert f"its users need permissions on its KMS key {key}: the stack has a policy for them" in result.err
    document = policy_of(cloud, "UsingTableKeys")
    assert document is not None
    assert document == cloud("deploy", "--print-policies", "--json").document["using_table_keys"]
    for region in cloud.regions:
        assert "UsingTableKeys" in attached(cloud, region)
    for use in USES:
        through = {"kms:ViaService": (f"dynamodb.{A}.amazonaws.com",)}
        assert is_allowed([document], Call(action=f"kms:{use}", resource=key, context=through))
        assert not is_allowed([document], Call(action=f"kms:{use}", resource=key))
        assert not is_allowed(
            [document], Call(action=f"kms:{use}", resource=key_in(cloud, cloud.first), context=through)
        )
    cloud.updated()
    assert cloud.deploy().changed == []


def test_keys_of_aws_need_no_policy(cloud: Cloud) -> None:
    """The stack's own tables have the key of DynamoDB that AWS manages; a bucket may have the one of S3."""
    encrypt_bucket(cloud, A, None)
    assert cloud.deploy("--active", A).code == 0
    cloud.updated()
    assert cloud.deploy().changed == []
    assert policy_of(cloud, "UsingTableKeys") is None
    printed = cloud("deploy", "--print-policies", "--json")
    assert "using_table_keys" not in printed.document
    assert not any(statement["Sid"] == "UseBucketKeys" for statement in printed.document["deploying"]["Statement"])
    assert "WARNING" not in printed.err


def test_without_policies_the_output_says_what_is_missing(cloud: Cloud) -> None:
    """The user grants the permissions in another way."""
    key = key_in(cloud, A)
    make_state_table(cloud, A, key)
    result = cloud.deploy("--active", A, "--no-policies")
    assert result.code == 0, result.out
    assert f"permissions on its KMS key {key}: mwaa-dr deploy --print-policies prints them" in result.err


def test_a_key_that_cannot_be_examined_is_allowed_and_named(cloud: Cloud, refuse: Callable[[str, str], None]) -> None:
    """Without kms:DescribeKey, deploy does not know who manages the key. A right to a key of AWS has no effect."""
    key = key_in(cloud, A)
    make_state_table(cloud, A, key)
    refuse("kms", "DescribeKey")
    result = cloud.deploy("--active", A)
    assert result.code == 0, result.out
    assert f"whether a customer manages the key {key} is unknown" in result.err
    document = policy_of(cloud, "UsingTableKeys")
    assert document is not None
    assert document["Statement"][0]["Resource"] == [key]


@EACH_SET
@pytest.mark.parametrize("form", ["arn", "id", "alias"])
def test_the_user_of_deploy_may_use_the_keys_of_the_buckets(cloud: Cloud, form: str) -> None:
    """However the bucket names its key, the policy names its ARN."""
    keys = {}
    for region in cloud.regions:
        keys[region] = key_in(cloud, region)
        name = {"arn": keys[region], "id": keys[region].partition("/")[2], "alias": f"alias/{cloud.id}-{region}"}[form]
        cloud.client("kms", region).create_alias(AliasName=f"alias/{cloud.id}-{region}", TargetKeyId=keys[region])
        encrypt_bucket(cloud, region, name)
    printed = cloud("deploy", "--print-policies", "--json").document["deploying"]
    (statement,) = (each for each in printed["Statement"] if each["Sid"] == "UseBucketKeys")
    assert statement == {
        "Sid": "UseBucketKeys",
        "Effect": "Allow",
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": sorted(keys.values()),
        "Condition": {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}},
    }


@pytest.mark.parametrize(
    ("service", "words", "says"),
    [
        ("s3", "encryption", "the key of the bucket"),
        ("dynamodb", "DescribeTable", "the KMS key of the table"),
        ("kms", "DescribeKey", "add a permission to use it"),
    ],
)
def test_policies_are_printed_for_users_without_permissions(
    cloud: Cloud, refuse: Callable[[str, str], None], service: str, words: str, says: str
) -> None:
    """Who prints the policies may not have them yet: what is unknown is a warning."""
    cloud.client("kms", B).create_alias(AliasName=f"alias/{cloud.id}", TargetKeyId=key_in(cloud, B))
    encrypt_bucket(cloud, B, f"alias/{cloud.id}")
    refuse(service, words)
    printed = cloud("deploy", "--print-policies", "--json")
    assert printed.code == 0, printed.out
    assert printed.document["deploying"]
    assert printed.err.startswith("WARNING: ")
    assert says in printed.err
