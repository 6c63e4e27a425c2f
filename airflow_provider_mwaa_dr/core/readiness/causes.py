"""The causes behind the results of the checks: a lost region is one finding, and not one for each check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, RegionFacts, Unknown, Verdict, no_agent
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS

_GONE = "\0"
_WORST = (Verdict.OK, Verdict.WARN, Verdict.FAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    A cause, or the result of a check that has a cause of its own.

    :param name: of the check; of the region if the region is lost.
    :param why: what was found.
    :param advice: what to do; empty if no action is necessary.
    :param hides: the checks that have no answer for this reason.
    """

    name: str
    verdict: Verdict
    why: str
    advice: str
    hides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """
    :param phrases: the parts of a check's text that repeat the cause.
    """

    name: str
    why: str
    advice: str
    phrases: frozenset[str]


def findings(facts: Facts, results: Sequence[CheckResult]) -> Sequence[Finding]:
    """
    Return the results in their order, without what repeats a common cause; the common causes come first.

    A check that has no other finding is only named in its cause. The verdict of a cause is the worst of these checks.
    """
    hidden: dict[str, list[CheckResult]] = {}
    own: list[Finding] = []
    causes = list(_causes(facts, {result.name: result for result in results}))
    for result in results:
        named, why = _without_causes(result.why, causes) if result.verdict is not Verdict.OK else ([], result.why)
        if named and not why:
            for cause in named:
                hidden.setdefault(cause.name, []).append(result)
            continue
        advice = _advice(facts, result, why) if named else result.advice
        own.append(Finding(name=result.name, verdict=result.verdict, why=why, advice=advice))
    return [
        *(
            Finding(
                name=cause.name,
                verdict=max((each.verdict for each in hidden[cause.name]), key=_WORST.index),
                why=cause.why,
                advice=cause.advice,
                hides=tuple(each.name for each in hidden[cause.name] if each.name != cause.name),
            )
            for cause in causes
            if cause.name in hidden
        ),
        *own,
    ]


def is_lost(region: RegionFacts) -> bool:
    """Whether neither the environment of the region nor an agent answers."""
    return not region.agents and _no_answer(region) is not None


def _no_answer(region: RegionFacts) -> str | None:
    """Return why the environment does not answer; None if it does."""
    if isinstance(region.status, Unknown):
        return region.status.why
    if not region.status.is_usable:
        return f"environment {region.environment} is {region.status.value}"
    return region.is_healthy.why if isinstance(region.is_healthy, Unknown) else None


def _causes(facts: Facts, results: dict[str, CheckResult]) -> Iterator[_Cause]:
    for region in facts.regions:
        silent, agentless = _silent_phrases(region), _agentless_phrases(region)
        if is_lost(region):
            advice = results["environment"].advice
            if region is facts.source:
                advice = (
                    f"If the region is lost: mwaa-dr failover {facts.target.region} --reason TEXT. If not, check "
                    f"{region.environment} in the MWAA console."
                )
            inventory = _inventory_phrases(region)
            yield _Cause(
                name=region.region,
                why=f"does not answer: {_no_answer(region)}. No agent is alive.",
                advice=region.advice or advice,
                phrases=frozenset({*silent, *agentless, *inventory}),
            )
        elif (why := _no_answer(region)) is not None:
            name = "scheduler" if isinstance(region.is_healthy, Unknown) else "environment"
            yield _Cause(name=name, why=why, advice=_refusal_advice(name, facts, region), phrases=silent)
        elif not region.agents:
            problems = {refusal.name: refusal for refusal in REFUSALS}["agents"].problems(region)
            yield _Cause(
                name="agents",
                why="; ".join(problems),
                advice=_refusal_advice("agents", facts, region),
                phrases=agentless,
            )
    without = [region for region in facts.regions if isinstance(region.inventory, Unknown) and not is_lost(region)]
    if without and "inventory" in results:
        phrases = frozenset(phrase for region in without for phrase in _inventory_phrases(region))
        yield _Cause(
            name="inventory",
            why="; ".join(f"no inventory of {each.region}: {_why(each)}" for each in without),
            advice=results["inventory"].advice,
            phrases=phrases,
        )


def _why(region: RegionFacts) -> str:
    return region.inventory.why if isinstance(region.inventory, Unknown) else ""


def _silent_phrases(region: RegionFacts) -> frozenset[str]:
    """Return the texts with which checks say that the environment does not answer."""
    unknown = (region.status, region.is_healthy, region.description, region.may_change, region.dags)
    phrases = {each.why for each in unknown if isinstance(each, Unknown)}
    phrases.add(f"Airflow in {region.environment} was not called: the environment is not usable")
    if (why := _no_answer(region)) is not None:
        phrases.add(why)
    return frozenset(phrases)


def _agentless_phrases(region: RegionFacts) -> frozenset[str]:
    """Return the texts with which checks say that no agent of the region is alive."""
    (agents,) = (refusal for refusal in REFUSALS if refusal.name == "agents")
    return frozenset({*agents.problems(region), *no_agent(region), f"the version of {region.region} is unknown"})


def _inventory_phrases(region: RegionFacts) -> frozenset[str]:
    """Return the texts with which checks say that the region has no inventory."""
    if not isinstance(region.inventory, Unknown):
        return frozenset()
    return frozenset({f"no inventory of {region.region}: {region.inventory.why}", "no inventory of either region"})


def _without_causes(why: str, causes: Sequence[_Cause]) -> tuple[list[_Cause], str]:
    """Return the causes that *why* repeats, and its other sentences."""
    named = []
    for cause in causes:
        found = sorted((phrase for phrase in cause.phrases if phrase in why), key=len, reverse=True)
        for phrase in found:
            why = why.replace(phrase, _GONE)
        if found:
            named.append(cause)
    return named, "; ".join(sentence for sentence in why.split("; ") if _GONE not in sentence)


def _advice(facts: Facts, result: CheckResult, why: str) -> str:
    """Return the advice of a result for the region that is left in *why*."""
    for refusal in REFUSALS:
        if refusal.name == result.name:
            for region in facts.regions:
                if any(each in why for each in (*refusal.problems(region), *refusal.doubts(region))):
                    return refusal.advice_for(facts, region)
    return result.advice


def _refusal_advice(name: str, facts: Facts, region: RegionFacts) -> str:
    (refusal,) = (each for each in REFUSALS if each.name == name)
    return refusal.advice_for(facts, region)
