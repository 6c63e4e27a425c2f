"""
Clients for AWS, and the only place that knows timeouts, retries and what botocore's errors mean.

botocore's own retries are switched off everywhere: they repeat a POST whose answer was lost (a black-holed trigger was
sent three times), and with the default timeouts of 60 s a read of a black-holed table took more than ten minutes.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import DRError

if TYPE_CHECKING:
    import boto3

T = TypeVar("T")

DYNAMODB_TIMEOUT_S = 1.0
"""Default bound of one attempt against one replica, connecting and reading each."""
MWAA_READ_TIMEOUT_S = 12.0
"""The service itself gives up on Airflow after 10 s; waiting a little longer gets its answer instead of none."""
MWAA_CONNECT_TIMEOUT_S = 3.0
DEPLOYMENT_TIMEOUT_S = 60.0
"""Bounds an attempt where a person is watching and a plugins.zip may have a gigabyte."""


class AwsFault(str, Enum):
    """What a failed call to AWS means for whoever made it."""

    UNSENT = "no connection"
    """The request never left; it may be made elsewhere, writes too."""
    THROTTLED = "throttled"
    """Turned away before anything was done; it may be made again."""
    LOST = "no answer"
    """It may have been carried out, or may still be."""
    ACCESS = "refused"
    """No credentials, or not the right to do this."""
    MISSING = "not found"
    """The table, or the environment, does not exist there."""
    CONDITION = "condition failed"
    """A conditional write lost."""
    CONFLICT = "write conflict"
    """Another region wrote the same item at the same moment; nothing was written here."""
    INVALID = "invalid"
    """Anything else: the request itself is wrong, and will be wrong the next time."""


_BY_CODE = {
    "ConditionalCheckFailedException": AwsFault.CONDITION,
    "ReplicatedWriteConflictException": AwsFault.CONFLICT,
    "404": AwsFault.MISSING,  # S3, where there is no body to say more
    "NoSuchBucket": AwsFault.MISSING,
    "NoSuchEntity": AwsFault.MISSING,
    "NoSuchKey": AwsFault.MISSING,
    "NoSuchVersion": AwsFault.MISSING,
    "ResourceNotFoundException": AwsFault.MISSING,
    "TableNotFoundException": AwsFault.MISSING,
    # Throttling, in the words of the two services.
    "ProvisionedThroughputExceededException": AwsFault.THROTTLED,
    "RequestLimitExceeded": AwsFault.THROTTLED,
    "SlowDown": AwsFault.THROTTLED,
    "ThrottledException": AwsFault.THROTTLED,
    "Throttling": AwsFault.THROTTLED,
    "ThrottlingException": AwsFault.THROTTLED,
    "TooManyRequestsException": AwsFault.THROTTLED,
    # Credentials and rights.
    "AccessDenied": AwsFault.ACCESS,
    "AccessDeniedException": AwsFault.ACCESS,
    "ExpiredToken": AwsFault.ACCESS,
    "ExpiredTokenException": AwsFault.ACCESS,
    "IncompleteSignature": AwsFault.ACCESS,
    "InvalidClientTokenId": AwsFault.ACCESS,
    "InvalidSignatureException": AwsFault.ACCESS,
    "KMSAccessDeniedException": AwsFault.ACCESS,
    "MissingAuthenticationToken": AwsFault.ACCESS,
    "MissingAuthenticationTokenException": AwsFault.ACCESS,
    "RequestExpired": AwsFault.ACCESS,
    "RequestTimeTooSkewed": AwsFault.ACCESS,
    "SignatureDoesNotMatch": AwsFault.ACCESS,
    "UnrecognizedClientException": AwsFault.ACCESS,
    # DynamoDB: "the write may or may not have happened".
    "InternalServerError": AwsFault.LOST,
    "InternalServerException": AwsFault.LOST,
    "ServiceUnavailable": AwsFault.LOST,
    "ServiceUnavailableException": AwsFault.LOST,
}


_SIGNED_AT_ANOTHER_TIME = {
    "InvalidSignatureException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}


def errors() -> tuple[type[Exception], ...]:
    """Return what boto3 raises, for an ``except`` clause; evaluated, and botocore imported, only when one is raised."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return BotoCoreError, ClientError, ResponseParserError


def fault_of(error: Exception) -> AwsFault:
    """Return what one of :func:`errors` means."""
    from botocore import exceptions as botocore  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    if isinstance(error, botocore.ClientError):
        fault = _BY_CODE.get(code_of(error))
        if fault is not None:
            return fault
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status == 429:
            return AwsFault.THROTTLED
        if status in {401, 403}:
            return AwsFault.ACCESS
        return AwsFault.LOST if status >= 500 else AwsFault.INVALID
    if isinstance(
        error,
        (
            botocore.NoCredentialsError,
            botocore.PartialCredentialsError,
            botocore.CredentialRetrievalError,
            botocore.TokenRetrievalError,
            botocore.UnauthorizedSSOTokenError,
            botocore.ProfileNotFound,
        ),
    ):
        return AwsFault.ACCESS
    if isinstance(
        error, (botocore.ConnectTimeoutError, botocore.EndpointConnectionError, botocore.ProxyConnectionError)
    ):
        return AwsFault.UNSENT
    if isinstance(error, (botocore.HTTPClientError, botocore.ConnectionError, ResponseParserError)):
        return AwsFault.LOST
    return AwsFault.INVALID


def access_advice(error: Exception, rights: str) -> str:
    """Return what to do about an error of access: *rights*, unless AWS did not like the time of the request."""
    if code_of(error) in _SIGNED_AT_ANOTHER_TIME:
        return (
            f"Check this machine's clock: it says {datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}, and AWS refuses "
            "requests signed more than five minutes off. If it is right, check the secret key."
        )
    return rights


def throttled(message: str) -> Exception:
    """Return the error that AWS would have sent had it turned the call away, for answers that say so in the body."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    return ClientError({"Error": {"Code": "ThrottlingException", "Message": message}}, "unknown")


def code_of(error: Exception) -> str:
    """Return AWS's code of an error, empty when it has none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def brief(error: Exception) -> str:
    """Return an error's own words in one line that fits a log, to be followed by a full stop."""
    return " ".join(str(error).split())[:300].rstrip(".")


def dynamodb_client(region: str, *, session: boto3.session.Session | None = None, timeout_s: float) -> Any:
    """Return a DynamoDB client whose every call is one attempt, bounded by *timeout_s* for each way."""
    return _client("dynamodb", region, session=session, connect_timeout_s=timeout_s, read_timeout_s=timeout_s)


def mwaa_client(region: str, *, session: boto3.session.Session | None = None) -> Any:
    """Return an MWAA client whose every call is one attempt, a little longer than the service's own limit."""
    return _client(
        "mwaa",
        region,
        session=session,
        connect_timeout_s=MWAA_CONNECT_TIMEOUT_S,
        read_timeout_s=MWAA_READ_TIMEOUT_S,
    )


def deployment_client(service: str, region: str, *, session: boto3.session.Session | None = None) -> Any:
    """Return a client of any *service* whose every call is one attempt, with time for what is large."""
    return _client(
        service,
        region,
        session=session,
        connect_timeout_s=MWAA_CONNECT_TIMEOUT_S,
        read_timeout_s=DEPLOYMENT_TIMEOUT_S,
    )


def _client(
    service: str,
    region: str,
    *,
    session: boto3.session.Session | None,
    connect_timeout_s: float,
    read_timeout_s: float,
) -> Any:
    import boto3  # noqa: PLC0415  (0.2 s and 20 MB that a scheduler's import of the plugin must not cost)
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    with _shared.lock:  # a session makes clients for one thread at a time
        if session is None:
            session = _shared.session = _shared.session or boto3.session.Session()
        # The overloads of boto3's type stubs want literal service names.
        create: Callable[..., Any] = session.client
        client = create(service, region_name=region, config=config)
        if not is_aws_endpoint(client.meta.endpoint_url):
            # MWAA's calls go to env.HOST and api.HOST; an emulated AWS has one host, often an IP address.
            client = create(service, region_name=region, config=config.merge(Config(inject_host_prefix=False)))
    return client


class _Shared:
    """
    What the clients of one process share: a session, which costs 10 MiB and 0.1 s, as measured, and the way to it.

    Not boto3's default session, which anybody may be making clients from. A forked child has one of its own: the
    parent may have held the lock, or been half-way through a session, at that moment.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.lock = threading.Lock()
        self.session: boto3.session.Session | None = None


_shared = _Shared()
if hasattr(os, "register_at_fork"):  # not on Windows, where the command line runs all the same
    os.register_at_fork(after_in_child=_shared.forget)


def is_aws_endpoint(url: str) -> bool:
    """Whether an endpoint is AWS itself, and not one named with ``AWS_ENDPOINT_URL``."""
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"))


def retry(
    call: Callable[[], T],
    *,
    on: type[DRError],
    clock: Clock,
    deadline_s: float,
    first_wait_s: float = 0.2,
    longest_wait_s: float = 3.0,
) -> T:
    """
    Return what *call* returns, made again while it raises *on* and *deadline_s* has not passed.

    For calls that change nothing, or the same thing twice; a conditional write is never among them. Waits double from
    *first_wait_s* and are shortened at random, so that callers turned away together do not come back together.

    :raises DRError: the last error of *call*, unchanged.
    """
    until = clock.monotonic() + deadline_s
    wait_s = first_wait_s
    while True:
        try:
            return call()
        except on:
            pause_s = wait_s * (0.5 + random.random() / 2)  # noqa: S311  (not a secret)
            if clock.monotonic() + pause_s >= until:
                raise
        clock.sleep(pause_s)
        wait_s = min(wait_s * 2, longest_wait_s)
