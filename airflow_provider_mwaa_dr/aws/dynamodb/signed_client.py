"""
A DynamoDB client that needs no boto3: botocore signs and sends the requests.

boto3 reads the model of the whole service before the first request. This takes 0.1 s of CPU and 10 MiB (measured). A
task that must read the state pays for that before it starts, and each scheduler's agent keeps the memory.

The client reads its settings from environment variables only, as they are in MWAA. With any other setting of boto3
(a configuration file, a profile, a role to assume, an option that this module does not know),
:func:`open_signed_client` returns None, and the caller uses boto3.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from botocore.httpsession import URLLib3Session

_TARGET = "DynamoDB_20120810"
_CONTENT_TYPE = "application/x-amz-json-1.0"

_REGION_WITH_PLAIN_ENDPOINT = re.compile(r"(?:af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-\d")
"""Regions whose endpoint is ``dynamodb.REGION.amazonaws.com``; the regions of other partitions have other names."""

_UNDERSTOOD = frozenset(
    {
        "AWS_CA_BUNDLE",
        "AWS_CONFIG_FILE",
        "AWS_DEFAULT_REGION",
        "AWS_DISABLE_HOST_PREFIX_INJECTION",
        "AWS_MAX_ATTEMPTS",
        "AWS_RETRY_MODE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
        "AWS_METADATA_SERVICE_TIMEOUT",
    }
)
"""Variables of botocore that this module reads, or that do not affect a DynamoDB request of this package."""

_NEEDS_BOTO3 = ("AWS_CREDENTIAL_EXPIRATION", "AWS_ROLE_ARN", "AWS_SECURITY_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Variables of botocore's search for credentials that this module does not read."""


@dataclass(frozen=True, slots=True)
class EnvironmentKeys:
    """Credentials from environment variables. botocore's own class for them costs 6 ms to import (measured)."""

    access_key: str
    secret_key: str
    token: str | None

    def get_frozen_credentials(self) -> EnvironmentKeys:
        """Return these credentials; they do not expire."""
        return self


@dataclass(frozen=True, slots=True)
class _Meta:
    """What callers read from ``client.meta`` of boto3."""

    region_name: str


class SignedClient:
    """
    The part of boto3's DynamoDB client that the stores use. Thread-safe.

    Each method takes and returns the members of DynamoDB's API, like boto3, and raises boto3's exceptions:
    ``ClientError`` with AWS's code for an error of the service, and botocore's errors of the connection. A request is
    sent once.

    :param credentials: may be shared by clients.
    :param timeout_s: for connect and read each.
    """

    def __init__(self, region: str, *, url: str, credentials: Credentials | EnvironmentKeys, timeout_s: float) -> None:
        self.meta = _Meta(region)
        self._url = url
        self._credentials = credentials
        self._http = _http_session(url, timeout_s)

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return one item."""
        return self._ask("GetItem", request)

    def put_item(self, **request: Any) -> dict[str, Any]:
        """Write one item."""
        return self._ask("PutItem", request)

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Change one item."""
        return self._ask("UpdateItem", request)

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """Delete one item."""
        return self._ask("DeleteItem", request)

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Return up to 100 items."""
        return self._ask("BatchGetItem", request)

    def query(self, **request: Any) -> dict[str, Any]:
        """Return a page of the items under one partition key."""
        return self._ask("Query", request)

    def scan(self, **request: Any) -> dict[str, Any]:
        """Return a page of the items of a table."""
        return self._ask("Scan", request)

    def describe_table(self, **request: Any) -> dict[str, Any]:
        """Return the description of a table. Unlike boto3, its times are numbers."""
        return self._ask("DescribeTable", request)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        signed = AWSRequest(
            "POST",
            self._url,
            data=json.dumps(request, default=_encoded).encode(),
            headers={"X-Amz-Target": f"{_TARGET}.{operation}", "Content-Type": _CONTENT_TYPE},
        )
        frozen: Any = self._credentials.get_frozen_credentials()
        SigV4Auth(frozen, "dynamodb", self.meta.region_name).add_auth(signed)
        answer = self._http.send(signed.prepare())
        return _content(operation, answer.status_code, answer.content)


def open_signed_client(region: str, *, timeout_s: float) -> SignedClient | None:
    """
    Return a client, or None if the settings of this process need boto3. Sends no request to DynamoDB.

    In a container with a role, such as MWAA's, it reads the credentials of the role. They renew themselves.

    :raises CredentialRetrievalError: the container's endpoint for credentials did not answer.
    """
    url = _endpoint(region)
    if url is None or _has_other_settings():
        return None
    credentials = _keys() or _container_credentials()
    if credentials is None:
        return None
    return SignedClient(region, url=url, credentials=credentials, timeout_s=timeout_s)


def _endpoint(region: str) -> str | None:
    own = os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") or os.environ.get("AWS_ENDPOINT_URL")
    if own:
        return own
    return f"https://dynamodb.{region}.amazonaws.com" if _REGION_WITH_PLAIN_ENDPOINT.fullmatch(region) else None


def _has_other_settings() -> bool:
    """Whether boto3 would read a setting that this module does not read: a variable, or a file with settings."""
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES  # noqa: PLC0415

    if any(os.environ.get(name) for name in _NEEDS_BOTO3):
        return True
    for _, variables, default, _ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values():
        names = (variables,) if isinstance(variables, str) else tuple(variables or ())
        given = [os.environ[name] for name in names if name in os.environ]
        if given and not _UNDERSTOOD.issuperset(names):
            return True
        if isinstance(default, str) and default.startswith("~") and Path((given or [default])[0]).expanduser().exists():
            return True
    return False


def _keys() -> EnvironmentKeys | None:
    access_key, secret_key = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    return EnvironmentKeys(access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN") or None)


def _container_credentials() -> Credentials | None:
    names = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    # With one of two keys, boto3 reports an error and does not read the role.
    if os.environ.get("AWS_ACCESS_KEY_ID") or not any(name in os.environ for name in names):
        return None
    from botocore.credentials import ContainerProvider  # noqa: PLC0415

    found: Credentials | None = ContainerProvider().load()
    return found


def _http_session(url: str, timeout_s: float) -> URLLib3Session:
    from botocore.httpsession import URLLib3Session  # noqa: PLC0415
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    verify = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    options: dict[str, Any] = {
        "timeout": (timeout_s, timeout_s),
        "verify": verify,
        # As boto3 does: otherwise the content of each request waits until the server acknowledges its headers.
        "socket_options": [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    }
    return URLLib3Session(proxies=get_environ_proxies(url), **options)


def _encoded(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be sent to DynamoDB")


def _content(operation: str, status: int, body: bytes) -> dict[str, Any]:
    """
    Return the members of an answer.

    :raises ClientError: DynamoDB, or a proxy, answered with an error.
    :raises ResponseParserError: the answer cannot be read.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        content = _decoded(json.loads(body or b"{}"))
    except (AttributeError, TypeError, ValueError) as error:
        if status < 300:
            raise ResponseParserError(f"{operation}: this is no answer of DynamoDB: {body[:200]!r}") from error
        content = {}
    metadata: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": status}}
    if status < 300:
        return {**content, **metadata}
    kind = str(content.pop("__type", "")).rpartition("#")[2]
    message = str(content.pop("message", None) or content.pop("Message", None) or "")
    response: Any = {**content, "Error": {"Code": kind or str(status), "Message": message}, **metadata}
    raise ClientError(response, operation)


def _decoded(answer: Any) -> dict[str, Any]:
    """Return an answer with the bytes of its items decoded; raise any error if it is not an answer of DynamoDB."""
    if not isinstance(answer, dict):
        raise ValueError("not an object")
    for name in ("Item", "Attributes"):
        if name in answer:
            answer[name] = _item(answer[name])
    if "Items" in answer:
        answer["Items"] = [_item(item) for item in answer["Items"]]
    if "Responses" in answer:
        answer["Responses"] = {table: [_item(item) for item in items] for table, items in answer["Responses"].items()}
    return answer


def _item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in item.items()}


def _attribute(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an attribute with its bytes decoded, at any depth."""
    [(kind, content)] = value.items()
    if kind == "B":
        return {kind: base64.b64decode(content, validate=True)}
    if kind == "BS":
        return {kind: [base64.b64decode(part, validate=True) for part in content]}
    if kind == "M":
        return {kind: _item(content)}
    if kind == "L":
        return {kind: [_attribute(part) for part in content]}
    return value
