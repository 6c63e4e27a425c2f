"""Checks of the two environments: their settings, versions, sizes and clocks, and the resources that tasks need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.config import OPTIONS, Carry
from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.readiness.comparison import (
    DISTRIBUTION,
    INVENTORY_ADVICE,
    Difference,
    both_inventories,
    by_phrase,
    compare,
    not_checked,
    same_airflow,
    some,
)
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, Unknown, Verdict
from airflow_provider_mwaa_dr.core.readiness.refusals import ignores_lease, why_lease_is_ignored

CLOCK_S = 30.0
"""The greatest acceptable difference of clocks, in addition to the time that the check takes."""
INVENTORY_AGE = timedelta(minutes=45)
"""The greatest acceptable age of an inventory; an agent writes one every 15 minutes."""
_CLASSES = ("mw1.micro", "mw1.small", "mw1.medium", "mw1.large", "mw1.xlarge", "mw1.2xlarge")
_OWN_OPTIONS = frozenset({"region", "site", "state_table_region", "accepted_differences", "state_source"})
"""Settings that may differ between the regions. ``state_source`` has no effect; older agents list it."""
_LOGS = {
    "SchedulerLogs": (
        "scheduler",
        "has no line on the region's role, on held runs or on errors of the agent",
    ),
    "TaskLogs": ("task", "has no line on tasks that the fence holds or skips"),
}
"""The logs that the provider writes to, by their name in GetEnvironment, and the effect of a log without warnings."""
_LEVELS_WITH_WARNINGS = frozenset({"DEBUG", "INFO", "WARNING"})


def check_unreachable(facts: Facts) -> CheckResult:
    """Whether the active region stops when it cannot read the state, or cannot write its heartbeats."""
    if ignores_lease(facts.source.heartbeats):
        return CheckResult(
            name="unreachable",
            verdict=Verdict.WARN,
            why=f"{why_lease_is_ignored(facts.source.region)}; a forced failover is refused",
            advice=f"Set [dr] on_unreachable = hold in {facts.source.environment}.",
        )
    if not facts.source.heartbeats:
        return not_checked(
            "unreachable", f"{facts.source.region} has no heartbeat of an agent", "See the check agents."
        )
    return CheckResult(
        name="unreachable",
        verdict=Verdict.OK,
        why=f"{facts.source.region} stops by itself when it has not read the state, or its heartbeats were not stored, "
        f"for {facts.state.lease_s:g} s",
    )


def check_provider(facts: Facts) -> CheckResult:
    """Whether both regions and this machine have the same version of this provider."""
    found = {"this machine": {__version__}}
    doubts = []
    for region in facts.regions:
        versions = {agent.provider_version for agent in region.agents}
        if not versions and not isinstance(region.inventory, Unknown):
            versions = {region.inventory.packages.get(DISTRIBUTION, "")} - {""}
        if versions:
            found[region.region] = versions
        else:
            doubts.append(f"the version of {region.region} is unknown")
    differ = len({version for versions in found.values() for version in versions}) > 1
    shown = ", ".join(f"{who} has {' and '.join(sorted(versions))}" for who, versions in found.items())
    return compare(
        "provider",
        facts,
        [Difference(Verdict.WARN, shown, ["version"], value_of=True)] if differ else [],
        fine=f"{__version__} in both regions and on this machine",
        advice="Pin the same version of airflow-provider-mwaa-dr in both requirements.txt files, the standby first, "
        "and on this machine.",
        doubts=doubts,
    )


def check_airflow(facts: Facts) -> CheckResult:
    """Whether both environments have the same version of Airflow."""
    found, doubts = {}, []
    for region in facts.regions:
        version = None if isinstance(region.description, Unknown) else region.description.airflow_version
        version = version or next((agent.airflow_version for agent in region.heartbeats), None)
        if version:
            found[region.region] = version
        else:
            doubts.append(f"the version of {region.region} is unknown")
    versions = set(found.values())
    shown = ", ".join(f"{version} in {region}" for region, version in found.items())
    return compare(
        "airflow",
        facts,
        [Difference(Verdict.WARN, shown, ["version"], value_of=True)] if len(versions) > 1 else [],
        fine=shown,
        advice="A failover works, but runs may change their logical dates. To upgrade the older environment, fail over "
        "to the newer one, or upgrade in place, the standby first.",
        doubts=doubts,
    )


def check_identity(facts: Facts) -> CheckResult:
    """Whether an environment claims a region whose environment it is not."""
    problems = sorted({claim.problem for region in facts.regions for claim in region.identity_claims})
    if problems:
        return CheckResult(
            name="identity",
            verdict=Verdict.WARN,
            why="; ".join(problems),
            advice="Correct the name or the region of the environment. Until then it holds every run.",
        )
    return CheckResult(name="identity", verdict=Verdict.OK, why="no environment claims the region of another one")


_DEFAULTS = {option.field: option.default for option in OPTIONS if option.field.startswith("carry_")}
"""Options that an earlier version does not list. Its agent behaves as with their defaults."""


def _option(inventory: Inventory, name: str) -> str | None:
    return inventory.options.get(name, _DEFAULTS.get(name))


def check_settings(facts: Facts) -> CheckResult:
    """Whether the section ``[dr]`` is valid, and the same in both regions."""
    problems = sorted({each for region in facts.regions for agent in region.agents for each in agent.problems})
    both = both_inventories(facts)
    differences, doubts = [], []
    if isinstance(both, Unknown):
        doubts.append(f"not compared: {both.why}")
    else:
        target, source = both
        named = (target.options.keys() | source.options.keys()) - _OWN_OPTIONS
        differ = {name for name in named if _option(target, name) != _option(source, name)}
        for name in sorted(differ):
            values = " and ".join(f"{each.options.get(name) or 'unset'} in {each.region}" for each in both)
            differences.append(Difference(Verdict.WARN, values, [name], value_of=True))
        for each in both:
            lease = each.options.get("lease_s")
            if lease is not None and float(lease) != facts.state.lease_s:
                doubts.append(
                    f"lease_s = {lease} in {each.region} has no effect: the state has {facts.state.lease_s:g}"
                )
    return compare(
        "settings",
        facts,
        differences,
        fine="[dr] is the same in both regions",
        advice="Set the same options in section [dr] of both environments, the standby first; each change restarts an "
        "environment.",
        doubts=[*problems, *doubts],
    )


def check_options(facts: Facts) -> CheckResult:
    """Whether the environments have the same Airflow configuration options. Values are compared, but never shown."""
    target, source = facts.target.description, facts.source.description
    unknown = [region for region in facts.regions if isinstance(region.description, Unknown)]
    if isinstance(target, Unknown) or isinstance(source, Unknown):
        why = "; ".join(f"{region.region}: {region.description.why}" for region in unknown)  # type: ignore[union-attr]
        return not_checked("options", why, "Repeat the check when both environments answer GetEnvironment.")
    own = {f"dr.{name}" for name in _OWN_OPTIONS}
    names = (target.options.keys() | source.options.keys()) - own - _renamed(facts)
    return compare(
        "options",
        facts,
        [
            Difference(
                Verdict.WARN,
                f"only in {facts.source.environment}",
                [name for name in names if name not in target.options],
            ),
            Difference(
                Verdict.WARN,
                f"only in {facts.target.environment}",
                [name for name in names if name not in source.options],
            ),
            Difference(
                Verdict.WARN,
                "with different values",
                [
                    name
                    for name in names
                    if name in target.options
                    and name in source.options
                    and target.options[name] != source.options[name]
                ],
            ),
        ],
        fine=f"{counted(len(names), 'option')}, the same in both environments",
        advice="Set the same Airflow configuration options in both environments, or declare the difference: "
        "accepted_differences = options:NAME.",
    )


def _renamed(facts: Facts) -> set[str]:
    """Return old and new names of the options that the check ``renamed`` examines."""
    inventories = [each.inventory for each in facts.regions if not isinstance(each.inventory, Unknown)]
    changes = [each.upgrade.changed_options for each in inventories if each.upgrade is not None]
    options = [each.description.options for each in facts.regions if not isinstance(each.description, Unknown)]
    used = {name for each in options for name in each}
    return {name for each in changes for old, new in each.items() if old in used for name in (old, new)}


def check_logs(facts: Facts) -> CheckResult:
    """Whether the scheduler's and the task's log of each environment show warnings."""
    sentences, fine = [], []
    for region in facts.regions:
        if isinstance(region.description, Unknown):
            sentences.append(f"not checked: {region.description.why}")
            continue
        logs = region.description.logs
        if logs is None:
            fine.append(f"{region.environment}: GetEnvironment returns no log settings")
            continue
        for key, (name, effect) in _LOGS.items():
            level = logs.get(key)
            if level not in _LEVELS_WITH_WARNINGS:
                how = "off" if level is None else f"at the level {level}"
                sentences.append(f"the {name} log of {region.environment} is {how}, and {effect}")
        fine.append(f"{region.environment}: the logs show warnings")
    if not sentences:
        return CheckResult(name="logs", verdict=Verdict.OK, why="; ".join(fine))
    return CheckResult(
        name="logs",
        verdict=Verdict.WARN,
        why="; ".join(sentences),
        advice="Use mwaa-dr status instead of these logs, or enable the logs with the level WARNING or INFO. The "
        "change restarts the environment.",
    )


def check_clocks(facts: Facts) -> CheckResult:
    """Whether the clocks agree. No decision depends on them, but the times in records do."""
    live = [agent for region in facts.regions for agent in region.agents]
    if not live:
        return not_checked("clocks", "no agent is alive", "See the check agents.")
    allowed_s = CLOCK_S + facts.silence_s
    off = {
        agent: seconds
        for agent in live
        if not -CLOCK_S <= (seconds := (facts.at - agent.at).total_seconds()) <= allowed_s
    }
    if not off:
        return CheckResult(name="clocks", verdict=Verdict.OK, why=f"within {CLOCK_S:g} s of this machine's clock")
    shown = [
        f"{agent.host} in {agent.region} is {abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} this machine"
        for agent, seconds in off.items()
    ]
    return CheckResult(
        name="clocks",
        verdict=Verdict.WARN,
        why=some(shown),
        advice="Correct the clocks, this machine's first: no decision depends on them, but the times in records do.",
    )


def check_inventory(facts: Facts) -> CheckResult:
    """Whether the agents have listed what their regions contain; other checks compare these inventories."""
    sentences, fine = [], []
    for region in facts.regions:
        errors = sorted({agent.inventory_error for agent in region.agents if agent.inventory_error})
        if isinstance(region.inventory, Unknown):
            sentences.append(f"no inventory of {region.region}: {'; '.join(errors) or region.inventory.why}")
            continue
        age = facts.at - region.inventory.taken_at
        if age > INVENTORY_AGE:
            sentences.append(f"the inventory of {region.region} is {age.total_seconds() / 60:.0f} minutes old")
        # An agent that no longer leads keeps its last error.
        sentences += [
            f"{agent.region}: {agent.inventory_error}"
            for agent in region.agents
            if agent.inventory_error and agent.schedulers[:1] == (agent.job,)
        ]
        fine.append(f"{region.region}: {len(region.inventory.dags)} DAGs, {len(region.inventory.packages)} packages")
    if sentences:
        return CheckResult(
            name="inventory",
            verdict=Verdict.WARN,
            why="; ".join(sentences),
            advice="The region's agent writes it within minutes after the scheduler starts. The agent's role may need "
            "dynamodb:PutItem and DeleteItem on the keys INVENTORY#REGION*; the scheduler's log has the error. For a "
            "public key, do what the message says.",
        )
    return CheckResult(name="inventory", verdict=Verdict.OK, why="; ".join(fine))


def _check_keyed(kind: str, facts: Facts, *, advice: str) -> CheckResult:
    """Compare the objects of one kind in both metadata databases, by name and by keyed fingerprint."""
    both = both_inventories(facts)
    if isinstance(both, Unknown):
        return not_checked(kind, both.why, INVENTORY_ADVICE)
    target, source = both
    copies = _Copies.of(kind, target, source)
    in_target, in_source = frozenset(target.names.get(kind, ())), frozenset(source.names.get(kind, ()))
    differences = [
        Difference(Verdict.FAIL, f"missing in {facts.target.region}", in_source - in_target),
        Difference(Verdict.WARN, f"missing in {facts.source.region}", in_target - in_source),
    ]
    doubts = []
    of_target, of_source = target.fingerprints.get(source.region), source.fingerprints.get(target.region)
    if of_target is not None and of_source is not None and of_target.key_id == of_source.key_id:
        prints, other = of_target.values.get(kind, {}), of_source.values.get(kind, {})
        differ = {name for name in in_target & in_source if prints.get(name) != other.get(name)}
        kept, differ = differ & copies.kept, differ - copies.kept
        why_kept = f"changed in {facts.target.region}, so not replaced by the value of {facts.source.region}"
        differences.append(Difference(Verdict.WARN, why_kept, kept))
        differences.append(Difference(Verdict.WARN, "with different values", differ))
    elif in_target & in_source:
        doubts.append(
            "values not compared: the two agents have not agreed on a key; both must be alive to do so, and the check "
            "inventory must find no error"
        )
    return compare(
        kind,
        facts,
        differences,
        fine=f"the same in both regions: {some(sorted(in_target))}" if in_target else f"no {kind} in the databases",
        advice=copies.advice or advice,
        doubts=[*doubts, *copies.doubts],
        notes=copies.notes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copies:
    """What the agents report about copies of settings of one kind; empty if they copy none."""

    kept: frozenset[str] = frozenset()
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    advice: str = ""

    @classmethod
    def of(cls, kind: str, target: Inventory, source: Inventory) -> _Copies:
        """Return the copies from *source* to *target*."""
        reports = {each.region: each.settings for each in (target, source) if each.settings is not None}
        modes = {region: report.mode(kind) for region, report in reports.items()}
        if not modes or set(modes.values()) == {Carry.REPORT}:
            return cls()
        doubts, notes = [], []
        for region, report in sorted(reports.items()):
            if report.problem is not None:
                doubts.append(f"{region}: {report.problem}")
            if names := report.uncarried.get(kind):
                doubts.append(f"{region} cannot copy (unreadable, of a team, too large or refused): {some(names)}")
            if report.elsewhere:
                notes.append(f"never copied from {region}: {some(report.elsewhere)}")
        kept = target.settings.kept.get(kind, ()) if target.settings is not None else ()
        mode = modes.get(target.region, Carry.REPORT)
        return cls(
            kept=frozenset(kept),
            doubts=tuple(doubts),
            notes=(f"the agent of {target.region} copies with mode {mode.value}", *notes),
            advice=f"Wait some minutes: the agents copy what [dr] carry_{kind} allows. To give {target.region} the "
            f"value of {source.region} in place of its own, delete it in {target.region}. Or declare the difference: "
            f"accepted_differences = {kind}:NAME.",
        )


def check_pools(facts: Facts) -> CheckResult:
    """Whether the pools are the same in both regions."""
    return _check_keyed(
        "pools",
        facts,
        advice="Create the pool with the same size in both regions (airflow pools export, import), or declare the "
        "difference: accepted_differences = pools:NAME.",
    )


def check_variables(facts: Facts) -> CheckResult:
    """Whether the variables in the metadata databases are the same; a secrets backend is not read."""
    return _check_keyed(
        "variables",
        facts,
        advice="Copy the variable (airflow variables set), or store it in a replicated secrets backend. If its value "
        "must differ between the regions, declare the difference: accepted_differences = variables:NAME.",
    )


def check_connections(facts: Facts) -> CheckResult:
    """Whether the connections in the metadata databases are the same; a secrets backend is not read."""
    return _check_keyed(
        "connections",
        facts,
        advice="Copy the connection (airflow connections add), or store it in a replicated secrets backend. If it must "
        "differ between the regions, declare the difference: accepted_differences = connections:NAME.",
    )


def check_packages(facts: Facts) -> CheckResult:
    """
    Whether both schedulers have the same Python packages. If the versions of Airflow differ, whether both have the same
    packages in the same major versions.
    """
    both = both_inventories(facts)
    if isinstance(both, Unknown):
        return not_checked("packages", both.why, INVENTORY_ADVICE)
    target, source = both
    ignored = {DISTRIBUTION}  # the check "provider" compares it
    in_target, in_source = target.packages.keys() - ignored, source.packages.keys() - ignored
    other = {name for name in in_target & in_source if target.packages[name] != source.packages[name]}
    if same_airflow(facts):
        differences = [Difference(Verdict.WARN, "in different versions", other)]
        fine = f"{len(in_target)} packages, the same in both schedulers"
    else:
        # The images of two versions of Airflow differ in most packages.
        versions: dict[str, set[str]] = {}
        for name in other - {"apache-airflow"}:  # the check "airflow" compares it
            ours, theirs = target.packages[name], source.packages[name]
            if ours.partition(".")[0] != theirs.partition(".")[0]:
                versions.setdefault(f"{theirs} in {source.region} and {ours} in {target.region}", set()).add(name)
        differences = list(by_phrase(Verdict.WARN, versions, others="in different major versions"))
        fine = f"{len(in_target)} packages, none of them in another major version"
    return compare(
        "packages",
        facts,
        [
            Difference(Verdict.WARN, f"missing in {facts.target.region}", in_source - in_target),
            Difference(Verdict.WARN, f"missing in {facts.source.region}", in_target - in_source),
            *differences,
        ],
        fine=fine,
        advice="Use the same requirements.txt, with pinned versions, in both environments; the scheduler's "
        "requirements_install log shows failed installations.",
    )


def check_capacity(facts: Facts) -> CheckResult:
    """Whether the target is at least as large as the source: environment class, workers and schedulers."""
    target, source = facts.target.description, facts.source.description
    if isinstance(target, Unknown):
        return not_checked("capacity", target.why, "Repeat the check when the target answers GetEnvironment.")
    if isinstance(source, Unknown):
        return not_checked("capacity", source.why, "Repeat the check when the source answers GetEnvironment.")
    smaller = {
        "class": _is_smaller(target.environment_class, source.environment_class),
        "max_workers": (target.max_workers or 0) < (source.max_workers or 0),
        "min_workers": (target.min_workers or 0) < (source.min_workers or 0),
        "schedulers": (target.schedulers or 0) < (source.schedulers or 0),
    }
    sizes = {
        "class": (target.environment_class, source.environment_class),
        "max_workers": (target.max_workers, source.max_workers),
        "min_workers": (target.min_workers, source.min_workers),
        "schedulers": (target.schedulers, source.schedulers),
    }
    return compare(
        "capacity",
        facts,
        [
            Difference(
                Verdict.WARN,
                f"{of_target} in {facts.target.environment}, {of_source} in {facts.source.environment}",
                [name],
                value_of=True,
            )
            for name, (of_target, of_source) in sizes.items()
            if smaller[name]
        ],
        fine=f"{facts.target.environment} is not smaller than {facts.source.environment}: {target.environment_class}, "
        f"up to {target.max_workers} workers",
        advice="Make the target as large as the source now: an update takes 20 to 30 minutes, too long in an outage. "
        "If the target is smaller on purpose, declare the difference: accepted_differences = capacity:NAME.",
    )


def _is_smaller(one: str | None, other: str | None) -> bool:
    if one in _CLASSES and other in _CLASSES:
        return _CLASSES.index(one) < _CLASSES.index(other)
    return one != other
