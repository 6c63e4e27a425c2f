"""The document of ``mwaa-dr status`` as text: roles, problems, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_mwaa_dr.cli.console import Console, table
from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.core.state import Phase, Stage
from airflow_provider_mwaa_dr.core.status import plan_meaning
from airflow_provider_mwaa_dr.core.timing import Timing

SHOWN_RUNS = 20
"""Maximum number of runs shown from a list."""


def status_text(document: Mapping[str, Any], names: Mapping[str, str], timing: Timing, console: Console) -> str:
    """
    Return the document as text. A line that needs attention begins with ``!``.

    :param names: name of the environment by region; empty if unknown.
    """
    regions = document["regions"]
    state = f"epoch {document['epoch']}, version {document['version']}, {document['phase']}"
    so_far = f"{counted(document['failover_count'], 'failover')} so far."
    if document["problems"]:
        blocks = ["\n".join((*_unknown(document, console), f"State item: {state}. {so_far}"))]
    else:
        blocks = [f"{document['active_region']} is active: {state}.\n{so_far}"]
    if document["plan"] is not None:
        blocks.append("\n".join(_plan(document, timing, console)))
    blocks.append(_table(regions, names, console.columns))
    for region in regions:
        notes = "\n".join(_notes(document, region, timing, console))
        if notes:
            blocks.append(f"{region}\n{notes}")
    return "\n\n".join(blocks)


def _unknown(document: Mapping[str, Any], console: Console) -> Iterator[str]:
    """Yield why no region has a role, and how to give one to a region."""
    yield console.alarm("! No region has a role, and every region holds every run:")
    yield from (f"  {problem}" for problem in document["problems"])
    yield "  To make a region active in spite of the state item:"
    yield from (f"    mwaa-dr failover {region} --reason TEXT" for region in document["regions"])


def _plan(document: Mapping[str, Any], timing: Timing, console: Console) -> Iterator[str]:
    """Yield the open plan and its phase, and the commands that resume or cancel it."""
    plan, phase = document["plan"], Phase(document["phase"])
    source, target = plan["from"], plan["to"]
    yield f"PLAN OPEN: {plan['id']}, {source} -> {target} ({plan['mode']}), by {plan['by']}: {plan['reason']}"
    yield f"  {phase.value}: {plan_meaning(plan, phase)}."
    silent_s = plan["silent_s"]
    if plan["hold"] is not None and plan["hold"]["is_halted"]:
        yield from _halted(document, console)
        return
    is_finished_by_agent = phase is not Phase.DRAINING and document["regions"].get(target, {}).get("schedulers")
    if silent_s <= timing.takeover_s:
        yield f"  Its owner sent a heartbeat {silent_s:.0f} s ago."
    elif is_finished_by_agent:
        yield f"  Its owner has been silent for {silent_s:.0f} s; an agent of {target} finishes it."
    else:
        still = "no new run starts in any region" if phase is not Phase.RESUMING else "some DAGs may still be paused"
        yield console.alarm(f"! It is stalled: its owner has been silent for {silent_s:.0f} s, and {still}.")
    if source == target:
        yield f"  Resume it: mwaa-dr failover {target} --reason TEXT"
        return
    yield f"  Follow or resume it: mwaa-dr failover {target} --reason TEXT"
    back = "Cancel it" if phase is Phase.DRAINING else "Fail back instead"
    yield f"  {back}: mwaa-dr failover {source} --reason TEXT"


def _halted(document: Mapping[str, Any], console: Console) -> Iterator[str]:
    """Yield since when the plan is halted, what happens when the time is over, and the commands that go on."""
    plan, hold = document["plan"], document["plan"]["hold"]
    source, target, silent_s = plan["from"], plan["to"], plan["silent_s"]
    stage = Stage(hold["stage"])
    left_s = hold["hold_s"] - silent_s
    yield (
        f"  It is halted at {stage.value} for steps of users, since {document['last_updated']} ({silent_s:.0f} s ago). "
        "No region executes."
    )
    if stage is Stage.PROMOTED:
        end = f"an agent of {target} finishes it, because {hold['hold_s']:.0f} s were allowed"
        yield f"  In {left_s:.0f} s, {end}." if left_s > 0 else f"  The time is over: {end}."
    elif left_s > 0:
        yield f"  In {left_s:.0f} s, the agents raise an alarm. No component promotes {target}."
    else:
        yield console.alarm(
            f"! No caller has continued it within {hold['hold_s']:.0f} s. Find out whether your data has moved to "
            f"{target}, and then continue or cancel it."
        )
    yield f"  Continue it: mwaa-dr failover {target} --reason TEXT"
    if stage is Stage.DRAINED:
        yield f"  Continue it to the next stage: mwaa-dr failover {target} --until promoted --reason TEXT"
        yield f"  Cancel it: mwaa-dr failover {source} --reason TEXT"
    else:
        yield f"  Fail back instead: mwaa-dr failover {source} --reason TEXT"


def _table(regions: Mapping[str, Mapping[str, Any]], names: Mapping[str, str], columns: int | None) -> str:
    rows = [("REGION", "ENVIRONMENT", "ROLE", "AGENT", "SCHEDULERS", "FENCE", "LEDGER LAG", "MWAA")]
    for region, found in regions.items():
        age_s, lag_s = found["agent_age_s"], found["ledger_lag_s"]
        rows.append(
            (
                region,
                names[region] or "-",
                found["role"],
                "never seen" if age_s is None else f"{age_s:.0f} s ago",
                str(found["schedulers"]),
                {True: "ok", False: "MISSING", None: "not seen yet"}[found["fence_ok"]],
                "UNUSABLE" if found["ledger_error"] else ("-" if lag_s is None else f"{lag_s:.0f} s"),
                found["environment_status"] or "no answer",
            )
        )
    return table(rows, columns)


def _notes(document: Mapping[str, Any], region: str, timing: Timing, console: Console) -> Iterator[str]:
    """Yield the notes below the table for one region: problems first."""
    found: Mapping[str, Any] = document["regions"][region]
    is_active = found["role"] == Role.ACTIVE.value
    for claim in found["claims"]:
        yield console.alarm(f"! an environment holds every run: {claim['problem']}")
    if found["unpublished"] is not None:
        yield from _unpublished(found["unpublished"], console)
    if found["held_tasks"] is not None:
        held = found["held_tasks"]
        yield console.alarm(f"! its fence has held tasks since {held['since']}: {held['why']}")
    if not found["schedulers"]:
        if found["agent_age_s"] is not None:
            yield console.alarm(f"! its schedulers have sent no heartbeat for {found['agent_age_s']:.0f} s")
            if is_active:
                yield "    If it can read the state table and not write it, it starts no run after the lease."
            others = [other for other, each in document["regions"].items() if other != region and each["schedulers"]]
            if is_active and others and document["plan"] is None:
                yield f"    If the region is lost: mwaa-dr failover {others[0]} --reason TEXT"
        return
    for problem in found["problems"]:
        yield console.alarm(f"! a setting is wrong: {problem}")
    if found["held_because"] is not None:
        yield console.alarm(f"! it holds every run, and closes none: {found['held_because']}")
    if found["fence_ok"] is False:
        yield console.alarm("! a task ended without the fence")
        yield "    Check that its workers have the provider, and that [dr] enabled is set."
    if found["ledger_error"]:
        yield console.alarm(f"! its ledger cannot be used: {found['ledger_error']}")
        yield f"    {_ledger_cost(document, found, is_active=is_active)}"
    elif (found["ledger_lag_s"] or 0.0) > timing.agent_silence_s:
        yield console.alarm(
            f"! its ledger is {found['ledger_lag_s']:.0f} s behind: if the region is lost now, runs that ended since "
            "then run again"
        )
    if found["reconciled_epoch"] is not None and found["reconciled_epoch"] != document["epoch"]:
        unreconciled = (
            f"it has not reconciled its open runs of epoch {found['reconciled_epoch']} yet: "
            f"it starts no run, and {found['leftovers']} of them are still open"
        )
        # During a failover this is expected.
        yield f"  {unreconciled}" if document["plan"] is not None else console.alarm(f"! {unreconciled}")
    elif found["leftovers"]:
        yield console.alarm(f"! open runs that do not belong to this region, not closed yet: {found['leftovers']}")
    for gap in found["unread"]:
        yield console.alarm(f"! {gap}")
        yield (
            "    Runs that may have ended in it do not start again until a later checkpoint of that ledger can be read."
        )
    if found["waiting"]:
        yield console.alarm("! interrupted runs that wait, and that no region resumes:")
        yield from (f"    {run}" for run in found["waiting"])
        yield "    Each starts by itself when its reason is gone. If the reason stays, trigger the run by hand."
    if found["repeats"]:
        yield console.alarm("! resumed runs that request other runs again; the work of those is done twice:")
        yield from (f"    {run}" for run in found["repeats"])
    if found["final"] is not None and document["plan"] is not None and found["final"] == document["plan"]["id"]:
        yield "  its ledger is complete for this plan"
    if found["unguarded_triggerers"]:
        jobs = ", ".join(found["unguarded_triggerers"])
        yield console.alarm(f"! triggerers run asset watchers and do not load the provider: job {jobs}")
        yield "    As a standby, the region loses the messages that they take. Install the provider, and restart them."
    if found["inventory_error"]:
        yield f"  its inventory is incomplete or missing: {found['inventory_error']}"
    if found["settings_problem"]:
        yield f"  copies of settings: {found['settings_problem']}"
    if found["history_error"]:
        yield f"  its history is not copied, and nothing waits for it: {found['history_error']}"
    yield from (f"  history: {text}" for text in found["history"])
    if found["exempt"]:
        yield f"  DAGs that no promise covers (exempt): {', '.join(found['exempt'])}"
    if found["closed"]:
        why = "they began in a standby or in another epoch"
        yield f"  runs that its agents closed since its schedulers started: {found['closed']} ({why})"


def _ledger_cost(document: Mapping[str, Any], found: Mapping[str, Any], *, is_active: bool) -> str:
    """Return the effect of a ledger that cannot be used."""
    is_reconciled = found["reconciled_epoch"] in {None, document["epoch"]}
    if found["ledger_wait_s"] is not None:
        return (
            f"It becomes active without its ledger in {found['ledger_wait_s']:.0f} s ([dr] ledger_wait_s). Runs "
            "that the other region finished may then run again."
        )
    if not is_reconciled and not is_active:
        return (
            "It holds its runs without a time limit, and closes no run that the ledger has not accepted. Restore the "
            "ledger."
        )
    if is_active:
        return "Until the ledger works, runs that end in this region may run again after a failover."
    return (
        "Until the ledger works, this region does not learn which runs other regions finish. They may run again after "
        "a failover."
    )


def _unpublished(found: Mapping[str, Any], console: Console) -> Iterator[str]:
    """Yield the runs that the region could not take over, and what to do."""
    yield console.alarm(
        f"! it became active without its ledger at {found['at']} (epoch {found['epoch']}): {found['why']}"
    )
    yield from (f"    {sentence}" for sentence in found["unread"])
    if found["runs"]:
        yield "    Runs that it closed, and that start when the ledger works again:"
        yield from (f"      {run}" for run in found["runs"][:SHOWN_RUNS])
        if len(found["runs"]) > SHOWN_RUNS:
            yield f"      and {len(found['runs']) - SHOWN_RUNS} more (mwaa-dr status --json)"
    yield f"    Compare these runs in both regions, then: mwaa-dr check --acknowledge {found['id']}"
