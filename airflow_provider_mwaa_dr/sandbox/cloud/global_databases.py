"""
Aurora global databases for moto, which creates them and cannot move their writer.

A switchover needs both regions, and is called in the region of the writer. A failover with data loss needs only the
region of the target, and is called there. Both take some time, during which the global cluster has the status
``switching-over`` or ``failing-over``, and the writer is still the old one. See "Using switchover or failover in Amazon
Aurora Global Database" in the Aurora User Guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape  # nosec B406

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.rds.models import DBCluster, GlobalCluster, rds_backends

from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request

_STORED_IN = "us-east-1"
"""The region in which moto keeps all global clusters."""
_MISSING = {"GlobalClusterNotFoundFault", "DBClusterNotFoundFault"}


class _RefusedRequestError(Exception):
    """An error that RDS answers: its code and its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch:
    """A switch of the writer that is in progress. ``ends_at`` is on the clock of :class:`GlobalDatabases`."""

    status: str
    writer: DBCluster
    target: DBCluster
    ends_at: float


class GlobalDatabases:
    """
    Answers requests about global clusters. It must not be called concurrently.

    :param clock: monotonic seconds.
    :param switch_s: returns how long a switch takes; called for each switch.
    :param is_cut: returns whether a fault separates the databases of two regions; of a region and itself: whether the
        region does not work.
    """

    def __init__(
        self, *, clock: Callable[[], float], switch_s: Callable[[], float], is_cut: Callable[[str, str], bool]
    ) -> None:
        self._clock, self._switch_s, self._is_cut = clock, switch_s, is_cut
        self._switches: dict[str, _Switch] = {}

    def answer(self, request: Request, operation: str) -> Answer:
        """Return the answer to DescribeGlobalClusters, FailoverGlobalCluster or SwitchoverGlobalCluster."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        self._end_switches()
        try:
            if operation == "DescribeGlobalClusters":
                found = [self._find(form)] if "GlobalClusterIdentifier" in form else _stored().values()
                result: Any = {"GlobalClusters": [("GlobalClusterMember", self._describe(each)) for each in found]}
            else:
                is_lossy = operation == "FailoverGlobalCluster" and form.get("AllowDataLoss") == "true"
                result = {"GlobalCluster": self._switch(form, request.region or "", is_lossy=is_lossy)}
        except _RefusedRequestError as error:
            code, message = error.args
            text = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
            status, name, content = 404 if code in _MISSING else 400, "ErrorResponse", text
        else:
            status, name, content = 200, f"{operation}Response", _xml({f"{operation}Result": result})
        body = f"<{name}>{content}<RequestId>sandbox</RequestId></{name}>"
        return Answer(status=status, headers=(("Content-Type", "text/xml"),), body=body.encode())

    def _find(self, form: Mapping[str, str]) -> GlobalCluster:
        name = form.get("GlobalClusterIdentifier", "")
        if name not in _stored():
            raise _RefusedRequestError("GlobalClusterNotFoundFault", f"Global cluster {name} not found")
        found: GlobalCluster = _stored()[name]
        return found

    def _switch(self, form: Mapping[str, str], region: str, *, is_lossy: bool) -> Mapping[str, Any]:
        """Start a switch, and return the description of the global cluster."""
        cluster, arn = self._find(form), form.get("TargetDbClusterIdentifier", "")
        target = next((member for member in cluster.members if member.db_cluster_arn == arn), None)
        writer = next((member for member in cluster.members if member.is_writer), None)
        if target is None:
            raise _RefusedRequestError("DBClusterNotFoundFault", f"{arn} is not a cluster of this global database")
        if target is writer:
            raise _RefusedRequestError("InvalidDBClusterStateFault", f"{arn} is the primary cluster already")
        name = cluster.global_cluster_identifier
        if name in self._switches or writer is None:
            raise _RefusedRequestError("InvalidGlobalClusterStateFault", f"Global cluster {name} is {cluster.status}")
        right = target.region if is_lossy else writer.region
        if region != right:
            which = "a failover in the region of the target" if is_lossy else "a switchover in the region of the writer"
            raise _RefusedRequestError("InvalidGlobalClusterStateFault", f"Call {which}, {right}, not in {region}")
        if self._is_cut(target.region if is_lossy else writer.region, target.region):
            raise _RefusedRequestError(
                "InvalidGlobalClusterStateFault",
                f"Global cluster {name} is not healthy: {writer.region} and {target.region} cannot reach each other",
            )
        cluster.status = "failing-over" if is_lossy else "switching-over"
        ends_at = self._clock() + self._switch_s()
        self._switches[name] = _Switch(status=cluster.status, writer=writer, target=target, ends_at=ends_at)
        return self._describe(cluster)

    def _end_switches(self) -> None:
        for name, switch in list(self._switches.items()):
            if self._clock() < switch.ends_at:
                continue
            del self._switches[name]
            if (cluster := _stored().get(name)) is not None:
                cluster.status = "available"
                for member in cluster.members:
                    member.is_writer = member is switch.target

    def _describe(self, cluster: GlobalCluster) -> Mapping[str, Any]:
        """Return the members of a global cluster, as in RDS's answer; a list has pairs of name and value."""
        members = [
            ("GlobalClusterMember", {**member, "Readers": [("member", arn) for arn in member["Readers"]]})
            for member in cluster.global_cluster_members
        ]
        switch = self._switches.get(cluster.global_cluster_identifier)
        state = switch and {
            "Status": switch.status,
            "FromDbClusterArn": switch.writer.db_cluster_arn,
            "ToDbClusterArn": switch.target.db_cluster_arn,
            "IsDataLossAllowed": switch.status == "failing-over",
        }
        return {
            "GlobalClusterIdentifier": cluster.global_cluster_identifier,
            "GlobalClusterResourceId": cluster.global_cluster_resource_id,
            "GlobalClusterArn": cluster.global_cluster_arn,
            "Status": cluster.status,
            "Engine": cluster.engine,
            "EngineVersion": cluster.engine_version,
            "StorageEncrypted": cluster.storage_encrypted,
            "DeletionProtection": cluster.deletion_protection,
            "GlobalClusterMembers": members,
            **({"FailoverState": state} if state else {}),
        }


def _stored() -> Any:
    """Return all global clusters by name, regardless of upper and lower case."""
    return rds_backends[DEFAULT_ACCOUNT_ID][_STORED_IN].global_clusters


def _xml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (Mapping, list)):
        return escape(str(value))
    pairs: Iterable[tuple[str, Any]] = value.items() if isinstance(value, Mapping) else value
    return "".join(f"<{name}>{_xml(each)}</{name}>" for name, each in pairs)
