"""
The settings: one table, from which everything else is made.

``OPTIONS`` feeds Airflow's catalogue (``get_provider_info``), the environment fallbacks, the command line and the
documents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

SECTION = "dr"
CONTROL_TAG = "dr:control"
"""DAGs with this tag are exempt: never held, skipped, paused or unpaused by the provider."""


class OnUnreachable(str, Enum):
    """What the active region does once its view of the state is older than the lease."""

    HOLD = "hold"
    RUN = "run"
    SKIP = "skip"


class TableConsistency(str, Enum):
    """How DynamoDB replicates a table between regions."""

    STRONG = "strong"
    """A global table with strong consistency. As a setting, also a table of one region."""
    EVENTUAL = "eventual"
    """Each region has a copy. DynamoDB replicates writes later, and the last writer wins."""
    SINGLE = "single region"
    """Not a global table: one region has it. A description of DynamoDB, not a setting."""


class Eventual(str, Enum):
    """What makes a region's view of a table with eventual consistency a fresh one."""

    AVAILABLE = "available"
    """One copy was read, the region's own: cut off, the region goes on until the link is back."""
    SAFE = "safe"
    """All copies were read: losing any region holds every other one once the lease is over."""

    @property
    def price(self) -> str:
        """What it costs, for people."""
        if self is Eventual.AVAILABLE:
            return "a region that is cut off runs on with its own copy until the link is back"
        return "a region whose copy cannot be read holds every other one"


@dataclass(frozen=True, slots=True, kw_only=True)
class DRConfig:
    """
    The settings of one process, parsed. Field names are the option names; units are in them.

    :param region: the region this process belongs to; empty means "not known", which holds everything.
    :param replicas: regions of the state table's copies, in no order; readers go to their own first.
    :param environments: MWAA environment name by region.
    :param problems: one sentence for each value that was wrong and whose default is used instead.
    :param contradiction: why the settings do not say which environment is which; everything is held then. Else empty.
    :param environment: name of the MWAA environment of this process, as MWAA says (``AIRFLOW_ENV_NAME``); else empty.
    :param aws_region: AWS region of this process, as MWAA says (``AWS_REGION``); else empty.
    """

    enabled: bool = False
    region: str = ""
    state_table: str = ""
    state_source: str = "dynamodb"
    state_table_region: str = ""
    state_table_replicas: tuple[str, ...] = ()
    environments: Mapping[str, str]
    runs_table: str = ""
    notification_topic: str = ""
    refresh_s: float = 5.0
    heartbeat_s: float = 5.0
    lease_s: float = 60.0
    drain_s: float = 60.0
    ledger_wait_s: float = 300.0
    fence: bool = True
    fence_file_s: float = 3.0
    fence_wait_s: float = 30.0
    on_unreachable: OnUnreachable = OnUnreachable.HOLD
    table_consistency: TableConsistency = TableConsistency.STRONG
    eventual: Eventual = Eventual.AVAILABLE
    exempt_dags: frozenset[str] = frozenset()
    accepted_differences: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    contradiction: str = ""
    environment: str = ""
    aws_region: str = ""

    @property
    def replicas(self) -> tuple[str, ...]:
        """Regions in which the state table can be read, this process's own first, each once."""
        known = dict.fromkeys((self.state_table_region, *self.state_table_replicas))
        ordered = sorted((region for region in known if region), key=lambda region: region != self.region)
        return tuple(ordered) or ((self.region,) if self.region else ())

    @property
    def eventual_mode(self) -> Eventual | None:
        """What makes a view fresh; None for a table with strong consistency, where any copy does."""
        return self.eventual if self.table_consistency is TableConsistency.EVENTUAL else None


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Generic[T]):
    """
    One setting in ``[dr]``.

    :param name: as in airflow.cfg; ``AIRFLOW__DR__<NAME>`` and, as fallback, ``DR_<NAME>`` in the environment.
    :param default: as text, the way Airflow's catalogue and MWAA want it; empty means unset.
    :param allowed: what a value may be, in words that finish the sentence "allowed are ...".
    :param parse: turns text into the value; raises ValueError.
    :param aliases: other names of the same setting, among them those of the AWS sample.
    """

    name: str
    type: str
    default: str
    allowed: str
    description: str
    example: str
    parse: Callable[[str], T]
    version_added: str = "0.1.0"
    aliases: tuple[str, ...] = ()


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in {"true", "t", "yes", "on", "1"}:
        return True
    if lowered in {"false", "f", "no", "off", "0"}:
        return False
    raise ValueError(text)


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _environments(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in _names(text):
        region, separator, name = (piece.strip() for piece in part.partition("="))
        if not (separator and region and name):
            raise ValueError(part)
        if pairs.setdefault(region, name) != name:
            raise _ContradictionError(f"names two environments for {region}: {pairs[region]} and {name}")
    return pairs


class _ContradictionError(ValueError):
    """A value that says two things at once, so that no default may stand in for it."""


def _source(text: str) -> str:
    if text.strip().lower() != "dynamodb":
        raise ValueError(text)
    return "dynamodb"


def _topic(text: str) -> str:
    arn = text.strip()
    if arn and (arn.count(":") != 5 or not arn.startswith("arn:") or ":sns:" not in arn):
        raise ValueError(text)
    return arn


def _on_unreachable(text: str) -> OnUnreachable:
    return OnUnreachable(text.strip().lower())


def _consistency(text: str) -> TableConsistency:
    found = TableConsistency(text.strip().lower())
    if found is TableConsistency.SINGLE:  # what DynamoDB says of a table, and no value of the option
        raise ValueError(text)
    return found


def _eventual(text: str) -> Eventual:
    return Eventual(text.strip().lower())


OPTIONS: tuple[Option[Any], ...] = (
    Option(
        name="enabled",
        type="boolean",
        default="False",
        allowed="true and false",
        parse=_boolean,
        example="True",
        description="Whether this Airflow is part of a DR set. Off, the plugin registers nothing and costs nothing.",
    ),
    Option(
        name="state_table",
        type="string",
        default="",
        allowed="names of DynamoDB tables",
        parse=str.strip,
        example="mwaa-dr-state",
        description="DynamoDB table that holds the state item. Needed when enabled.",
    ),
    Option(
        name="state_source",
        type="string",
        default="dynamodb",
        allowed="dynamodb",
        parse=_source,
        example="dynamodb",
        description="Where the state lives.",
    ),
    Option(
        name="state_table_region",
        type="string",
        default="",
        allowed="AWS region names",
        parse=str.strip,
        example="us-east-2",
        aliases=("table_region",),
        description="Region of the state table, or of one of its replicas. Unset: this environment's own region.",
    ),
    Option(
        name="state_table_replicas",
        type="string",
        default="",
        allowed="AWS region names separated by commas",
        parse=_names,
        example="us-east-2,us-east-1",
        description="Regions of the replicas of the state table. The nearest is read first, then the others.",
    ),
    Option(
        name="table_consistency",
        type="string",
        default="strong",
        allowed="strong and eventual",
        parse=_consistency,
        example="eventual",
        description="How the replicas of the state table follow each other: strong for one created with "
        "--multi-region-consistency STRONG or without replicas, eventual for any other global table. Set the same "
        "value everywhere.",
    ),
    Option(
        name="eventual",
        type="string",
        default="available",
        allowed="available and safe",
        parse=_eventual,
        example="safe",
        description="With table_consistency eventual: available lets a region use its own replica, and a region that "
        "is cut off runs until the link is back; safe lets it run only while all replicas can be read, so that the "
        "loss of one region holds the others until they are set to available.",
    ),
    Option(
        name="environments",
        type="string",
        default="",
        allowed="REGION=NAME pairs separated by commas",
        parse=_environments,
        example="us-east-2=etl-primary,us-east-1=etl-secondary",
        description="The MWAA environments of the DR set. Unset: the registry that mwaa-dr init wrote.",
    ),
    Option(
        name="runs_table",
        type="string",
        default="",
        allowed="names of DynamoDB tables",
        parse=str.strip,
        example="mwaa-dr-runs",
        description="DynamoDB table for the ledger of runs. Unset: no region resumes another region's runs.",
    ),
    Option(
        name="region",
        type="string",
        default="",
        allowed="AWS region names",
        parse=str.strip,
        example="us-east-1",
        description="The region this Airflow counts as. Unset: AWS_REGION, which MWAA sets.",
    ),
    Option(
        name="notification_topic",
        type="string",
        default="",
        allowed="ARNs of SNS topics",
        parse=_topic,
        example="arn:aws:sns:us-west-2:123456789012:mwaa-dr",
        description="SNS topic to which dr_monitor publishes what it finds and does. Unset: it publishes nothing.",
    ),
    Option(
        name="refresh_s",
        type="float",
        default="5",
        allowed="numbers from 0.2 to 60",
        parse=_seconds(0.2, 60),
        example="5",
        description="Seconds between two reads of the state by a scheduler's agent.",
    ),
    Option(
        name="heartbeat_s",
        type="float",
        default="5",
        allowed="numbers from 0.2 to 60",
        parse=_seconds(0.2, 60),
        example="5",
        description="Seconds between two heartbeats of a scheduler's agent.",
    ),
    Option(
        name="lease_s",
        type="float",
        default="60",
        allowed="numbers from 2 to 3600",
        parse=_seconds(2, 3600),
        example="60",
        description="How old, in seconds, a view of the state may be while the region still executes. "
        "mwaa-dr init writes it into the state item, whose value counts from then on.",
    ),
    Option(
        name="drain_s",
        type="float",
        default="60",
        allowed="numbers from 1 to 86400",
        parse=_seconds(1, 86400),
        example="60",
        description="Seconds that a graceful failover waits for runs in flight.",
    ),
    Option(
        name="ledger_wait_s",
        type="float",
        default="300",
        allowed="numbers from 10 to 86400",
        parse=_seconds(10, 86400),
        example="300",
        description="Seconds that a region which becomes active waits for a ledger that refuses or does not answer. "
        "Then it continues without it, and mwaa-dr status lists what it could not take over.",
    ),
    Option(
        name="fence",
        type="boolean",
        default="True",
        allowed="true and false",
        parse=_boolean,
        example="True",
        description="Whether workers check the state before each task. Off, only the scheduler's gate protects.",
    ),
    Option(
        name="fence_file_s",
        type="float",
        default="3",
        allowed="numbers from 0 to 30",
        parse=_seconds(0, 30),
        example="3",
        description="Seconds for which the tasks of one worker share a read of the state.",
    ),
    Option(
        name="fence_wait_s",
        type="float",
        default="30",
        allowed="numbers from 0 to 600",
        parse=_seconds(0, 600),
        example="30",
        description="Seconds that a held task waits in its worker before it goes back to the scheduler.",
    ),
    Option(
        name="on_unreachable",
        type="string",
        default="hold",
        allowed="hold, run and skip",
        parse=_on_unreachable,
        example="hold",
        description="What the active region does when its view is older than the lease. run risks running twice, "
        "skip loses intervals.",
    ),
    Option(
        name="exempt_dags",
        type="string",
        default="",
        allowed="DAG ids separated by commas",
        parse=lambda text: frozenset(_names(text)),
        example="dr_failover,dr_monitor",
        description=f"DAGs that the provider leaves alone, like those tagged {CONTROL_TAG}.",
    ),
    Option(
        name="accepted_differences",
        type="string",
        default="",
        allowed="CHECK or CHECK:NAME separated by commas",
        parse=_names,
        example="capacity,variables:bucket_*",
        description="Intended differences between the regions, for mwaa-dr check. NAME may have wildcards.",
    ),
)


def parse_config(raw: Mapping[str, str | None]) -> DRConfig:
    """
    Turn texts by option name into settings. Never raises: a wrong value is named in ``problems``, its default used.

    Two exceptions to "its default". An ``enabled`` that is neither true nor false counts as true: a standby that runs
    everything is the worse mistake. An ``environments`` that names two for one region leaves ``contradiction``, which
    holds everything.

    :param raw: None and blank text mean unset; unknown names are ignored.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    contradiction = ""
    for option in OPTIONS:
        text = raw.get(option.name)
        if text is None or not text.strip():
            text = option.default
        try:
            values[option.name] = option.parse(text)
        except _ContradictionError as error:
            values[option.name] = option.parse(option.default)
            contradiction = f"[{SECTION}] {option.name} = {text!r} {error}; name one"
            problems.append(f"{contradiction}.")
        except ValueError:
            values[option.name] = True if option.name == "enabled" else option.parse(option.default)
            used = "True" if option.name == "enabled" else option.default
            problems.append(
                f"[{SECTION}] {option.name} = {text!r} is not understood; allowed are {option.allowed}. "
                + (f"{used} is used instead." if used else "It counts as unset.")
            )
    problems += _contradictions(values)
    return DRConfig(**values, problems=tuple(problems), contradiction=contradiction)


def _contradictions(values: Mapping[str, Any]) -> Sequence[str]:
    """Return a sentence for each pair of settings that cannot both be meant."""
    found = []
    if values["enabled"] and not values["state_table"]:
        found.append(
            f"[{SECTION}] state_table is not set: this Airflow cannot learn its role and holds every run. "
            "Set it to the table that mwaa-dr init was given."
        )
    if values["refresh_s"] * 2 > values["lease_s"]:
        found.append(
            f"[{SECTION}] refresh_s = {values['refresh_s']:g} is more than half of lease_s = {values['lease_s']:g}: "
            "one missed read would hold the active region. Lower refresh_s."
        )
    copies = {values["state_table_region"], *values["state_table_replicas"]} - {""}
    without = sorted(set(values["environments"]) - copies)
    if (
        values["state_table"]
        and values["table_consistency"] is TableConsistency.EVENTUAL
        and (without or len(copies) < 2)
    ):
        found.append(
            f"[{SECTION}] table_consistency is eventual, and state_table_replicas names no copy "
            f"{f'in {without[0]}' if without else 'but one'}: each region of the set needs one, and everybody "
            "has to know all of them. Name the regions of all replicas."
        )
    if values["fence_file_s"] >= values["lease_s"]:
        found.append(
            f"[{SECTION}] fence_file_s = {values['fence_file_s']:g} is not shorter than lease_s = "
            f"{values['lease_s']:g}: tasks would live on a view that the lease has ended. Lower fence_file_s."
        )
    return found


def is_exempt(dag_id: str, tags: Collection[str], exempt_dags: Collection[str]) -> bool:
    """
    Return whether the provider leaves a DAG alone.

    :param exempt_dags: ``[dr] exempt_dags``.
    """
    return dag_id in exempt_dags or CONTROL_TAG in tags


def environment_texts(environ: Mapping[str, str]) -> dict[str, str | None]:
    """
    Return the texts of all options as the variables ``DR_<NAME>`` have them, for :func:`parse_config`.

    The region falls back to ``AWS_REGION``, which MWAA sets, then to ``AWS_DEFAULT_REGION``.
    """
    names = {option.name: [f"DR_{name.upper()}" for name in (option.name, *option.aliases)] for option in OPTIONS}
    names["region"] += ["AWS_REGION", "AWS_DEFAULT_REGION"]
    return {
        option: next((environ[name] for name in variables if environ.get(name, "").strip()), None)
        for option, variables in names.items()
    }
