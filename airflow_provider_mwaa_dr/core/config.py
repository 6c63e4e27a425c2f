"""
The settings, defined in one table.

Airflow's list of configuration options (``get_provider_info``), the environment variables, the command line and the
documentation all use ``OPTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from airflow_provider_mwaa_dr.core.sites import (
    PAIRS,
    Sites,
    SitesContradictionError,
    SitesError,
    parse_site_id,
    parse_sites,
)

SECTION = "dr"
CONTROL_TAG = "dr:control"
"""DAGs with this tag are exempt: never held, skipped, paused or unpaused by the provider."""
NO_CONF_TAG = "dr:no-conf"
"""The ledger stores no conf of runs of DAGs with this tag. No other region starts a run without its conf."""


class OnUnreachable(str, Enum):
    """What the active region does when its view of the state is older than the lease."""

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
    """Not a global table: it is in one region only. Only in descriptions of tables, not a setting."""


class Eventual(str, Enum):
    """Which copies of a table with eventual consistency a region must read for a fresh view."""

    AVAILABLE = "available"
    """One copy, the region's own. A region that is cut off continues until the link is back."""
    SAFE = "safe"
    """All copies. If one region is lost, all other regions hold after the lease."""

    @property
    def price(self) -> str:
        """The disadvantage, as a text for messages."""
        if self is Eventual.AVAILABLE:
            return "a region that is cut off continues with its own copy until the link is back"
        return "if the copy of one region cannot be read, all other regions hold"


class Carry(str, Enum):
    """What the agents do with a kind of settings that differs between the active site and the standby."""

    REPORT = "report"
    """They only report it."""
    ADD = "add"
    """They copy what the standby does not have."""
    MIRROR = "mirror"
    """They also copy changes, except over a value that was changed in the standby. Deletions are only listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DRConfig:
    """
    The parsed settings of one process. The fields have the names of the options, with units.

    :param region: the id of the site of this process, ``[dr] site``. If empty, it is unknown, and everything is held.
    :param state_table_replicas: regions of the state table's copies, in any order; each reader starts with its own.
    :param environments: MWAA environment name by site; :attr:`sites` also has their AWS regions.
    :param problems: one sentence for each wrong value; the default is used instead.
    :param contradiction: why the settings contradict each other about the environments, so that everything is held;
        empty if they do not.
    :param environment: name of this process's MWAA environment, from MWAA (``AIRFLOW_ENV_NAME``); empty outside MWAA.
    :param aws_region: AWS region of this process, from MWAA (``AWS_REGION``); empty if it is not set.
    """

    enabled: bool = False
    region: str = ""
    state_table: str = ""
    state_table_region: str = ""
    state_table_replicas: tuple[str, ...] = ()
    environments: Mapping[str, str]
    runs_table: str = ""
    history_days: int = 0
    notification_topic: str = ""
    notification_bus: str = ""
    notifiers: tuple[str, ...] = ()
    cloudwatch_metrics: bool = False
    state_read_s: float = 1.0
    refresh_s: float = 5.0
    heartbeat_s: float = 5.0
    lease_s: float = 60.0
    drain_s: float = 60.0
    ledger_wait_s: float = 300.0
    fence: bool = True
    fence_file_s: float = 1.0
    fence_wait_s: float = 30.0
    on_unreachable: OnUnreachable = OnUnreachable.HOLD
    table_consistency: TableConsistency = TableConsistency.STRONG
    eventual: Eventual = Eventual.AVAILABLE
    exempt_dags: frozenset[str] = frozenset()
    accepted_differences: tuple[str, ...] = ()
    carry_variables: Carry = Carry.REPORT
    carry_connections: Carry = Carry.REPORT
    carry_pools: Carry = Carry.REPORT
    problems: tuple[str, ...] = ()
    contradiction: str = ""
    environment: str = ""
    aws_region: str = ""

    @property
    def sites(self) -> Sites:
        """The sites of the DR set; none if no environments are set."""
        return Sites.of(self.environments)

    @property
    def carries(self) -> Mapping[str, Carry]:
        """What the agents copy, by kind; empty if they copy nothing."""
        found = {"variables": self.carry_variables, "connections": self.carry_connections, "pools": self.carry_pools}
        return found if set(found.values()) != {Carry.REPORT} else {}

    @property
    def own_aws_region(self) -> str:
        """The AWS region of this process: that of its site, or else ``AWS_REGION``; empty if it is unknown."""
        return self.sites.aws_region_of(self.region) or self.aws_region

    @property
    def replicas(self) -> tuple[str, ...]:
        """AWS regions in which the state table can be read, without duplicates, this process's own first."""
        known = dict.fromkeys((self.state_table_region, *self.state_table_replicas))
        own = self.own_aws_region
        ordered = sorted((region for region in known if region), key=lambda region: region != own)
        return tuple(ordered) or ((own,) if own else ())

    @property
    def eventual_mode(self) -> Eventual | None:
        """Which copies a fresh view needs; None for a table with strong consistency, where any copy is enough."""
        return self.eventual if self.table_consistency is TableConsistency.EVENTUAL else None


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Generic[T]):
    """
    One setting in ``[dr]``.

    :param name: in airflow.cfg. The environment variable is ``AIRFLOW__DR__<NAME>``, or ``DR_<NAME>`` as fallback.
    :param default: a text, as Airflow and MWAA require it; empty means unset.
    :param allowed: the allowed values, as the end of the sentence "allowed are ...".
    :param parse: turns a text into the value; raises ValueError.
    :param aliases: other names of the same setting, including those of the AWS sample.
    :param is_setting: whether DRConfig has a field of this name. False: the value is only checked; no code uses it.
    :param stored_as: the field of DRConfig, if it has another name.
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
    is_setting: bool = True
    stored_as: str = ""

    @property
    def field(self) -> str:
        """The field of DRConfig with the value."""
        return self.stored_as or self.name

    def text(self, raw: Mapping[str, str | None]) -> str | None:
        """
        Return the text of the option, given texts by name and alias; None if all of them are missing or blank.

        The first name wins. Different ids of the site are all returned, so that :attr:`parse` refuses them.
        """
        found = [text for name in (self.name, *self.aliases) if (text := raw.get(name)) is not None and text.strip()]
        if self.parse is parse_site_id and found:
            return ",".join(dict.fromkeys(map(str.strip, found)))
        return next(iter(found), None)


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


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _source(text: str) -> str:
    if text.strip().lower() != "dynamodb":
        raise ValueError(text)
    return "dynamodb"


def _topic(text: str) -> str:
    arn = text.strip()
    if arn and (arn.count(":") != 5 or not arn.startswith("arn:") or ":sns:" not in arn):
        raise ValueError(text)
    return arn


def _bus(text: str) -> str:
    arn = text.strip()
    if arn and (arn.count(":") != 5 or not arn.startswith("arn:") or ":events:" not in arn or ":event-bus/" not in arn):
        raise ValueError(text)
    return arn


def _paths(text: str) -> tuple[str, ...]:
    paths = _names(text)
    if any("." not in path or not all(part.isidentifier() for part in path.split(".")) for path in paths):
        raise ValueError(text)
    return paths


def _on_unreachable(text: str) -> OnUnreachable:
    return OnUnreachable(text.strip().lower())


def _consistency(text: str) -> TableConsistency:
    found = TableConsistency(text.strip().lower())
    if found is TableConsistency.SINGLE:  # describes a table; not a value of the option
        raise ValueError(text)
    return found


def _eventual(text: str) -> Eventual:
    return Eventual(text.strip().lower())


def _carry(text: str) -> Carry:
    return Carry(text.strip().lower())


def _carry_option(kind: str) -> Option[Carry]:
    return Option(
        name=f"carry_{kind}",
        type="string",
        default=Carry.REPORT.value,
        allowed="report, add and mirror",
        parse=_carry,
        example=Carry.ADD.value,
        description=f"What the agents do with {kind} that differ between the active environment and the standby: "
        "report only lists them; add copies those that the standby does not have; mirror also copies changes, except "
        "over a value that was changed in the standby. Nothing is deleted. Set the same value in both environments.",
    )


OPTIONS: tuple[Option[Any], ...] = (
    Option(
        name="enabled",
        type="boolean",
        default="False",
        allowed="true and false",
        parse=_boolean,
        example="True",
        description="Whether this Airflow is part of a DR set. If off, the plugin registers nothing and has no cost.",
    ),
    Option(
        name="state_table",
        type="string",
        default="",
        allowed="names of DynamoDB tables",
        parse=str.strip,
        example="mwaa-dr-state",
        description="DynamoDB table with the state item. Required if enabled.",
    ),
    Option(
        name="state_source",
        type="string",
        default="dynamodb",
        allowed="dynamodb",
        parse=_source,
        example="dynamodb",
        description="Has no effect. It is accepted because the AWS sample has it.",
        is_setting=False,
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
        description="Regions of the replicas of the state table. The agent reads the nearest first, then the others.",
    ),
    Option(
        name="table_consistency",
        type="string",
        default="strong",
        allowed="strong and eventual",
        parse=_consistency,
        example="eventual",
        description="Consistency of the state table: strong for a table created with --multi-region-consistency STRONG "
        "or without replicas, eventual for any other global table. Set the same value in all regions.",
    ),
    Option(
        name="eventual",
        type="string",
        default="available",
        allowed="available and safe",
        parse=_eventual,
        example="safe",
        description="With table_consistency eventual: available lets a region use its own replica, and a region that "
        "is cut off continues until the link is back; safe lets it run only while all replicas can be read. Then "
        "the loss of one region holds the others until you set them to available.",
    ),
    Option(
        name="environments",
        type="string",
        default="",
        allowed=PAIRS,
        parse=parse_sites,
        example="us-east-2=etl-primary,us-east-1=etl-secondary",
        description="The two MWAA environments of the DR set. SITE is the environment's region, or a name if both are "
        "in one region, with the region after the @. Unset: the registry that mwaa-dr init wrote, and agents compare "
        "no values of variables, connections and pools.",
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
        name="history_days",
        type="integer",
        default="0",
        allowed="whole numbers from 0 to 3650",
        parse=_whole(0, 3650),
        example="30",
        description="Copy the runs that ended in this many last days, with their task instances, into the standby, so "
        "that it shows them as the active site does. 0: off. Needs runs_table, and the permissions CopyHistory.",
    ),
    Option(
        name="site",
        type="string",
        default="",
        allowed="ids of a site in environments",
        parse=parse_site_id,
        example="us-east-1",
        aliases=("region",),
        description="The site of this Airflow. Unset: AWS_REGION, which MWAA sets. The alias region has the same "
        "meaning.",
        stored_as="region",
    ),
    Option(
        name="notification_topic",
        type="string",
        default="",
        allowed="ARNs of SNS topics",
        parse=_topic,
        example="arn:aws:sns:us-west-2:123456789012:mwaa-dr",
        description="SNS topic for notifications: each failover sends when it starts, completes, is aborted or needs a "
        "person, and dr_monitor sends its findings. Unset: nothing is sent to a topic.",
    ),
    Option(
        name="notification_bus",
        type="string",
        default="",
        allowed="ARNs of event buses",
        parse=_bus,
        example="arn:aws:events:us-west-2:123456789012:event-bus/default",
        description="Event bus of EventBridge for the same notifications of failovers, as events with the source "
        "mwaa-dr. Unset: nothing is sent to a bus.",
    ),
    Option(
        name="notifiers",
        type="string",
        default="",
        allowed="import paths separated by commas",
        parse=_paths,
        example="dr_notifiers.slack,dr_notifiers.pagerduty",
        description="Airflow notifiers, or functions of one argument, for the same notifications of failovers: "
        "MODULE.NAME of an object in a package or in the plugins folder. Set them in both environments.",
    ),
    Option(
        name="cloudwatch_metrics",
        type="boolean",
        default="False",
        allowed="true and false",
        parse=_boolean,
        example="True",
        description="Whether each agent sends its metrics to CloudWatch twice a minute, in the namespace MWAA-DR. The "
        "execution role needs cloudwatch:PutMetricData. mwaa-dr deploy --alarms sets it.",
    ),
    Option(
        name="state_read_s",
        type="float",
        default="1",
        allowed="numbers from 0.2 to 60",
        parse=_seconds(0.2, 60),
        example="1",
        description="Seconds between two reads of the state by a scheduler's agent, and by a triggerer that has "
        "triggers. A value above refresh_s has the effect of refresh_s.",
    ),
    Option(
        name="refresh_s",
        type="float",
        default="5",
        allowed="numbers from 0.2 to 60",
        parse=_seconds(0.2, 60),
        example="5",
        description="Seconds between two turns of a scheduler's agent, in which it reads and changes the metadata "
        "database. A change of the state, and the end of a run, start a turn earlier.",
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
        "mwaa-dr init writes it into the state item. From then on the value in the state item applies.",
    ),
    Option(
        name="drain_s",
        type="float",
        default="60",
        allowed="numbers from 1 to 86400",
        parse=_seconds(1, 86400),
        example="60",
        description="Seconds that a graceful failover waits for running runs to finish.",
    ),
    Option(
        name="ledger_wait_s",
        type="float",
        default="300",
        allowed="numbers from 10 to 86400",
        parse=_seconds(10, 86400),
        example="300",
        description="Seconds that a region which becomes active waits for a ledger that cannot be used. "
        "Then it continues without the ledger, and mwaa-dr status lists what it could not take over.",
    ),
    Option(
        name="fence",
        type="boolean",
        default="True",
        allowed="true and false",
        parse=_boolean,
        example="True",
        description="Whether workers check the state before each task. If off, only the scheduler's gate protects.",
    ),
    Option(
        name="fence_file_s",
        type="float",
        default="1",
        allowed="numbers from 0 to 30",
        parse=_seconds(0, 30),
        example="1",
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
        description="What the active region does when its view is older than the lease. run may run an interval in "
        "both regions, skip loses intervals.",
    ),
    Option(
        name="exempt_dags",
        type="string",
        default="",
        allowed="DAG ids separated by commas",
        parse=lambda text: frozenset(_names(text)),
        example="dr_failover,dr_monitor",
        description=f"DAGs that are exempt from the provider, like those with the tag {CONTROL_TAG}.",
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
    _carry_option("variables"),
    _carry_option("connections"),
    _carry_option("pools"),
)


def parse_config(raw: Mapping[str, str | None]) -> DRConfig:
    """
    Parse the texts of options by name. Never raises: ``problems`` lists each wrong value, and its default is used.

    There are two exceptions to the default. An ``enabled`` that is neither true nor false counts as true: the opposite
    mistake, a standby that runs everything, is worse. Sites that contradict each other set ``contradiction``, which
    holds everything.

    :param raw: texts by name or alias of the option. None and blank text mean unset; unknown names are ignored.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    contradiction = ""
    for option in OPTIONS:
        text = option.text(raw)
        if text is None:
            text = option.default
        try:
            values[option.name] = option.parse(text)
        except SitesError as error:
            values[option.name] = option.parse(option.default)
            problem = f"[{SECTION}] {option.name} = {text!r} {error}"
            problems.append(f"{problem}.")
            if isinstance(error, SitesContradictionError):
                contradiction = contradiction or problem
        except ValueError:
            values[option.name] = True if option.name == "enabled" else option.parse(option.default)
            used = "True" if option.name == "enabled" else option.default
            problems.append(
                f"[{SECTION}] {option.name} = {text!r} is not understood; allowed are {option.allowed}. "
                + (f"{used} is used instead." if used else "It counts as unset.")
            )
    if not contradiction and (contradiction := _sites_contradiction(values)):
        problems.append(f"{contradiction}.")
    problems += _contradictions(values)
    settings = {option.field: values[option.name] for option in OPTIONS if option.is_setting}
    return DRConfig(**settings, problems=tuple(problems), contradiction=contradiction)


def _sites_contradiction(values: Mapping[str, Any]) -> str:
    """Return why these sites cannot use this table; empty if they can."""
    sites: Sites = values["environments"]
    if sites.has_names and values["table_consistency"] is TableConsistency.EVENTUAL:
        return (
            f"[{SECTION}] table_consistency is eventual, and the sites {' and '.join(sites)} have names: a copy of the "
            "table belongs to a region, so use the regions as ids in environments, or a table with strong consistency"
        )
    return ""


def _contradictions(values: Mapping[str, Any]) -> Sequence[str]:
    """Return a sentence for each pair of settings that contradict each other."""
    found = []
    if values["enabled"] and not values["state_table"]:
        found.append(
            f"[{SECTION}] state_table is not set: this Airflow cannot read its role and holds every run. "
            "Set it to the table of mwaa-dr init."
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
            f"{f'in {without[0]}' if without else 'but one'}: each region of the set needs a copy, and each agent and "
            "caller must know all copies. Name the regions of all replicas."
        )
    if values["fence_file_s"] >= values["lease_s"]:
        found.append(
            f"[{SECTION}] fence_file_s = {values['fence_file_s']:g} is not shorter than lease_s = "
            f"{values['lease_s']:g}: tasks would use a view that is older than the lease. Lower fence_file_s."
        )
    return found


def is_exempt(dag_id: str, tags: Collection[str], exempt_dags: Collection[str]) -> bool:
    """
    Return whether a DAG is exempt.

    :param exempt_dags: ``[dr] exempt_dags``.
    """
    return dag_id in exempt_dags or CONTROL_TAG in tags


def environment_texts(environ: Mapping[str, str]) -> dict[str, str | None]:
    """
    Return the texts of all options from the variables ``DR_<NAME>``, for :func:`parse_config`.

    The site falls back to ``AWS_REGION``, which MWAA sets, then to ``AWS_DEFAULT_REGION``.
    """
    texts = {
        option.name: option.text({name: environ.get(f"DR_{name.upper()}") for name in (option.name, *option.aliases)})
        for option in OPTIONS
    }
    fallbacks = (environ.get(name, "") for name in ("AWS_REGION", "AWS_DEFAULT_REGION"))
    texts["site"] = texts["site"] or next((text for text in fallbacks if text.strip()), None)
    return texts
