"""
The fault table of the emulated AWS: which requests fail, and how.

The table is one file, ``HOME/aws/faults.json``, a JSON list. The commands ``mwaa-dr sandbox fault``, ``kill`` and
``revive`` change it, and the server reads it at each request. They are different processes and share no other data.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from airflow_provider_mwaa_dr.exceptions import ConfigError

ALL_SERVICES = "all"
NONE = "none"
"""The value that removes faults instead of adding one."""


class FaultKind(str, Enum):
    """What happens to a request. If several faults match, the order of this list decides: the first kind applies."""

    BLACKHOLE = "blackhole"
    """The server accepts the connection, reads the request, and never answers."""
    REFUSE = "refuse"
    """The server resets the connection without an answer."""
    DENY = "deny"
    """Access denied, as without the permission in IAM or for the KMS key."""
    EXPIRED = "expired"
    """The caller's credentials have expired."""
    ERROR = "error"
    """The service's own internal error, HTTP 500."""
    THROTTLE = "throttle"
    """The service's own throttling error."""
    DELAY = "delay"
    """The request is executed and answered ``seconds`` later. A write may succeed after its client's timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """
    One entry of the table.

    :param service: as in the request's signature scope (``dynamodb``, ``sqs``, ...), ``mwaa`` for an environment's
        control plane and web server, or ``all``; ``dynamodb/TABLE`` for the requests to one table.
    :param seconds: how long a delay lasts; None for every other kind.
    :param caller: the caller whose requests are affected: a site, or the control environment; None for all callers.
    :param target: what receives the requests: an AWS region with all its services, or the MWAA environment of a site;
        None for every target.
    """

    service: str
    fault: FaultKind
    seconds: float | None = None
    caller: str | None = None
    target: str | None = None

    def matches(
        self, *, service: str, caller: str, target: str | None, site: str | None = None, table: str | None = None
    ) -> bool:
        """Return whether this fault applies to a request from *caller* to *service* in *target*."""
        services = {ALL_SERVICES, service, f"{service}/{table}"}
        return self.service in services and self.caller in {None, caller} and self.target in {None, target, site}


Table = tuple[InjectedFault, ...]


def parse_fault(text: str) -> tuple[FaultKind, float | None] | None:
    """
    Return kind and seconds of a fault from the command line: ``refuse``, ``delay:2.5``; None for ``none``.

    :raises ConfigError: the text is not an allowed value, or a delay has no valid number of seconds.
    """
    word, colon, number = text.strip().lower().partition(":")
    try:
        if word == NONE and not colon:
            return None
        kind = FaultKind(word)
        if kind is not FaultKind.DELAY:
            if colon:
                raise ValueError(number)
            return kind, None
        seconds = float(number)
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(number)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a fault.",
            option="fault",
            advice="Allowed are refuse, blackhole, delay:SECONDS, throttle, error, deny, expired and none.",
        ) from error
    return kind, seconds


def match(
    table: Table,
    *,
    service: str,
    caller: str,
    target: str | None,
    site: str | None = None,
    dynamodb_table: str | None = None,
) -> InjectedFault | None:
    """
    Return the fault that applies to a request; None if there is none.

    If several match, the kind that :class:`FaultKind` lists first wins, and within a kind the latest fault.

    :param target: the AWS region that receives the request.
    :param site: the site whose MWAA environment receives it; None if none does.
    :param dynamodb_table: the table that the request names.
    """
    order = list(FaultKind)
    found = [
        fault
        for fault in reversed(table)
        if fault.matches(service=service, caller=caller, target=target, site=site, table=dynamodb_table)
    ]
    return min(found, key=lambda fault: order.index(fault.fault), default=None)


def cuts(fault: InjectedFault | None) -> bool:
    """Return whether a fault between two regions keeps their services from each other. A delay does not."""
    return fault is not None and fault.fault is not FaultKind.DELAY


def add(
    table: Table,
    *,
    region: str,
    service: str,
    fault: FaultKind,
    seconds: float | None = None,
    from_caller: str | None = None,
    to_target: str | None = None,
) -> Table:
    """
    Return the table with a fault of *region*, which is a site or an AWS region. It replaces a fault for the same
    service and direction.

    Without a direction it affects all requests that the region sends, and all requests to the region.

    :param from_caller: affect only the requests from this caller to *region*.
    :param to_target: affect only the requests from *region* to this region.
    """
    directions = _directions(region, from_caller, to_target)
    kept = [old for old in table if not (old.service == service and (old.caller, old.target) in directions)]
    new = [
        InjectedFault(service=service, fault=fault, seconds=seconds, caller=caller, target=target)
        for caller, target in directions
    ]
    return (*kept, *new)


def remove(
    table: Table,
    *,
    region: str,
    service: str = ALL_SERVICES,
    from_caller: str | None = None,
    to_target: str | None = None,
) -> Table:
    """
    Return the table without the selected faults.

    Without a direction this removes every fault of *region*, also faults with a direction. ``all`` selects every
    service. A single service does not remove a fault of ``all``, so removing one fault does not revive a killed region.
    """
    directions = _directions(region, from_caller, to_target)
    one_way = from_caller is not None or to_target is not None

    def is_selected(fault: InjectedFault) -> bool:
        if service not in {ALL_SERVICES, fault.service}:
            return False
        if one_way:
            return (fault.caller, fault.target) in directions
        return region in {fault.caller, fault.target}

    return tuple(fault for fault in table if not is_selected(fault))


def load(path: Path) -> Table:
    """
    Return the table stored at *path*; empty when there is no such file.

    :raises ConfigError: the file is not a valid fault table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    try:
        return tuple(
            InjectedFault(
                service=row["service"],
                fault=FaultKind(row["fault"]),
                seconds=row.get("seconds"),
                caller=row.get("caller"),
                target=row.get("target"),
            )
            for row in json.loads(text)
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a valid fault table: {error!r}.", advice="Delete the file. That removes all faults."
        ) from error


def save(path: Path, table: Table) -> None:
    """Store the table. Atomic: a reader gets the old table or the new one, never a part of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps([asdict(fault) for fault in table], indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def change(path: Path, step: Callable[[Table], Table]) -> Table:
    """
    Apply *step* to the stored table, store the result and return it. A lock keeps concurrent changes of two processes.

    :raises ConfigError: the file is not a valid fault table.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = step(load(path))
        save(path, table)
    return table


def _directions(region: str, from_caller: str | None, to_target: str | None) -> Sequence[tuple[str | None, str | None]]:
    if from_caller is not None and to_target is not None:
        raise ConfigError(
            f"A fault of {region} can have --from {from_caller} or --to {to_target}, but not both.",
            option="fault",
            advice="Use one of the two options.",
        )
    if from_caller is not None:
        return [(from_caller, region)]
    if to_target is not None:
        return [(region, to_target)]
    return [(region, None), (None, region)]
