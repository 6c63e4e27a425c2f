"""
Clients for AWS. Only this module defines timeouts, retries and the meaning of botocore's errors.

botocore's own retries are switched off. They repeat a POST whose answer was lost: a POST to a black-holed endpoint was
sent three times. With the default timeouts of 60 s, a read from a black-holed table took more than ten minutes.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import DRError

if TYPE_CHECKING:
    import boto3

T = TypeVar("T")

DYNAMODB_TIMEOUT_S = 1.0
"""Default timeout of one attempt at one replica, for connect and read each."""
MWAA_READ_TIMEOUT_S = 12.0
"""The service stops waiting for Airflow after 10 s. A slightly longer timeout receives the service's error message."""
MWAA_CONNECT_TIMEOUT_S = 3.0
DEPLOYMENT_TIMEOUT_S = 60.0
"""Timeout of an attempt during a deployment: a user watches it, and a plugins.zip may have a gigabyte."""


class AwsFault(str, Enum):
    """The meaning of a failed AWS call for its caller."""

    UNSENT = "no connection"
    """The request was not sent. It may be sent to another replica, even if it is a write."""
    THROTTLED = "throttled"
    """AWS refused the request before it did anything. It may be sent again."""
    LOST = "no answer"
    """AWS may have carried out the request, or may still do so."""
    ACCESS = "refused"
    """No credentials, or no permission for this call."""
    MISSING = "not found"
    """The table or the environment does not exist in that region."""
    CONDITION = "condition failed"
    """The condition of a conditional write was not met."""
    CONFLICT = "write conflict"
    """Another region wrote the same item at the same time. This request wrote nothing."""
    INVALID = "invalid"
    """Any other error: the request itself is wrong, so a retry does not help."""


_BY_CODE = {
    "ConditionalCheckFailedException": AwsFault.CONDITION,
    "ReplicatedWriteConflictException": AwsFault.CONFLICT,
    "404": AwsFault.MISSING,  # S3, if the answer has no body
    "NoSuchBucket": AwsFault.MISSING,
    "NoSuchEntity": AwsFault.MISSING,
    "NoSuchKey": AwsFault.MISSING,
    "NoSuchVersion": AwsFault.MISSING,
    "ResourceNotFoundException": AwsFault.MISSING,
    "TableNotFoundException": AwsFault.MISSING,
    # Throttling.
    "ProvisionedThroughputExceededException": AwsFault.THROTTLED,
    "RequestLimitExceeded": AwsFault.THROTTLED,
    "SlowDown": AwsFault.THROTTLED,
    "ThrottledException": AwsFault.THROTTLED,
    "Throttling": AwsFault.THROTTLED,
    "ThrottlingException": AwsFault.THROTTLED,
    "TooManyRequestsException": AwsFault.THROTTLED,
    # Credentials and permissions.
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
    """Return the errors of boto3, for an ``except`` clause. botocore is imported only if an error is raised."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return BotoCoreError, ClientError, ResponseParserError


def fault_of(error: Exception) -> AwsFault:
    """Return the meaning of an error of :func:`errors`."""
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
    """
    Return the advice for an access error: *rights*, unless there are no credentials, or AWS refused the time of the
    signature.
    """
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return (
            "This process has no AWS credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "log in again: aws sso login."
        )
    if code_of(error) in _SIGNED_AT_ANOTHER_TIME:
        return (
            f"Check this machine's clock, which shows {datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}. AWS refuses "
            "requests that are signed more than five minutes off. If the clock is right, check the secret key."
        )
    return rights


def unknown_region_advice(regions: Iterable[str]) -> str:
    """Return the advice for regions in which AWS has no DynamoDB; empty if it has. Reads a list, sends no request."""
    import boto3  # noqa: PLC0415

    session = boto3.session.Session()
    known = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("dynamodb", partition)
    ]
    for region in regions:
        if region not in known:
            nearest = get_close_matches(region, known, n=3)
            which = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Known are {', '.join(sorted(known))}."
            return f"AWS has no region {region}, as far as this version of boto3 knows. {which}"
    return ""


def throttled(message: str) -> Exception:
    """Return a throttling error of AWS, for answers that report throttling in their body."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    return ClientError({"Error": {"Code": "ThrottlingException", "Message": message}}, "unknown")


def code_of(error: Exception) -> str:
    """Return AWS's code of an error; empty if it has none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def brief(error: Exception) -> str:
    """Return an error's message in one line of at most 300 characters, without its full stop."""
    return " ".join(str(error).split())[:300].rstrip(".")


def dynamodb_client(region: str, *, session: boto3.session.Session | None = None, timeout_s: float) -> Any:
    """Return a DynamoDB client without retries. *timeout_s* applies to connect and read each."""
    return _client("dynamodb", region, session=session, connect_timeout_s=timeout_s, read_timeout_s=timeout_s)


def mwaa_client(
    region: str,
    *,
    session: boto3.session.Session | None = None,
    timeouts_s: tuple[float, float] = (MWAA_CONNECT_TIMEOUT_S, MWAA_READ_TIMEOUT_S),
) -> Any:
    """Return an MWAA client without retries. *timeouts_s* are for connect and read."""
    connect_timeout_s, read_timeout_s = timeouts_s
    return _client("mwaa", region, session=session, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)


def deployment_client(service: str, region: str, *, session: boto3.session.Session | None = None) -> Any:
    """Return a client of any *service* without retries. Its timeout is long enough for large files."""
    return _client(
        service,
        region,
        session=session,
        connect_timeout_s=MWAA_CONNECT_TIMEOUT_S,
        read_timeout_s=DEPLOYMENT_TIMEOUT_S,
    )


def metrics_client(region: str) -> Any:
    """Return a CloudWatch client without retries: a metric is not worth a wait."""
    return _client("cloudwatch", region, session=None, connect_timeout_s=1.0, read_timeout_s=1.0)


def notification_client(service: str, region: str, *, session: boto3.session.Session | None = None) -> Any:
    """Return a client of SNS or EventBridge without retries: a later attempt retries, under the same key."""
    return _client(service, region, session=session, connect_timeout_s=3.0, read_timeout_s=10.0)


def _client(
    service: str,
    region: str,
    *,
    session: boto3.session.Session | None,
    connect_timeout_s: float,
    read_timeout_s: float,
) -> Any:
    import boto3  # noqa: PLC0415  (costs 0.2 s and 20 MB, which the plugin's import must not)
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    with _shared.lock:  # a boto3 session is not thread-safe
        if session is None:
            session = _shared.session = _shared.session or boto3.session.Session()
        # The overloads in boto3's type stubs accept only literal service names.
        create: Callable[..., Any] = session.client
        client = create(service, region_name=region, config=config)
        if not is_aws_endpoint(client.meta.endpoint_url):
            # MWAA's calls go to env.HOST and api.HOST. An emulated AWS has one host, often an IP address.
            client = create(service, region_name=region, config=config.merge(Config(inject_host_prefix=False)))
    return client


class _Shared:
    """
    The boto3 session of one process, which all its clients share. A session costs 10 MiB and 0.1 s (measured).

    It is not boto3's default session, because other code may create clients from that one in another thread. A forked
    child gets a new session: its parent may have held the lock, or may have been creating a session, during the fork.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop session and lock."""
        self.lock = threading.Lock()
        self.session: boto3.session.Session | None = None


_shared = _Shared()
if hasattr(os, "register_at_fork"):  # not on Windows, where only the command line runs
    os.register_at_fork(after_in_child=_shared.forget)


def is_aws_endpoint(url: str) -> bool:
    """Whether an endpoint belongs to AWS, and is not set with ``AWS_ENDPOINT_URL``."""
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
    Return the result of *call*; repeat it while it raises *on* and *deadline_s* has not passed.

    For idempotent calls only, and never for a conditional write. Waits start at *first_wait_s* and double. They are
    shortened at random, so that callers that were throttled together do not retry together.

    :raises DRError: the last error of *call*, unchanged.
    """
    until = clock.monotonic() + deadline_s
    wait_s = first_wait_s
    while True:
        try:
            return call()
        except on:
            pause_s = wait_s * (0.5 + random.random() / 2)  # noqa: S311  (not a secret)  # nosec B311
            if clock.monotonic() + pause_s >= until:
                raise
        clock.sleep(pause_s)
        wait_s = min(wait_s * 2, longest_wait_s)
