"""Checks of DAGs and runs: what a failover would start, and whether the target can execute it."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.config import CONTROL_TAG
from airflow_provider_mwaa_dr.core.inventory import DEPENDS_ON_PAST, EXTERNAL_SENSOR, WATCHER
from airflow_provider_mwaa_dr.core.readiness.comparison import (
    INVENTORY_ADVICE,
    Difference,
    both_inventories,
    by_phrase,
    compare,
    not_checked,
    same_airflow,
    some,
)
from airflow_provider_mwaa_dr.core.readiness.model import (
    CONTROL_DAGS,
    TEST_DAG,
    CheckResult,
    Facts,
    Unknown,
    Verdict,
    no_agent,
)


def check_waiting(facts: Facts) -> CheckResult:
    """Whether there are interrupted runs that no region can resume."""
    waiting = sorted({each for region in facts.regions for agent in region.agents for each in agent.waiting})
    if waiting:
        return CheckResult(
            name="waiting",
            verdict=Verdict.WARN,
            why=f"interrupted runs that cannot be resumed: {some(waiting)}",
            advice="Deploy the DAG in that region, or trigger it by hand: a run with its logical date ends the wait.",
        )
    doubts = [why for region in facts.regions for why in no_agent(region)]
    if doubts:
        return not_checked("waiting", "; ".join(doubts), "See the check agents.")
    return CheckResult(name="waiting", verdict=Verdict.OK, why="no interrupted run waits")


def check_dags(facts: Facts) -> CheckResult:
    """Whether the target has every DAG that a failover would unpause, and both regions have the same DAGs."""
    wanted = facts.wanted
    target, source = facts.target.dag_ids, facts.source.dag_ids
    if isinstance(target, Unknown):
        return not_checked("dags", target.why, "Repeat the check when the REST API of the target answers.")
    missing = frozenset() if isinstance(wanted, Unknown) else wanted - target
    differences = [Difference(Verdict.FAIL, f"to be unpaused, but missing in {facts.target.region}", missing)]
    doubts = []
    if isinstance(source, Unknown):
        doubts.append(f"not compared with {facts.source.region}: {source.why}")
    else:
        differences += [
            Difference(Verdict.WARN, f"only in {facts.source.region}", source - target - missing),
            Difference(Verdict.WARN, f"only in {facts.target.region}", target - source),
        ]
    if not isinstance(facts.target.dags, Unknown) and not isinstance(facts.source.dags, Unknown):
        in_target = {dag.dag_id for dag in facts.target.dags if facts.exempts(dag)}
        in_source = {dag.dag_id for dag in facts.source.dags if facts.exempts(dag)}
        both = target if isinstance(source, Unknown) else target & source
        differences.append(Difference(Verdict.WARN, "exempt in one region only", (in_target ^ in_source) & both))
    return compare(
        "dags",
        facts,
        differences,
        fine=f"{len(target)} DAGs in {facts.target.region}, including all that a failover unpauses",
        advice="Copy the same DAG files, with the same tags, to both buckets. For a DAG of one region only, declare "
        "the difference: accepted_differences = dags:ID.",
        doubts=doubts,
    )


def check_exempt(facts: Facts) -> CheckResult:
    """
    Which DAGs no promise covers, because they are exempt. Warns about one with the tag ``dr:control`` that is not an
    example DAG of the provider.
    """
    exempt: set[str] = set()
    tagged: set[str] = set()
    doubts = []
    for region in facts.regions:
        if isinstance(region.dags, Unknown):
            doubts.append(f"the DAGs of {region.region} are unknown: {region.dags.why}")
            continue
        ours = {dag.dag_id for dag in region.dags if facts.exempts(dag)}
        exempt |= ours
        tagged |= ours - CONTROL_DAGS - facts.settings.exempt_dags
    return compare(
        "exempt",
        facts,
        [Difference(Verdict.WARN, f"exempt by the tag {CONTROL_TAG}, and no example DAG of the provider", tagged)],
        fine=f"exempt, so that no promise covers them: {some(sorted(exempt)) or '-'}",
        advice="An exempt DAG runs in both regions at the same time, also during a failover, and no ledger has its "
        "runs. Remove the tag. If the DAG has to be exempt, declare it: accepted_differences = exempt:ID.",
        doubts=doubts,
    )


def check_paused(facts: Facts) -> CheckResult:
    """Whether all DAGs are paused in the standby, and which DAGs a failover would unpause."""
    wanted, snapshot = facts.wanted, facts.source.snapshot
    differences, doubts = [], []
    if not isinstance(facts.target.dags, Unknown):
        unpaused = {dag.dag_id for dag in facts.target.dags if not dag.is_paused and not facts.exempts(dag)}
        differences.append(Difference(Verdict.WARN, f"not paused in the standby {facts.target.region}", unpaused))
    else:
        doubts.append(f"the standby was not checked: {facts.target.dags.why}")
    if snapshot is None:
        doubts.append(f"there is no snapshot of {facts.source.region}: a forced failover would unpause nothing")
    elif not isinstance(facts.source.dags, Unknown) and not isinstance(wanted, Unknown):
        changed = wanted ^ (set(snapshot.dag_ids) | set(facts.dags_not_unpaused))
        differences.append(
            Difference(
                Verdict.WARN, f"changed since the snapshot of {snapshot.recorded_at:%Y-%m-%dT%H:%M:%SZ}", changed
            )
        )
    if isinstance(wanted, Unknown):
        fine = f"it is unknown which DAGs a failover would unpause: {wanted.why}"
    else:
        fine = f"a failover would unpause {len(wanted)} DAGs in {facts.target.region}: {some(sorted(wanted)) or '-'}"
    return compare(
        "paused",
        facts,
        differences,
        fine=fine,
        advice=f"Pause the standby: mwaa-dr pause {facts.target.region}. The active region's agent takes a snapshot "
        "within seconds while no failover is in progress.",
        doubts=doubts,
    )


def check_test_dag(facts: Facts) -> CheckResult:
    """Whether a failover can verify that the target executes runs: a DAG ``dr_test_dag``, unpaused in the source."""
    target, wanted = facts.target.dag_ids, facts.wanted
    if isinstance(target, Unknown) or isinstance(wanted, Unknown):
        why = target.why if isinstance(target, Unknown) else wanted.why if isinstance(wanted, Unknown) else ""
        return not_checked("test_dag", why, "Repeat the check when the REST APIs answer.")
    if TEST_DAG in target and TEST_DAG in wanted:
        why = f"{TEST_DAG} would be the first run in {facts.target.region}"
        return CheckResult(name="test_dag", verdict=Verdict.OK, why=why)
    where = f"paused or missing in {facts.source.region}" if TEST_DAG in target else f"missing in {facts.target.region}"
    return CheckResult(
        name="test_dag",
        verdict=Verdict.WARN,
        why=f"{TEST_DAG} is {where}: a failover cannot verify that the target executes runs",
        advice=f"Deploy {TEST_DAG} from the example DAGs in both regions, and unpause it in {facts.source.region}.",
    )


def check_imports(facts: Facts) -> CheckResult:
    """Whether the DAG files can be imported."""
    both = both_inventories(facts)
    if isinstance(both, Unknown):
        return not_checked("imports", both.why, INVENTORY_ADVICE)
    target, source = (frozenset(each.import_errors) for each in both)
    texts = both[0].upgrade.error_texts if both[0].upgrade is not None else {}
    named: dict[str, set[str]] = {}
    for file in target - source:
        if texts.get(file):
            named.setdefault(f"{texts[file]} ({facts.target.region} only)", set()).add(file)
    lost = sorted(dag_id for dag_id, dag in both[1].dags.items() if dag.file in target - source)
    return compare(
        "imports",
        facts,
        [
            *by_phrase(Verdict.FAIL, named, others=f"other errors ({facts.target.region} only)"),
            Difference(
                Verdict.FAIL,
                f"cannot be imported in {facts.target.region} only",
                {file for file in target - source if not texts.get(file)},
            ),
            Difference(Verdict.WARN, "cannot be imported in either region", target & source),
            Difference(Verdict.WARN, f"cannot be imported in {facts.source.region} only", source - target),
            Difference(Verdict.FAIL, f"DAGs of {facts.source.region} in these files", lost),
        ],
        fine="every DAG file can be imported in both regions",
        advice="Read the import errors in that region's user interface. The most frequent cause is a missing package, "
        "variable or connection."
        if same_airflow(facts)
        else "Read the import errors in that region's user interface. If the version does not have a module or an "
        "operator any more, change the import so that both versions have it: ruff check --select AIR names it and its "
        "replacement.",
    )


def check_code(facts: Facts) -> CheckResult:
    """Whether the code of the DAGs is the same in both regions, without the modules that their files import."""
    both = both_inventories(facts)
    if isinstance(both, Unknown):
        return not_checked("code", both.why, INVENTORY_ADVICE)
    target, source = both
    common = target.dags.keys() & source.dags.keys()
    other_file = {dag_id for dag_id in common if target.dags[dag_id].source != source.dags[dag_id].source}
    other_shape = {dag_id for dag_id in common - other_file if target.dags[dag_id].shape != source.dags[dag_id].shape}
    return compare(
        "code",
        facts,
        [
            Difference(Verdict.WARN, "defined in files that differ", other_file),
            # Another version of Airflow serializes the same DAG differently.
            Difference(
                Verdict.WARN, "built differently from the same file", other_shape if same_airflow(facts) else ()
            ),
        ],
        fine=f"{len(common)} DAGs, the same in both regions (modules that their files import are not compared)",
        advice="Copy the same files to both buckets. A DAG that is built from variables, the clock or the environment "
        "may differ on purpose: accepted_differences = code:ID.",
    )


def check_past(facts: Facts) -> CheckResult:
    """Which DAGs depend on the history of their region. A failover transfers only a part of it."""
    found: dict[str, set[str]] = {DEPENDS_ON_PAST: set(), EXTERNAL_SENSOR: set()}
    inventories = [each.inventory for each in facts.regions if not isinstance(each.inventory, Unknown)]
    if not inventories:
        return not_checked("past", "no inventory of either region", INVENTORY_ADVICE)
    for inventory in inventories:
        for dag_id, dag in inventory.dags.items():
            for trait in dag.traits:
                found.setdefault(trait, set()).add(dag_id)
    return compare(
        "past",
        facts,
        [
            Difference(
                Verdict.WARN,
                "with depends_on_past or wait_for_downstream, which depend on earlier runs",
                found[DEPENDS_ON_PAST],
            ),
            Difference(
                Verdict.WARN, "with a sensor of another DAG's run, which may be an earlier one", found[EXTERNAL_SENSOR]
            ),
        ],
        fine="no DAG depends on a task of an earlier run or of another DAG",
        advice="With a runs table, a region has the last finished runs of the other region, but not all of their tasks."
        " Check in a drill that these DAGs continue, then declare them: accepted_differences = past:ID.",
    )


def check_watchers(facts: Facts) -> CheckResult:
    """
    Which DAGs the watcher of an asset starts. Warns about a triggerer that does not load the provider: its watchers
    also take messages while the region is a standby.
    """
    dags = {
        dag_id
        for region in facts.regions
        if not isinstance(region.inventory, Unknown)
        for dag_id, dag in region.inventory.dags.items()
        if WATCHER in dag.traits
    }
    return compare(
        "watchers",
        facts,
        [
            Difference(
                Verdict.WARN,
                f"triggerers of {region.region} that run asset watchers and do not load the provider: job",
                {job for agent in region.agents for job in agent.unguarded},
            )
            for region in facts.regions
        ],
        fine=f"DAGs that asset watchers start, in the active region only: {some(sorted(dags))}"
        if dags
        else "no DAG has an asset watcher",
        advice="A standby that takes a message loses it. Install the provider in the triggerers, too, and restart "
        "them; or use a queue for each region.",
    )
