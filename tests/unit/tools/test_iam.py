"""The evaluator of IAM policies, by the rules of AWS's documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from tests.tools.iam import Call, Document, UnsupportedPolicyError, is_allowed, permissions, without
from tests.tools.iam_calls import Recorder, calls_of

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/t"


def statement(sid: str = "S", effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    """Return a statement that is about every call, except for *elements*."""
    return {"Sid": sid, "Effect": effect, "Action": ["*"], "Resource": "*", **elements}


def policy(*statements: Mapping[str, Any]) -> Document:
    """Return a policy."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def call(action: str = "dynamodb:GetItem", resource: str = TABLE, **context: tuple[str, ...]) -> Call:
    """Return a call; underscores in the names of condition keys stand for colons."""
    return Call(
        action=action, resource=resource, context={key.replace("_", ":"): values for key, values in context.items()}
    )


def test_what_no_statement_allows_is_denied() -> None:
    """The default is to deny."""
    assert not is_allowed([], call())
    assert not is_allowed([policy(statement(Action=["dynamodb:PutItem"]))], call())
    assert is_allowed([policy(statement(Action=["dynamodb:PutItem"])), policy(statement())], call())


def test_an_explicit_denial_wins() -> None:
    """Also if another policy allows the call; a denial of another call changes nothing."""
    allows = policy(statement())
    assert not is_allowed([allows, policy(statement(effect="Deny", Action="dynamodb:Get*"))], call())
    assert is_allowed([allows, policy(statement(effect="Deny", Action="dynamodb:Put*"))], call())
    assert not is_allowed([policy(statement(effect="Deny"))], call())


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("dynamodb:GetItem", "dynamodb:getitem", True),
        ("dynamodb:*Item", "dynamodb:GetItem", True),
        ("dynamodb:*Item", "dynamodb:GetItems", False),
        ("dynamodb:Get?tem", "dynamodb:GetItem", True),
        ("dynamodb:Get?Item", "dynamodb:GetItem", False),
        ("dynamodb:[G]etItem", "dynamodb:GetItem", False),
    ],
)
def test_actions(pattern: str, text: str, is_match: bool) -> None:
    """The wildcards are * and ?, and nothing else; case does not matter."""
    assert is_allowed([policy(statement(Action=pattern))], call(text)) is is_match


@pytest.mark.parametrize(
    ("pattern", "is_match"),
    [(TABLE, True), (TABLE.upper(), False), (TABLE[:-1] + "?", True), (TABLE + "?", False), ("arn:*:table/*", True)],
)
def test_resources(pattern: str, is_match: bool) -> None:
    """The case of a resource matters."""
    assert is_allowed([policy(statement(Resource=["other", pattern]))], call()) is is_match


@pytest.mark.parametrize(
    ("operator", "found", "is_match"),
    [
        ("StringEquals", ("a",), True),
        ("StringEquals", ("c*",), True),
        ("StringEquals", ("cc",), False),
        ("StringEquals", None, False),
        ("StringEqualsIfExists", None, True),
        ("StringEqualsIfExists", ("x",), False),
        ("StringLike", ("cc",), True),
        ("StringNotEquals", ("a",), False),
        ("StringNotEquals", ("x",), True),
        ("StringNotEquals", None, True),
        ("StringNotLike", ("cc",), False),
        ("StringNotLike", ("x",), True),
        ("ForAllValues:StringLike", ("a", "cc"), True),
        ("ForAllValues:StringLike", ("a", "x"), False),
        ("ForAllValues:StringLike", (), True),
        ("ForAllValues:StringLike", None, True),
        ("ForAllValues:StringEquals", ("a", "cc"), False),
        ("ForAllValues:StringNotLike", ("x", "cc"), False),
        ("ForAllValues:StringNotLike", ("x", "y"), True),
        ("ForAnyValue:StringEquals", ("x", "a"), True),
        ("ForAnyValue:StringEquals", ("x", "y"), False),
        ("ForAnyValue:StringEquals", None, False),
    ],
)
def test_conditions(operator: str, found: tuple[str, ...] | None, is_match: bool) -> None:
    """One of the wanted values is enough; a key that the call does not have depends on the operator."""
    only = policy(statement(Condition={operator: {"k:k": ["a", "c*"]}}))
    assert is_allowed([only], call(**({} if found is None else {"k_k": found}))) is is_match


@pytest.mark.parametrize(("text", "is_match"), [("true", False), ("false", True)])
def test_null_asks_whether_the_call_has_the_key(text: str, is_match: bool) -> None:
    """``Null: false`` requires the key."""
    only = policy(statement(Condition={"Null": {"k:k": text}}))
    assert is_allowed([only], call(k_k=("a",))) is is_match
    assert is_allowed([only], call()) is not is_match


def test_all_operators_and_keys_of_a_condition_must_match() -> None:
    """They are combined with and."""
    only = policy(statement(Condition={"StringEquals": {"a:a": "1", "b:b": "2"}, "StringLike": {"c:c": "3*"}}))
    assert is_allowed([only], call(a_a=("1",), b_b=("2",), c_c=("33",)))
    for other in ({"a_a": ("x",)}, {"b_b": ("x",)}, {"c_c": ("x",)}):
        assert not is_allowed([only], call(**{"a_a": ("1",), "b_b": ("2",), "c_c": ("33",), **other}))


@pytest.mark.parametrize(
    "elements",
    [
        {"NotAction": "a"},
        {"Principal": "*"},
        {"Effect": "Perhaps"},
        {"Resource": "arn:${aws:username}"},
        {"Condition": {"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}},
        {"Condition": {"StringEquals": {"k:k": "a"}}},
    ],
)
def test_what_it_does_not_implement_is_an_error(elements: Mapping[str, Any]) -> None:
    """Also an operator for one value, if the call's key has several."""
    with pytest.raises(UnsupportedPolicyError):
        is_allowed([policy(statement(**elements))], call(k_k=("a", "b")))
    with pytest.raises(UnsupportedPolicyError):
        is_allowed([{**policy(statement()), "Version": "2008-10-17"}], call())


def test_each_permission_can_be_removed() -> None:
    """Actions, resources and allowed values, each on its own; a statement without any of a kind is removed."""
    document = policy(
        statement("A", Action=["a:B", "a:C"], Resource=["r1", "r2"]),
        statement("D", Action="a:D", Condition={"ForAllValues:StringEquals": {"k:k": ["1", "2"]}}),
    )
    found = list(permissions(document))
    assert [(each.sid, each.kind, each.value) for each in found] == [
        ("A", "Action", "a:B"),
        ("A", "Action", "a:C"),
        ("A", "Resource", "r1"),
        ("A", "Resource", "r2"),
        ("D", "Action", "a:D"),
        ("D", "Resource", "*"),
        ("D", "ForAllValues:StringEquals k:k", "1"),
        ("D", "ForAllValues:StringEquals k:k", "2"),
    ]
    assert without(document, found[0])["Statement"][0]["Action"] == ["a:C"]
    assert [each["Sid"] for each in without(document, found[4])["Statement"]] == ["A"]
    left = without(document, found[6])
    assert is_allowed([left], call("a:D", k_k=("2",)))
    assert not is_allowed([left], call("a:D", k_k=("1",)))
    assert document["Statement"][0]["Action"] == ["a:B", "a:C"]


def test_an_update_of_dynamodb_names_all_attributes_that_it_touches() -> None:
    """Those that it writes, those of its condition, behind placeholders or not, and the key; no functions or values."""
    (found,) = calls_of(
        "dynamodb", "us-east-1", "UpdateItem",
        {
            "TableName": "t",
            "Key": {"state_id": {"S": "k"}},
            "UpdateExpression": "SET #p = :p, stops.a = if_not_exists(beat, :p) REMOVE gone ADD agents :x",
            "ConditionExpression": "(version = :number OR attribute_not_exists(token)) AND NOT contains(tags, :p)",
            "ExpressionAttributeNames": {"#p": "plan"},
        },
    )  # fmt: skip
    assert (found.action, found.resource) == ("dynamodb:UpdateItem", TABLE)
    assert found.context == {
        "dynamodb:LeadingKeys": ("k",),
        "dynamodb:Attributes": (
            "agents", "beat", "gone", "plan", "state_id", "stops", "tags", "token", "version",
        ),
        "dynamodb:ReturnValues": ("NONE",),
    }  # fmt: skip


def test_a_batch_names_the_keys_of_all_its_items() -> None:
    """One call for each table."""
    keys = [{"state_id": {"S": key}} for key in ("a", "b")]
    (found,) = calls_of("dynamodb", "us-east-1", "BatchGetItem", {"RequestItems": {"t": {"Keys": keys}}})
    assert found.context["dynamodb:LeadingKeys"] == ("a", "b")


def test_the_recorder_sees_the_calls_of_an_unmodified_boto3() -> None:
    """Whatever answers them, also if nothing does; not those while it is paused."""
    session = boto3.session.Session(aws_access_key_id="a", aws_secret_access_key="b")
    recorder = Recorder()
    with recorder.listening(session):
        create: Any = session.client
        client = create("mwaa", region_name="us-east-1", endpoint_url="http://127.0.0.1:1")
        recorder.doing = "look"
        with pytest.raises(EndpointConnectionError):
            client.get_environment(Name="e")
        with recorder.paused(), pytest.raises(EndpointConnectionError):
            client.get_environment(Name="f")
    (seen,) = recorder.calls
    assert (seen.action, seen.doing) == ("airflow:GetEnvironment", "look")
    assert seen.resource == "arn:aws:airflow:us-east-1:123456789012:environment/e"
