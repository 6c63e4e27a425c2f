"""``mwaa-dr failover``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from airflow_provider_mwaa_dr.aws.notifications import aws_channels
from airflow_provider_mwaa_dr.cli.session import CliSession, CommandParsers
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import nothing_done_document, preview_document, record_document
from airflow_provider_mwaa_dr.core.failover import (
    FailoverAction,
    FailoverEngine,
    FailoverPreview,
    FailoverRequest,
    StepEvent,
)
from airflow_provider_mwaa_dr.core.notifications import Courier
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.reporting.failover import keep_report
from airflow_provider_mwaa_dr.core.state import DEFAULT_HOLD_S, DRState, Mode, Phase, Stage, meaning
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError

ENTERING = frozenset(action.value for action in FailoverAction if action is not FailoverAction.NOTHING)
"""The steps with which an engine starts or joins a plan."""
_ACTIONS = {
    FailoverAction.CLAIM: "starts a new plan",
    FailoverAction.JOIN: "joins the open plan",
    FailoverAction.CANCEL: "cancels the open plan",
    FailoverAction.SUPERSEDE: "replaces the open plan",
    FailoverAction.RECOVER: "starts a forced plan, because no active region is known",
}
"""What the command does, by :attr:`~airflow_provider_mwaa_dr.core.failover.FailoverPreview.action`."""
_OF_OPEN_PLAN = frozenset({FailoverAction.JOIN, FailoverAction.CANCEL, FailoverAction.SUPERSEDE})
"""Actions that change the open plan."""


def add_command(commands: CommandParsers) -> None:
    """Add ``failover``."""
    parser = commands.add(
        "failover",
        run,
        summary="make REGION the active region; join an open plan to REGION, or cancel an open plan that leaves REGION",
        changes=True,
    )
    parser.add_argument("target", metavar="REGION", help="the region to fail over to")
    parser.add_argument(
        "--reason", metavar="TEXT", required=True, help="stored in the state item and in the failover record"
    )
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.AUTO.value,
        help="graceful: drain the active region first; forced: continue without the active region; auto (default): "
        "graceful, or forced if the active region does not answer",
    )
    parser.add_argument(
        "--stop-running",
        action="store_true",
        help="stop runs that do not end during the drain, instead of abandoning the failover",
    )
    parser.add_argument(
        "--even-if-not-ready", action="store_true", help="continue although a check of the target failed"
    )
    parser.add_argument(
        "--until",
        choices=[stage.value for stage in Stage],
        help="halt for steps of your own, and exit; the same command with the next stage, or without --until, "
        "continues. drained: the active region starts nothing, and REGION is not active yet; promoted: REGION is "
        "active and starts nothing yet",
    )
    parser.add_argument(
        "--plan",
        metavar="ID",
        help="continue this failover, and start no other one: if it was cancelled, the command refuses",
    )
    parser.add_argument(
        "--hold-s",
        metavar="SECONDS",
        type=float,
        default=DEFAULT_HOLD_S,
        help="how long the failover may stay halted (default %(default)g): then an agent of REGION finishes it if it "
        "is promoted; if it is drained, the agents raise an alarm",
    )


def run(session: CliSession) -> None:
    """Make a region active, or print what that would do."""
    args, console = session.args, session.console
    reason = checked_reason(args.reason)
    session.begin_change()
    request = FailoverRequest(
        target=session.region(args.target),
        reason=reason,
        by=session.who,
        mode=Mode(args.mode),
        stop_running=args.stop_running,
        even_if_not_ready=args.even_if_not_ready,
        until=Stage(args.until) if args.until is not None else None,
        hold_s=args.hold_s,
        plan_id=args.plan,
    )
    on_step = _Steps()
    owner = session.owner
    channels = aws_channels(session.config, session=session.runtime.boto3_session)
    # A store of its own: that of the session says what the command waits for.
    store = session.runtime.make_store(session.config) if channels else session.store
    courier = Courier(store, channels, session.clock, owner=owner)
    engine = FailoverEngine.from_config(
        session.config,
        session.store,
        session.environments(),
        session.clock,
        owner=owner,
        on_step=on_step,
        courier=courier,
    )
    if args.dry_run:
        preview = engine.preview(request)
        console.result(preview_document(preview), "\n".join(map(visible, _preview_text(preview))))
        return
    if not args.yes:
        console.ask(_preview_text(engine.preview(request)), yes=False)
    args.interrupt_advice = (
        "Nothing is lost. mwaa-dr status shows whether a plan is open, and the same command resumes it. Before the "
        "step promote, a failover to the region that is still active cancels it."
    )
    try:
        _fail_over(session, engine, request, on_step)
    finally:
        courier.close()


def _fail_over(session: CliSession, engine: FailoverEngine, request: FailoverRequest, on_step: _Steps) -> None:
    """Run the engine, and print the result."""
    console, reason = session.console, request.reason
    try:
        with console.steps(_limits(Timing.from_config(session.config))) as on_step.show, on_step.ignoring_hangup():
            record = engine.run(request)
    except AlreadyActiveError as answer:
        state = session.store.read()
        console.result(nothing_done_document(state, reason=reason, by=session.who), visible(answer))
        return
    if record.outcome is FailoverOutcome.OPEN:
        console.result(
            record_document(record), "\n".join(map(visible, _halted(session.store.read(), record, request.until)))
        )
        return
    if why := keep_report(session.store, session.runtime.make_runs(session.config), record, session.clock):
        console.say(why)
    lines = [
        f"{record.target} is active, epoch {record.epoch} ({record.outcome.value}, plan {record.id}).",
        *(f"Not unpaused: {dag_id}" for dag_id in record.not_unpaused),
        *(f"Ended in the standby, and not continued: {run}" for run in record.ended_in_standby),
        f"A report for auditors: mwaa-dr report {record.id}",
    ]
    console.result(record_document(record), "\n".join(map(visible, lines)))


def _limits(timing: Timing) -> Mapping[str, float]:
    """Return the longest time of each step that may be silent."""
    return {
        "check": timing.agent_silence_s,
        "drain": timing.drain_s,
        "ledger": timing.final_s,
        "adopt": timing.adopt_s,
        "verify": timing.verify_s,
    }


def _halted(state: DRState, record: FailoverRecord, until: Stage | None) -> Iterator[str]:
    """Yield where the failover has halted, and the commands that continue and cancel it."""
    plan = state.plan
    source, target = record.source, record.target
    if plan is None or plan.id != record.id or plan.hold is None or plan.hold is not until or not plan.is_halted:
        yield f"Failover {record.id} has passed this stage ({state.phase.value}). Nothing was changed."
    else:
        yield f"Halted at {plan.hold.value}: {meaning(plan.hold, source=source, target=target)} (plan {plan.id})."
        if plan.hold is Stage.DRAINED:
            yield f"If no command continues it within {plan.hold_s:g} s, the agents raise an alarm."
        else:
            yield f"If no command continues it within {plan.hold_s:g} s, an agent of {target} finishes it."
    if state.phase is Phase.DRAINING:
        yield f"Then continue it: mwaa-dr failover {target} --until promoted --reason TEXT"
        yield f"Or to its end: mwaa-dr failover {target} --reason TEXT"
        yield f"Or cancel it: mwaa-dr failover {source} --reason TEXT"
    else:
        yield f"Then continue it: mwaa-dr failover {target} --reason TEXT"
        yield f"Or fail back: mwaa-dr failover {source} --reason TEXT"


class _Steps:
    """
    The function that the engine calls with each step.

    :ivar show: shows a step to the user.
    """

    def __init__(self) -> None:
        self.show: Callable[[StepEvent], None] = lambda _: None
        self._ignores_hangup = False

    def __call__(self, event: StepEvent) -> None:
        if self._ignores_hangup and event.name in ENTERING:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.show(event)

    @contextmanager
    def ignoring_hangup(self) -> Iterator[None]:
        """Ignore SIGHUP from the claim on: a closed terminal must not leave both regions blocked."""
        if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
            yield  # Windows has no SIGHUP, and only the main thread may handle signals
            return
        before = signal.getsignal(signal.SIGHUP) or signal.SIG_DFL
        self._ignores_hangup = True
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)


def _preview_text(preview: FailoverPreview) -> Iterator[str]:
    if preview.action is FailoverAction.NOTHING:
        yield f"{preview.target} is active already, epoch {preview.epoch}: nothing to do."
        return
    plan = f" {preview.plan_id}" if preview.plan_id and preview.action in _OF_OPEN_PLAN else ""
    yield (
        f"Failover {preview.source} -> {preview.target} ({preview.mode.value}), epoch {preview.epoch}: "
        f"{_ACTIONS[preview.action]}{plan}."
    )
    if preview.why_recovery is not None:
        yield f"No active region is known: {preview.why_recovery}."
        yield "The failover is forced, whatever mode was requested; every other registered region counts as the source."
    yield f"Steps: {', '.join(preview.steps)}."
    if preview.until is not None:
        yield f"It halts at {preview.until.value}, and a further command continues it."
    if preview.wanted is not None:
        exempt = f" (exempt DAGs, which do not change: {preview.exempt})" if preview.exempt is not None else ""
        yield f"DAGs to pause in {preview.source} and to unpause in {preview.target}: {preview.wanted}{exempt}."
    if preview.running:
        yield f"Runs in progress in {preview.source}: {len(preview.running)}"
        yield from (f"  {run}" for run in preview.running)
    for why in preview.not_ready:
        yield f"Not ready: {why}"
