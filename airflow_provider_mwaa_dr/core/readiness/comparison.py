"""Comparisons of two regions: differences, without those that the settings accept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from airflow_provider_mwaa_dr.core.inventory import Inventory, UpgradeFacts
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, Unknown, Verdict

_SHOWN = 10
"""The most elements of a list in a message."""
DISTRIBUTION = "airflow-provider-mwaa-dr"
UPGRADE_ADVICE = (
    "See the check inventory. An agent of an earlier version does not list this: install the same version of "
    f"{DISTRIBUTION} in both environments."
)
INVENTORY_ADVICE = "The region's agent writes it within minutes after the scheduler starts; see the check inventory."


@dataclass(frozen=True, slots=True)
class Difference:
    """
    Things that differ in the same way.

    :param phrase: the text before the names; with *value_of*, the text after them.
    """

    verdict: Verdict
    phrase: str
    names: Collection[str]
    value_of: bool = False


def compare(
    name: str,
    facts: Facts,
    differences: Iterable[Difference],
    *,
    fine: str,
    advice: str,
    doubts: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> CheckResult:
    """
    Return a result from differences, without those that the settings accept.

    :param doubts: comparisons that were not possible, a sentence each.
    :param notes: sentences that are part of every result, and no finding.
    """
    verdict, sentences, accepted = Verdict.OK, [], set()
    for difference in differences:
        names = [each for each in sorted(difference.names) if not _accepts(facts, name, each)]
        accepted |= set(difference.names) - set(names)
        if names:
            words = (some(names), difference.phrase) if difference.value_of else (difference.phrase, some(names))
            sentences.append(": ".join(words))
            if verdict is not Verdict.FAIL:
                verdict = difference.verdict
    for doubt in doubts:
        sentences.append(doubt)
        verdict = Verdict.WARN if verdict is Verdict.OK else verdict
    sentences += notes
    if accepted:
        sentences.append(f"accepted: {some(sorted(accepted))}")
    if verdict is Verdict.OK:
        return CheckResult(name=name, verdict=verdict, why="; ".join([fine, *sentences]))
    return CheckResult(name=name, verdict=verdict, why="; ".join(sentences), advice=advice)


def _accepts(facts: Facts, check: str, name: str) -> bool:
    return any(fnmatchcase(f"{check}:{name}", pattern) for pattern in facts.settings.accepted_differences)


def some(names: Sequence[str]) -> str:
    """Return the first of *names*, and the number of the others."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def both_inventories(facts: Facts) -> tuple[Inventory, Inventory] | Unknown:
    """Return the inventories of target and source, or why one of them is missing."""
    target, source = facts.target.inventory, facts.source.inventory
    if isinstance(target, Unknown):
        return Unknown(f"no inventory of {facts.target.region}: {target.why}")
    if isinstance(source, Unknown):
        return Unknown(f"no inventory of {facts.source.region}: {source.why}")
    return target, source


def both_upgrade_facts(facts: Facts) -> tuple[UpgradeFacts, UpgradeFacts] | Unknown:
    """Return what another version of Airflow may change, of target and source, or why it is unknown."""
    both = both_inventories(facts)
    if isinstance(both, Unknown):
        return both
    target, source = (each.upgrade for each in both)
    if target is None or source is None:
        return older_version(both[0] if target is None else both[1])
    return target, source


def older_version(inventory: Inventory) -> Unknown:
    """Return why an inventory does not have what this version lists."""
    version = inventory.packages.get(DISTRIBUTION) or "its version"
    return Unknown(f"the agent of {inventory.region} does not list this ({DISTRIBUTION} {version})")


def same_airflow(facts: Facts) -> bool:
    """Whether both regions have the same version of Airflow, by their inventories; True if one has none."""
    both = both_inventories(facts)
    return isinstance(both, Unknown) or len({each.packages.get("apache-airflow") for each in both}) == 1


def by_phrase(verdict: Verdict, phrases: Mapping[str, Collection[str]], *, others: str) -> Iterable[Difference]:
    """
    Yield a difference for each phrase, the one with the most names first.

    :param phrases: names by what differs; shown before the phrase.
    :param others: the phrase for all names after the first ten phrases.
    """
    ordered = sorted(phrases.items(), key=lambda each: (-len(each[1]), sorted(each[1])))
    for phrase, names in ordered[:_SHOWN]:
        yield Difference(verdict, phrase, names, value_of=True)
    yield Difference(verdict, others, {name for _, names in ordered[_SHOWN:] for name in names})


def not_checked(name: str, why: str, advice: str) -> CheckResult:
    return CheckResult(name=name, verdict=Verdict.WARN, why=f"not checked: {why}", advice=advice)
