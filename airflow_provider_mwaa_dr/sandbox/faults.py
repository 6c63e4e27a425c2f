"""
The fault table of the emulated AWS: which requests go wrong, and how.

The table is one file, ``HOME/aws/faults.json``, a JSON list. Who changes it (``mwaa-dr sandbox fault``, ``kill``,
``revive``) and who obeys it (the server, at each request) are different processes and share nothing else.
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
"""The word that lifts faults instead of adding one."""


class FaultKind(str, Enum):
    """What becomes of a request. The order is the order of strength: of several that match, the first one counts."""

    BLACKHOLE = "blackhole"
    """The connection is accepted, the request is read, and no answer ever comes."""
    REFUSE = "refuse"
    """The connection is reset before any answer."""
    DENY = "deny"
    """Access denied, as without the right in IAM or on the key."""
    EXPIRED = "expired"
    """The caller's credentials have expired."""
    ERROR = "error"
    """The service's own internal error, HTTP 500."""
    THROTTLE = "throttle"
    """The service's own throttling error."""
    DELAY = "delay"
    """Carried out and answered, but ``seconds`` later: a client that gave up may find its write has landed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """
    One line of the table.

    :param service: as in the request's signature scope (``dynamodb``, ``sqs``, ...), ``mwaa`` for an environment's
        control plane and web server, or ``all``; ``dynamodb/TABLE`` for the requests to one table.
    :param seconds: how long a delay lasts; None for every other kind.
    :param caller: whose requests; None means everybody's.
    :param target: requests to which region; None means every region.
    """

    service: str
    fault: FaultKind
    seconds: float | None = None
    caller: str | None = None
    target: str | None = None

    def matches(self, *, service: str, caller: str, target: str | None, table: str | None = None) -> bool:
        """Whether a request of *caller* to *service* in *target* meets this fault."""
        services = {ALL_SERVICES, service, f"{service}/{table}"}
        return self.service in services and self.caller in {None, caller} and self.target in {None, target}


Table = tuple[InjectedFault, ...]


def parse_fault(text: str) -> tuple[FaultKind, float | None] | None:
    """
    Return kind and seconds of a fault as people write it: ``refuse``, ``delay:2.5``; None for ``none``.

    :raises ConfigError: not one of the allowed words, or a delay without a usable number of seconds.
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
    table: Table, *, service: str, caller: str, target: str | None, dynamodb_table: str | None = None
) -> InjectedFault | None:
    """
    Return the strongest fault that a request meets (of equally strong ones the latest); None when it meets none.

    :param dynamodb_table: the table that the request names.
    """
    order = list(FaultKind)
    found = [
        fault
        for fault in reversed(table)
        if fault.matches(service=service, caller=caller, target=target, table=dynamodb_table)
    ]
    return min(found, key=lambda fault: order.index(fault.fault), default=None)


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
    Return the table with a fault of *region*; one that was there for the same service and direction is replaced.

    Without a direction the region is cut off both ways: all that it calls and all that call it.

    :param from_caller: only what this caller sends to *region*.
    :param to_target: only what *region* sends to this one.
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
    Return the table without the faults named.

    Without a direction every fault of *region* goes, also those that were added with one. ``all`` names every
    service; a single service leaves a fault of ``all`` standing, so lifting one fault does not revive a killed region.
    """
    directions = _directions(region, from_caller, to_target)
    one_way = from_caller is not None or to_target is not None

    def named(fault: InjectedFault) -> bool:
        if service not in {ALL_SERVICES, fault.service}:
            return False
        if one_way:
            return (fault.caller, fault.target) in directions
        return region in {fault.caller, fault.target}

    return tuple(fault for fault in table if not named(fault))


def load(path: Path) -> Table:
    """
    Return the table stored at *path*; empty when there is no such file.

    :raises ConfigError: the file is not a fault table.
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
            f"{path} is not a fault table: {error!r}.", advice="Delete the file; that lifts all faults."
        ) from error


def save(path: Path, table: Table) -> None:
    """Store the table. Atomic: a reader finds the old one or the new one, never a part."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps([asdict(fault) for fault in table], indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def change(path: Path, step: Callable[[Table], Table]) -> Table:
    """
    Replace the stored table by what *step* makes of it and return that; two processes at once both get their way.

    :raises ConfigError: the file is not a fault table.
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
            f"A fault of {region} goes from {from_caller} or to {to_target}, not both.",
            option="fault",
            advice="Name one of the two.",
        )
    if from_caller is not None:
        return [(from_caller, region)]
    if to_target is not None:
        return [(region, to_target)]
    return [(region, None), (None, region)]
