"""What a failover did, as far as tables show it: its record, and the runs that both regions published in the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_mwaa_dr.core.documents import iso, record_document
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RunStatus
from airflow_provider_mwaa_dr.core.ports import (
    RECORDS,
    REPORTS,
    Clock,
    FailoverRecord,
    RunsStore,
    StateStore,
    StoredReport,
)
from airflow_provider_mwaa_dr.core.reporting.run_outcome import Bar, RunOutcome
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, UnreadableItemError

BEFORE = timedelta(minutes=5)
"""How much of the time before the claim a report shows."""
AFTER = timedelta(minutes=15)
"""How much of the time after the failover a report shows. Resumed runs end in it."""
MOST_RUNS = 2000
"""The most runs in a report. The numbers count all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverReport:
    """
    A report of one failover.

    :param taken_at: when the data were read from the tables.
    :param promoted_at: when the target became active; None if it did not.
    :param rto_s: seconds from the first check to the first run in the target; None if the ledger shows no run.
    :param rpo_s: the last seconds before the promotion, in which the source published nothing; 0 if its ledger was
        complete. None if that is not known.
    :param kept: how many runs ended in the source from the claim on. No region executes them again.
    :param resumed: runs of the source that the target took over.
    :param waiting: interrupted runs of the source that the target had not taken over.
    :param bars: the runs of both regions.
    :param versions: versions of Airflow and of the provider, by region, when the data were read.
    :param gaps: what could not be read, a sentence each.
    """

    record: FailoverRecord
    taken_at: datetime
    promoted_at: datetime | None
    rto_s: float | None = None
    rpo_s: float | None = None
    kept: int = 0
    resumed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    @property
    def began_at(self) -> datetime:
        """When the first check began; the record begins with the claim."""
        checks_s = sum(step.seconds for step in self.record.steps[:1] if step.name == "check")
        return self.record.started_at - timedelta(seconds=checks_s)

    @property
    def ends_at(self) -> datetime:
        """The end of the time that the report shows. A report that was taken later does not change."""
        return (self.record.finished_at or self.record.started_at) + AFTER

    @property
    def checks(self) -> str:
        """What the checks before the claim found; empty if the record has no such step."""
        return next((step.detail for step in self.record.steps if step.name == "check"), "")


def report_document(report: FailoverReport) -> dict[str, Any]:
    """Return the report as a JSON document."""
    return {
        "failover": record_document(report.record),
        "began_at": iso(report.began_at),
        "promoted_at": iso(report.promoted_at) if report.promoted_at is not None else None,
        "taken_at": iso(report.taken_at),
        "checks": report.checks or None,
        "rto_seconds": report.rto_s,
        "rpo_seconds": report.rpo_s,
        "runs": {
            "kept": report.kept,
            "resumed": list(report.resumed),
            "waiting": list(report.waiting),
            "twice": None,
            "twice_why": "not measurable: only task bodies show it",
        },
        "versions": {region: dict(versions) for region, versions in report.versions.items()},
        "gaps": list(report.gaps),
        "timeline": [
            {
                "region": bar.region,
                "dag_id": bar.dag_id,
                "run_id": bar.what,
                "outcome": bar.outcome.value,
                "begin": bar.begin.isoformat(),
                "end": bar.end.isoformat(),
            }
            for bar in report.bars
        ],
    }


def report_from(document: Mapping[str, Any], record: FailoverRecord) -> FailoverReport:
    """Return the report of a stored document. :raises KeyError, TypeError, ValueError: it is not one."""
    runs = document["runs"]
    return FailoverReport(
        record=record,
        taken_at=datetime.fromisoformat(document["taken_at"].replace("Z", "+00:00")),
        promoted_at=_promoted_at(record),
        rto_s=document["rto_seconds"],
        rpo_s=document["rpo_seconds"],
        kept=int(runs["kept"]),
        resumed=tuple(map(str, runs["resumed"])),
        waiting=tuple(map(str, runs["waiting"])),
        bars=tuple(
            Bar(
                region=each["region"],
                dag_id=each["dag_id"],
                what=each["run_id"],
                outcome=RunOutcome(each["outcome"]),
                begin=datetime.fromisoformat(each["begin"]),
                end=datetime.fromisoformat(each["end"]),
            )
            for each in document["timeline"]
        ),
        versions=document["versions"],
        gaps=tuple(map(str, document["gaps"])),
    )


def find_record(store: StateStore, plan_id: str | None) -> FailoverRecord:
    """
    Return a record.

    :param plan_id: None: the newest one.
    :raises ConfigError: there is no such record, or none at all.
    """
    records = store.find_all(RECORDS)
    for record in records:
        if plan_id in {None, record.id}:
            return record
    known = ", ".join(record.id for record in records[:10])
    raise ConfigError(
        f"No failover {plan_id} is recorded." if plan_id is not None else "No failover has been recorded.",
        option="plan",
        advice=f"The newest are {known}." if known else "mwaa-dr failover makes one.",
    )


def take_report(store: StateStore, runs: RunsStore | None, record: FailoverRecord, clock: Clock) -> FailoverReport:
    """
    Return a report from what the tables have now. Changes nothing.

    It never raises for the ledger: what could not be read is one of its gaps.

    :raises StateError: the heartbeats could not be read.
    """
    gaps: list[str] = []
    versions: dict[str, dict[str, str]] = {}
    for region in (record.source, record.target):
        agents = [agent for agent in store.agents(region) if not agent.gone]
        if agents:
            newest = max(agents, key=lambda agent: agent.at)
            versions[region] = {"airflow": newest.airflow_version, "provider": newest.provider_version}
        else:
            gaps.append(f"The versions in {region} are not known: it has no heartbeat.")
    promoted_at = _promoted_at(record)
    found = FailoverReport(
        record=record, taken_at=clock.now(), promoted_at=promoted_at, versions=versions, gaps=tuple(gaps)
    )
    if runs is None:
        return replace(found, gaps=(*gaps, "No runs table is set, so runs and RTO and RPO are not known."))
    entries: dict[str, Sequence[LogEntry]] = {}
    for region in (record.source, record.target):
        try:
            entries[region] = tuple(_entries(runs, region, since=found.began_at - BEFORE, until=found.ends_at))
        except DRError as error:
            gaps.append(f"The ledger of {region} could not be read: {error.message}")
            entries[region] = ()
        if not entries[region] and not any(region in gap and "ledger" in gap for gap in gaps):
            gaps.append(f"The ledger of {region} has no entry of this time: it published none, or they have expired.")
        if any(entry.unreadable is not None for entry in entries[region]):
            gaps.append(f"The ledger of {region} has entries that cannot be read.")
    return _with_runs(replace(found, gaps=tuple(gaps)), entries)


def store_report(store: StateStore, report: FailoverReport) -> None:
    """Store the data of a report, because entries of the ledger expire. Idempotent."""
    body = json.dumps(report_document(report))
    store.put(REPORTS, StoredReport(id=report.record.id, taken_at=report.taken_at, body=body))


def keep_report(store: StateStore, runs: RunsStore | None, record: FailoverRecord, clock: Clock) -> str:
    """
    Take and store the report of a failover that has ended. A later report has more, while the ledger has the entries.

    Never raises: the failover has completed, and its report must not change the outcome.

    :return: why it was not stored; empty if it was.
    """
    try:
        store_report(store, take_report(store, runs, record, clock))
    except Exception as error:
        return f"The data of the report were not stored: {error} mwaa-dr report {record.id} stores them."
    return ""


def current_report(
    store: StateStore, runs: RunsStore | None, record: FailoverRecord, clock: Clock
) -> tuple[FailoverReport, str]:
    """
    Return the report of a failover, and why its data could not be stored or read (empty: they were).

    The stored data count if they were read after the time that the report shows, or if the ledger has less than they.
    Otherwise the data are read now, and stored.
    """
    stored, why = _stored(store, record)
    if stored is not None and stored.taken_at >= stored.ends_at:
        return stored, why
    taken = take_report(store, runs, record, clock)
    if stored is not None and len(taken.bars) < len(stored.bars):
        return stored, why
    if record.finished_at is not None:
        try:
            store_report(store, taken)
        except DRError as error:
            why = f"The data of the report could not be stored: {error.message}"
    return taken, why


def _stored(store: StateStore, record: FailoverRecord) -> tuple[FailoverReport | None, str]:
    """Return the stored report, and why it cannot be read."""
    try:
        found = store.get(REPORTS, record.id)
        return (None if found is None else report_from(json.loads(found.body), record)), ""
    except (UnreadableItemError, KeyError, TypeError, ValueError) as error:
        return None, f"The stored data of the report cannot be read: {error}."


def _promoted_at(record: FailoverRecord) -> datetime | None:
    """Return when the step promote ended. The record has the durations of the steps; the first after the claim."""
    at = record.started_at
    for step in record.steps:
        if step.name != "check":
            at += timedelta(seconds=step.seconds)
        if step.name == "promote":
            return at
    return None


def _entries(runs: RunsStore, region: str, *, since: datetime, until: datetime) -> Iterator[LogEntry]:
    """Yield the entries of a region's log from *since* to *until*. A search finds the first of them."""
    info = runs.checkpoint_info(region)
    low, high = 0, info.number if info is not None else 0
    while low < high:
        middle = (low + high) // 2
        readable = [entry for entry in runs.log(region, after=middle) if entry.unreadable is None]
        if readable and readable[0].at < since:
            low = middle + 1
        else:
            high = middle
    after = low
    while page := runs.log(region, after=after):
        for entry in page:
            if entry.unreadable is None and entry.at > until:
                return
            if entry.unreadable is not None or entry.at >= since:
                yield entry
        after = page[-1].number


def _with_runs(report: FailoverReport, entries: Mapping[str, Sequence[LogEntry]]) -> FailoverReport:
    record, promoted_at = report.record, report.promoted_at
    bars = [bar for region, log in entries.items() for bar in _bars(report, region, log)]
    taken_over = {(bar.dag_id, bar.what) for bar in bars if bar.region == record.target}
    ended = {
        (run.dag_id, run.run_id)
        for entry in entries[record.source]
        for run in entry.runs
        if run.has_ended and (run.ended_at or entry.at) >= record.started_at
    }
    interrupted = {
        (bar.dag_id, bar.what) for bar in bars if bar.region == record.source and bar.outcome is RunOutcome.INTERRUPTED
    }
    first = [bar.begin for bar in bars if bar.region == record.target and promoted_at and bar.begin >= promoted_at]
    kept_bars = sorted(bars, key=lambda bar: (bar.begin, bar.region, bar.dag_id, bar.what))
    gaps = report.gaps
    if len(kept_bars) > MOST_RUNS:
        gaps = (*gaps, f"The figure shows {MOST_RUNS} of {len(kept_bars)} runs, those that began last.")
    return replace(
        report,
        rto_s=round((min(first) - report.began_at).total_seconds(), 1) if first else None,
        rpo_s=_rpo_s(report, entries[record.source]),
        kept=len(ended),
        resumed=tuple(
            sorted(
                f"{bar.dag_id} {bar.what}"
                for bar in bars
                if bar.region == record.target and (bar.outcome is RunOutcome.WENT_ON or _key(bar) in interrupted)
            )
        ),
        waiting=tuple(sorted(" ".join(key) for key in interrupted - taken_over)),
        bars=tuple(kept_bars[-MOST_RUNS:]),
        gaps=gaps,
    )


def _key(bar: Bar) -> tuple[str, str]:
    return bar.dag_id, bar.what


def _rpo_s(report: FailoverReport, log: Sequence[LogEntry]) -> float | None:
    """Return how long before the promotion the source had published nothing."""
    if report.promoted_at is None:
        return None
    if any(entry.final_plan_id == report.record.id for entry in log):
        return 0.0
    before = [entry.at for entry in log if entry.unreadable is None and entry.at <= report.promoted_at]
    return round((report.promoted_at - max(before)).total_seconds(), 1) if before else None


def _bars(report: FailoverReport, region: str, log: Sequence[LogEntry]) -> Iterator[Bar]:
    """Yield a bar for each execution of a run in a region, as the region published it."""
    open_: dict[tuple[str, str], tuple[datetime, LedgerRun]] = {}
    promoted_at = report.promoted_at

    def bar(run: LedgerRun, begin: datetime, end: datetime, outcome: RunOutcome) -> Bar:
        return Bar(
            region=region,
            dag_id=run.dag_id,
            what=run.run_id,
            outcome=outcome,
            begin=_utc(min(begin, end)),
            end=_utc(end),
        )

    for entry in log:
        for run in entry.runs:
            begun = open_.get(run.key)
            if run.status is RunStatus.OPEN:
                if begun is None:
                    open_[run.key] = entry.at, run
                continue
            open_.pop(run.key, None)
            if run.status is RunStatus.GONE:
                continue
            begin = begun[0] if begun is not None else entry.at
            if run.status is RunStatus.INTERRUPTED:
                yield bar(run, begin, entry.at, RunOutcome.INTERRUPTED)
                continue
            end = run.ended_at or entry.at
            if region == report.record.target and promoted_at is not None and end < promoted_at:
                continue  # a run of the other region that this one has in its history
            taken_at = run.taken_at or (begun[1].taken_at if begun is not None else None)
            outcome = RunOutcome.WENT_ON if taken_at is not None else RunOutcome.ONCE
            yield bar(run, run.started_at or begin, end, outcome)
    end = min(report.taken_at, report.ends_at)
    for begin, run in open_.values():
        outcome = RunOutcome.WENT_ON if run.taken_at is not None else RunOutcome.UNFINISHED
        yield bar(run, begin, max(begin, end), outcome)


def _utc(at: datetime) -> datetime:
    return at.astimezone(timezone.utc)
