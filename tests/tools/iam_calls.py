"""
What IAM sees of a request of boto3: the action, the resource and the condition keys. For :mod:`tests.tools.iam`.

A recorder listens to the events of an unmodified boto3 session, so it sees every call of every client that is created
from it, whatever answers the call.

The condition keys of DynamoDB: ``LeadingKeys`` are the values of the partition key, ``Attributes`` the names of all
attributes in the request, also in a condition or a filter, and ``ReturnValues`` the parameter of that name, ``NONE``
without it. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html

AWS does not document whether it checks ``ReturnValuesOnConditionCheckFailure`` like ``ReturnValues``. Here it counts as
``ReturnValues``, which is stricter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import boto3

from tests.tools.iam import Call

ACCOUNT = "123456789012"
"""moto's account."""
PARTITION_KEYS = ("state_id", "pk")
"""The partition keys of our tables."""

_NAMES = re.compile(r"(?<![:#\w.])[A-Za-z_]\w*(?!\w|\s*\()")
_WORDS = {"SET", "ADD", "DELETE", "REMOVE", "AND", "OR", "NOT", "BETWEEN", "IN"}
_EXPRESSIONS = (
    "ConditionExpression",
    "FilterExpression",
    "KeyConditionExpression",
    "ProjectionExpression",
    "UpdateExpression",
)
_ROLE = "Op"
"""The Airflow role of a caller of an environment's REST API."""


class Recorder:
    """
    Records calls.

    :ivar calls: the calls so far, in order.
    :ivar doing: what the test does now; each recorded call carries it.
    :ivar is_on: whether calls are recorded.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.doing = ""
        self.is_on = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing: these calls belong to another role."""
        was, self.is_on = self.is_on, False
        try:
            yield
        finally:
            self.is_on = was

    @contextmanager
    def listening(self, session: boto3.session.Session) -> Iterator[None]:
        """Record the calls of all clients that are created from *session* meanwhile."""

        def note(params: Mapping[str, Any], model: Any, context: Mapping[str, Any], **_: Any) -> None:
            if self.is_on:
                region = context["client_region"]
                self.calls += calls_of(model.service_model.service_name, region, model.name, params, doing=self.doing)

        session.events.register("provide-client-params.*.*", note)
        try:
            yield
        finally:
            session.events.unregister("provide-client-params.*.*", note)


def calls_of(
    service: str, region: str, operation: str, params: Mapping[str, Any], *, doing: str = ""
) -> Sequence[Call]:
    """Return a request as IAM evaluates it; a batch is one call for each table."""
    return [
        Call(action=action, resource=resource, context=context, doing=doing)
        for action, resource, context in _SERVICES[service](region, operation, params)
    ]


Seen = tuple[str, str, Mapping[str, tuple[str, ...]]]


def _dynamodb(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    for table, request in (params.get("RequestItems") or {params["TableName"]: params}).items():
        resource = f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/{table}"
        yield f"dynamodb:{operation}", resource, _dynamodb_context(operation, request)


def _dynamodb_context(operation: str, request: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    context: dict[str, tuple[str, ...]] = {}
    rows = [row for row in (*request.get("Keys", ()), request.get("Key"), request.get("Item")) if row]
    if operation == "Query":
        rows = [{"pk": request["ExpressionAttributeValues"][":pk"]}]
    keys = tuple(row[name]["S"] for row in rows for name in PARTITION_KEYS if name in row)
    if keys:
        context["dynamodb:LeadingKeys"] = keys
    names = {name for row in rows for name in row} | _names_in(request)
    if names:
        context["dynamodb:Attributes"] = tuple(sorted(names))
    if operation in {"DeleteItem", "PutItem", "UpdateItem"}:
        on_failure = request.get("ReturnValuesOnConditionCheckFailure", "NONE")
        returned = request.get("ReturnValues", "NONE")
        context["dynamodb:ReturnValues"] = (returned if returned != "NONE" else on_failure,)
    return context


def _names_in(request: Mapping[str, Any]) -> set[str]:
    """Return the names of the attributes in a request's expressions; of a path, the name of the attribute itself."""
    found = set(request.get("ExpressionAttributeNames", {}).values())
    for name in _EXPRESSIONS:
        found |= {each for each in _NAMES.findall(request.get(name, "")) if each.upper() not in _WORDS}
    return found


def _cloudformation(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    yield (
        f"cloudformation:{operation}",
        f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{params['StackName']}/id",
        {},
    )


def _sns(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    del region
    yield f"sns:{operation}", params["TopicArn"], {}


def _events(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    del region
    for entry in params["Entries"]:
        yield f"events:{operation}", entry["EventBusName"], {}


_S3_ACTIONS = {"GetBucketEncryption": "GetEncryptionConfiguration"}


def _s3(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    del region
    action = "GetObjectVersion" if operation == "GetObject" and "VersionId" in params else operation
    key = f"/{params['Key']}" if "Key" in params else ""
    yield f"s3:{_S3_ACTIONS.get(action, action)}", f"arn:aws:s3:::{params['Bucket']}{key}", {}


def _mwaa(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    is_role = operation in {"CreateWebLoginToken", "InvokeRestApi"}
    kind = f"role/{params['Name']}/{_ROLE}" if is_role else f"environment/{params['Name']}"
    yield f"airflow:{operation}", f"arn:aws:airflow:{region}:{ACCOUNT}:{kind}", {}


def _kms(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    key = params["KeyId"]
    yield f"kms:{operation}", key if key.startswith("arn:") else f"arn:aws:kms:{region}:{ACCOUNT}:key/{key}", {}


def _cloudwatch(region: str, operation: str, params: Mapping[str, Any]) -> Iterator[Seen]:
    del region  # PutMetricData has no resource; its namespace is a condition key
    yield f"cloudwatch:{operation}", "*", {"cloudwatch:namespace": (params["Namespace"],)}


_SERVICES: Mapping[str, Callable[[str, str, Mapping[str, Any]], Iterator[Seen]]] = {
    "events": _events,
    "sns": _sns,
    "cloudformation": _cloudformation,
    "cloudwatch": _cloudwatch,
    "dynamodb": _dynamodb,
    "kms": _kms,
    "mwaa": _mwaa,
    "s3": _s3,
}
