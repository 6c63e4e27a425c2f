"""Checks of the state table and the runs table, of their content, and of the right to change it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, Unpublished
from airflow_provider_mwaa_dr.core.readiness.comparison import not_checked, some
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, Unknown, Verdict
from airflow_provider_mwaa_dr.core.state import STATE_ID, DRState, Phase, why_unknown

DRILL_AGE = timedelta(days=90)


def check_rights(facts: Facts) -> CheckResult:
    """
    Whether the caller may write the state, and change DAGs in both environments.

    The check tries a write whose condition nothing meets, and a DAG that does not exist.
    """
    tried = [
        ("write the state", facts.may_flip),
        *((f"change DAGs in {region.environment} ({region.region})", region.may_change) for region in facts.regions),
    ]
    denied = [(what, may) for what, may in tried if isinstance(may, Unknown) and may.is_refused]
    if denied:
        return CheckResult(
            name="rights",
            verdict=Verdict.FAIL,
            why="; ".join(f"may not {what}: {may.why}" for what, may in denied),
            advice="Repeat the check with the role that makes failovers. docs/reference/rights.md lists its rights.",
        )
    open_questions = [f"{what}: {may.why}" for what, may in tried if isinstance(may, Unknown)]
    open_questions += [what for what, may in tried if may is None]
    if open_questions:
        return not_checked(
            "rights", "; ".join(open_questions), "Repeat the check when the region that did not answer is back."
        )
    return CheckResult(name="rights", verdict=Verdict.OK, why="the caller may " + ", ".join(what for what, _ in tried))


def check_state(facts: Facts) -> CheckResult:
    """Whether the state item gives a region the role, and whether a failover is in progress."""
    state, plan, registered = facts.state, facts.state.plan, facts.registered
    if isinstance(registered, Unknown):
        return not_checked("state", registered.why, "Repeat the check when the state table answers.")
    if registered is not None and (why := why_unknown(state, registered, region=facts.target.region)):
        return CheckResult(
            name="state",
            verdict=Verdict.FAIL,
            why=f"no region has a role, and every region holds every run: {why}",
            advice=state_advice(state, registered, table=facts.settings.state_table, target=facts.target.region),
        )
    held = [
        f"{region.region} holds every run: {agent.held_because}"
        for region in facts.regions
        for agent in region.agents[:1]
        if agent.held_because is not None
    ]
    if held:
        return CheckResult(name="state", verdict=Verdict.FAIL, why="; ".join(held), advice="Correct the named values.")
    if state.phase is Phase.STEADY or plan is None:
        return CheckResult(
            name="state", verdict=Verdict.OK, why=f"{state.active_region} is active, epoch {state.epoch}, steady"
        )
    return CheckResult(
        name="state",
        verdict=Verdict.WARN,
        why=f"plan {plan.id} is open ({state.phase.value}): {plan.source} -> {plan.target}, by {plan.by}",
        advice=f"Continue it, unless its owner does: mwaa-dr failover {plan.target} --reason TEXT.",
    )


def state_advice(state: DRState, registered: Collection[str], *, table: str, target: str) -> str:
    """Return how to correct a state that gives no region a role: the item, the fields and their allowed values."""
    corrections = [f"{problem.field} to {problem.allowed}" for problem in state.problems]
    if registered and state.active_region not in registered:
        *others, last = sorted(registered)
        allowed = f"{', '.join(others)} or {last}" if others else last
        corrections.append(f"active_region to the region that executes ({allowed})")
    take_over = f"ive a region the role: mwaa-dr failover {target} --reason TEXT."
    if not corrections:
        return f"G{take_over}"
    return f"In the item {STATE_ID} of table {table}, set {' and '.join(corrections)}. Or g{take_over}"


def check_table(facts: Facts) -> CheckResult:
    """
    Whether the state table survives the loss of a region, and all regions read all its copies.

    Of a set in one region, the table is in this region only.
    """
    table = facts.table
    if isinstance(table, Unknown):
        return not_checked("table", table.why, "Give the caller dynamodb:DescribeTable on the state table.")
    sentences, advice = [], []
    here = table.regions[0]
    if table.consistency is TableConsistency.SINGLE and here != facts.shared_region:
        if here == facts.aws_region_of(facts.source):
            sentences.append(f"{table.name} is only in {here}, the active region: without it, no failover is possible")
        else:
            sentences.append(
                f"{table.name} is only in {here}: if this region is lost, {facts.source.region} holds all its work "
                f"after {facts.state.lease_s:g} s"
            )
        advice.append("Use a global table with a copy in each region of the set. Create it from an empty table, with ")
        advice[-1] += "strong consistency if AWS offers it for these regions."
    elif table.consistency is TableConsistency.EVENTUAL:
        sentences.append(
            f"{table.name} is eventually consistent: a region that is cut off reads its own copy, and may consider "
            "itself active until it is connected again"
        )
        advice.append("Use strong consistency if AWS offers it for these regions. Otherwise, force a failover only ")
        advice[-1] += "if the active region is certainly down."
    if table.consistency is not TableConsistency.SINGLE:
        bare = [place for region in facts.regions if (place := facts.aws_region_of(region)) not in table.regions]
        if bare:
            sentences.append(f"no copy in {', '.join(bare)}")
            advice.append(f"Add a replica in {bare[0]}.")
        unread = [
            f"{who} reads only {', '.join(sorted(read))}"
            for who, read in _readers(facts)
            if read and not read >= set(table.regions)
        ]
        if unread:
            sentences += unread
            replicas = ",".join(table.regions)
            advice.append(f"Set [dr] state_table_replicas = {replicas} (on this machine DR_STATE_TABLE_REPLICAS).")
    if not table.is_protected:
        sentences.append("deletion protection is off")
        advice.append(
            f"Switch it on: aws dynamodb update-table --region {here} --table-name {table.name} "
            "--deletion-protection-enabled."
        )
    if not sentences:
        why = f"{table.name}: {table.consistency.value} consistency, copies in {', '.join(table.regions)}"
        if table.consistency is TableConsistency.SINGLE:
            why = f"{table.name} is in {here}, like both sites"
        return CheckResult(name="table", verdict=Verdict.OK, why=why)
    return CheckResult(name="table", verdict=Verdict.WARN, why="; ".join(sentences), advice=" ".join(advice))


def _readers(facts: Facts) -> Iterable[tuple[str, set[str]]]:
    """Yield this machine and each known region, with the regions in which it reads the state table."""
    yield "this machine", set(facts.settings.replicas)
    for region in facts.regions:
        if not isinstance(region.inventory, Unknown):
            options = region.inventory.options
            named = f"{options.get('state_table_region', '')},{options.get('state_table_replicas', '')}"
            yield region.region, {each for each in named.split(",") if each} or {facts.aws_region_of(region)}


def check_runs_table(facts: Facts) -> CheckResult:
    """Whether there is a ledger, and whether it survives the loss of a region that has not all sites."""
    table = facts.runs_table
    if table is None:
        return CheckResult(
            name="runs_table",
            verdict=Verdict.WARN,
            why="no runs table is known: after a failover, interrupted runs are not resumed, and DAGs with catchup "
            "continue from the new region's own history",
            advice="Create a table with the keys pk and sk; set [dr] runs_table in both regions, and DR_RUNS_TABLE on "
            "this machine.",
        )
    if isinstance(table, Unknown):
        return not_checked("runs_table", table.why, "Give the caller dynamodb:DescribeTable on the runs table.")
    if table.consistency is TableConsistency.SINGLE and table.regions[0] != facts.shared_region:
        return CheckResult(
            name="runs_table",
            verdict=Verdict.WARN,
            why=f"{table.name} is only in {table.regions[0]}: if this region is lost, the ledger is lost",
            advice=f"Add a replica of {table.name} in each other region of the set; eventual consistency is enough.",
        )
    return CheckResult(name="runs_table", verdict=Verdict.OK, why=f"{table.name} has copies in {some(table.regions)}")


def check_unpublished(facts: Facts) -> CheckResult:
    """Whether a region became active without its ledger, and no user has acknowledged that."""
    found = [
        each.unpublished
        for each in facts.regions
        if each.unpublished is not None and each.unpublished.acknowledged_at is None
    ]
    if found:
        return CheckResult(
            name="unpublished",
            verdict=Verdict.WARN,
            why="; ".join(_unpublished_text(each) for each in found),
            advice="Compare these runs in both regions. Then: "
            + " ".join(f"mwaa-dr check --acknowledge {each.id}" for each in found),
        )
    return CheckResult(name="unpublished", verdict=Verdict.OK, why="each region became active with its ledger")


def _unpublished_text(unpublished: Unpublished) -> str:
    """Return one sentence about a region that became active without its ledger."""
    runs = (
        f"; it closed {len(unpublished.runs)} runs without publishing them: {some(unpublished.runs)}"
        if unpublished.runs
        else ""
    )
    return (
        f"{unpublished.region} became active without its ledger at {unpublished.at:%Y-%m-%dT%H:%M:%SZ} (epoch "
        f"{unpublished.epoch}): {unpublished.why.rstrip('.')}{runs}; {'; '.join(unpublished.unread)}"
    )


def check_drill(facts: Facts) -> CheckResult:
    """When the last failover to the target was completed. A warning after 90 days."""
    if isinstance(facts.records, Unknown):
        return not_checked("drill", facts.records.why, "Give the caller dynamodb:Scan on the state table.")
    region = facts.target.region
    completed = (each for each in facts.records if each.outcome is FailoverOutcome.COMPLETED)
    done = next((each for each in completed if each.target == region), None)
    advice = (
        f"Make a planned failover to {region} and back, in a quiet hour: mwaa-dr failover {region} --reason drill. "
        "Only a tested failover is reliable."
    )
    if done is None or done.finished_at is None:
        return CheckResult(
            name="drill", verdict=Verdict.WARN, why=f"no failover to {region} was ever completed", advice=advice
        )
    took_s = (done.finished_at - done.started_at).total_seconds()
    why = f"last failover to {region}: {done.started_at:%Y-%m-%d}, {done.mode.value}, {took_s:.0f} s"
    if facts.at - done.started_at > DRILL_AGE:
        return CheckResult(
            name="drill", verdict=Verdict.WARN, why=f"{why}, over {DRILL_AGE.days} days ago", advice=advice
        )
    if done.not_unpaused:
        return CheckResult(
            name="drill",
            verdict=Verdict.WARN,
            why=f"{why}; DAGs not unpaused: {some(done.not_unpaused)}",
            advice=f"Deploy these DAGs in {region}, and repeat the drill.",
        )
    return CheckResult(name="drill", verdict=Verdict.OK, why=why)


def check_items(facts: Facts) -> CheckResult:
    """Whether every item of the tables can be read."""
    if isinstance(facts.unreadable, Unknown):
        return not_checked("items", facts.unreadable.why, "Give the caller dynamodb:Scan on the state table.")
    gaps = sorted({gap for region in facts.regions for agent in region.agents for gap in agent.unread})
    if facts.unreadable or gaps:
        return CheckResult(
            name="items",
            verdict=Verdict.WARN,
            why=f"{len(facts.unreadable) + len(gaps)} cannot be read: "
            + " ".join([*map(str, facts.unreadable), *gaps]).rstrip("."),
            advice=" ".join(dict.fromkeys(item.advice for item in facts.unreadable))
            or "The agent of that region saves a checkpoint of its ledger within minutes, with the missing content.",
        )
    return CheckResult(name="items", verdict=Verdict.OK, why="every item of the state table can be read")
