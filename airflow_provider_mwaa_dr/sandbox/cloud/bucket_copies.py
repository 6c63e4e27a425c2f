"""
S3 replication of the emulated AWS: moto stores the configuration of PutBucketReplication, and copies nothing.

Each new version of an object is copied to the destination buckets of the enabled rules, after a lag and in no fixed
order. Deletions, tags and the replication status of an object are not emulated.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.sandbox.cloud.copy_queue import Copy, CopyQueue
from airflow_provider_mwaa_dr.sandbox.cloud.faults import InjectedFault
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request

log = get_logger(__name__)


class BucketCopies:
    """
    Copies what is written into a bucket with a replication configuration.

    :param call: sends a request to S3 as the service itself, with a region, a method, a path and headers.
    :param lag_s: returns the longest time that a copy takes; the shortest is half of it. Called for each object.
    :param fault: returns the fault between two regions; called for each delivery.
    """

    def __init__(
        self,
        call: Callable[[str, str, str, Mapping[str, str]], Answer],
        *,
        lag_s: Callable[[], float],
        fault: Callable[[str, str], InjectedFault | None],
    ) -> None:
        self._call, self._lag_s = call, lag_s
        self._queue = CopyQueue(fault)
        self._order = itertools.count()
        self._delivered: dict[tuple[str, str], int] = {}

    def written(self, request: Request, answer: Answer) -> None:
        """Copy the object that a successful request wrote. A request that wrote no object is a no-op."""
        path = urlsplit(request.path)
        name, _, key = unquote(path.path).lstrip("/").partition("/")
        query = set(parse_qs(path.query, keep_blank_values=True)) - {"x-id"}
        is_upload_complete = request.method == "POST" and query == {"uploadId"}
        if not key or not (is_upload_complete or (request.method == "PUT" and not query)):
            return
        bucket = _buckets()[name]
        version = next((value for header, value in answer.headers if header.lower() == "x-amz-version-id"), None)
        for destination in _destinations(bucket, key):
            self._copy(name, key, version, destination, source=bucket.region_name)

    def _copy(self, name: str, key: str, version: str | None, destination: str, *, source: str) -> None:
        if destination not in _buckets():
            log.warning("%s is to be copied from %s to %s, which does not exist", key, name, destination)
            return
        target = _buckets()[destination].region_name
        number = next(self._order)
        source_path = f"/{quote(name)}/{quote(key)}" + (f"?versionId={quote(version)}" if version else "")

        def deliver() -> None:
            # A later version of the object may have arrived before this one. It stays.
            if number >= self._delivered.get((destination, key), -1):
                self._delivered[destination, key] = number
                self._call(target, "PUT", f"/{quote(destination)}/{quote(key)}", {"x-amz-copy-source": source_path})

        after_s = self._lag_s() * random.uniform(0.5, 1.0)  # not a secret  # nosec B311
        self._queue.add(Copy(source=source, target=target, name=f"{name}/{key}", deliver=deliver), after_s=after_s)


def _buckets() -> Mapping[str, Any]:
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets


def _destinations(bucket: Any, key: str) -> Sequence[str]:
    """Return the buckets to which the rules of *bucket* copy an object."""
    configuration = getattr(bucket, "replication", None) or {}
    return [
        rule["Destination"]["Bucket"].rpartition(":")[2]
        for rule in configuration.get("Rule", ())
        if rule["Status"] == "Enabled" and key.startswith(_prefix(rule))
    ]


def _prefix(rule: Mapping[str, Any]) -> str:
    """Return the prefix of a rule: in its filter, alone or with tags, or in the rule itself (the old form)."""
    chosen = rule.get("Filter") or {}
    return (chosen.get("And") or chosen).get("Prefix") or rule.get("Prefix") or ""
