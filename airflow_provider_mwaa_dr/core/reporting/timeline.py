"""
A failover over time, as HTML: a panel for each region, a row for each DAG, a bar for each run.

Positions along the time axis are percentages, and text sizes are fixed, so that the figure fits a phone and a sheet of
paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.reporting.figure import Figure
from airflow_provider_mwaa_dr.core.reporting.run_outcome import Bar, RunOutcome, merged

_TEXTS = {
    RunOutcome.ONCE: "executed once",
    RunOutcome.WENT_ON: "taken over from the other region, and executed once",
    RunOutcome.INTERRUPTED: "started, and interrupted in this region",
    RunOutcome.UNFINISHED: "still running at the end of the figure",
    RunOutcome.AGAIN: "executed twice, with a valid reason",
    RunOutcome.TWICE: "executed twice, without a valid reason",
    RunOutcome.FORCED: "forced in the standby: no task executed",
    RunOutcome.IN_STANDBY: "executed in a standby",
    RunOutcome.LOST: "lost: expected, and never executed",
}
_ALWAYS_IN_LEGEND = (RunOutcome.ONCE, RunOutcome.FORCED)
_LATE_S = 3.0
"""A run that starts later than this after its scheduled time has waited. A shorter delay is normal for a scheduler."""
_LANE = 22
"""Height of a row, in pixels."""
_TICK_STEPS_S = (5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
_TICKS = 6


@dataclass(frozen=True, slots=True)
class _Scale:
    """Turns times into percentages of the width."""

    begin: datetime
    end: datetime

    def x(self, at: datetime) -> float:
        share = (min(max(at, self.begin), self.end) - self.begin) / (self.end - self.begin)
        return round(100 * share, 2)

    def seconds(self, percent: float) -> float:
        return (self.end - self.begin).total_seconds() * percent / 100


def timeline(figure: Figure, *, texts: Mapping[RunOutcome, str] = _TEXTS) -> str:
    """
    Return the figure with its legend.

    :param texts: what each outcome means. The legend has only these.
    """
    all_bars = figure.bars
    scale = _scale(figure, all_bars)
    forced = [bar for bar in all_bars if bar.outcome is RunOutcome.FORCED]
    shown = [
        *merged([bar for bar in all_bars if bar.outcome is not RunOutcome.FORCED], gap_s=scale.seconds(0.12)),
        *merged(forced, gap_s=scale.seconds(1.1)),
    ]
    shown.sort(key=lambda bar: list(RunOutcome).index(bar.outcome))
    dag_ids = sorted({bar.dag_id for bar in shown})
    panels = "".join(_panel(figure, scale, region, dag_ids, shown, texts) for region in figure.regions)
    return (
        f'<figure class="timeline"><div class="over">{"".join(_lines(figure, scale))}</div>'
        f"{_moves(figure, scale)}{panels}{_axis(scale)}</figure>{_legend(figure, shown, texts)}"
    )


def _scale(figure: Figure, all_bars: Sequence[Bar]) -> _Scale:
    times = [at for bar in all_bars for at in (bar.begin, bar.end)]
    for record in figure.records:
        times += [record.started_at, *([record.finished_at] if record.finished_at is not None else [])]
    times += [at for at, _ in figure.moves[1:]]
    begin, end = min(times), max(times)
    margin = max((end - begin) / 100, timedelta(seconds=1))
    return _Scale(begin - margin, end + margin)


def _row(label: str, lane: str) -> str:
    return f'<div class="row"><span class="label" title="{escape(label)}">{escape(label)}</span>{lane}</div>'


# Parts that cross all rows: the moves of the active role, and the time axis.


@dataclass(frozen=True, slots=True)
class _Move:
    """
    A failover or failback, and the position of its labels.

    :param moments: claim, promote and, if it completed, complete.
    :param is_left: whether the labels are left of their lines: for the first of two moves, which may be close together.
    """

    record: FailoverRecord
    name: str
    moments: Sequence[tuple[str, datetime]]
    is_left: bool

    def rows(self) -> Iterator[tuple[int, str, datetime]]:
        """Yield each moment with the row of its label: a line starts beside its own label and crosses no other one."""
        for number, (word, at) in enumerate(self.moments):
            yield (len(self.moments) - 1 - number if self.is_left else number), word, at


def _all_moves(figure: Figure) -> Sequence[_Move]:
    found: list[_Move] = []
    for record, (promoted_at, _) in zip(figure.records, figure.moves[1:], strict=False):
        moments = [("claim", record.started_at), ("promote", promoted_at)]
        if record.finished_at is not None:
            moments.append(("complete", record.finished_at))
        is_first_of_two = len(figure.records) > 1 and record is figure.records[0]
        name = ("failover", "failback")[len(found) % 2]
        found.append(_Move(record, name, moments, is_first_of_two))
    return found


def _moves(figure: Figure, scale: _Scale) -> str:
    """Return the head of the figure: a bar for each move, and the names of its moments below it."""
    drawn = []
    for move in _all_moves(figure):
        record = move.record
        finished_at = record.finished_at or scale.end
        seconds = (finished_at - record.started_at).total_seconds()
        title = f"{move.name} to {record.target}: " + (f"{seconds:.0f} s" if record.finished_at else "open")
        left, right = scale.x(record.started_at), scale.x(finished_at)
        drawn.append(f'<rect class="move" x="{left}%" y="17" width="{max(right - left, 0.3):.2f}%" height="4"/>')
        drawn.append(_word(title, right if move.is_left else left, 12, "strong", is_left=move.is_left))
        for row, word, at in move.rows():
            drawn.append(_word(f"{word} {at:%H:%M:%S}", scale.x(at), 33 + 13 * row, "soft", is_left=move.is_left))
    drawn += [_word(f"{word} {at:%H:%M:%S}", scale.x(at), 72, "soft") for at, word in figure.marks]
    return _row("", f'<svg class="lane" height="{78 if figure.marks else 66}">{"".join(drawn)}</svg>')


def _word(word: str, x: float, y: int, kind: str, *, is_left: bool = False) -> str:
    """Return a label beside its line: on the right, or on the left near the end of the time axis and if *is_left*."""
    anchor, dx = ("end", -4) if (is_left and x > 22) or x > 78 else ("start", 4)
    return f'<text class="{kind}" x="{x}%" dx="{dx}" y="{y}" text-anchor="{anchor}">{escape(word)}</text>'


def _lines(figure: Figure, scale: _Scale) -> Iterator[str]:
    """Yield the parts that cross all rows: a column for each move, and a line for each of its moments."""
    for move in _all_moves(figure):
        left, right = scale.x(move.record.started_at), scale.x(move.record.finished_at or scale.end)
        yield f'<i class="column" style="left:{left}%;width:{right - left:.2f}%"></i>'
        for row, word, at in move.rows():
            yield f'<i class="moment {word} from-{row}" style="left:{scale.x(at)}%"></i>'
    for at, _ in figure.marks:
        yield f'<i class="moment from-3" style="left:{scale.x(at)}%"></i>'


def _axis(scale: _Scale) -> str:
    span_s = (scale.end - scale.begin).total_seconds()
    step_s = next((step for step in _TICK_STEPS_S if span_s / step <= _TICKS), 2 * int(span_s / _TICKS))
    at = scale.begin.replace(microsecond=0, second=0, minute=0)
    drawn = []
    while at <= scale.end:
        if at >= scale.begin:
            x = scale.x(at)
            anchor = "start" if x < 4 else ("end" if x > 96 else "middle")
            drawn.append(f'<line class="axis" x1="{x}%" x2="{x}%" y1="0" y2="5"/>')
            drawn.append(f'<text class="soft" x="{x}%" y="18" text-anchor="{anchor}">{at:%H:%M:%S}</text>')
        at += timedelta(seconds=step_s)
    return _row("UTC", f'<svg class="lane" height="{_LANE}">{"".join(drawn)}</svg>')


# A region.


def _panel(
    figure: Figure,
    scale: _Scale,
    region: str,
    dag_ids: Sequence[str],
    shown: Sequence[Bar],
    texts: Mapping[RunOutcome, str],
) -> str:
    rows = ""
    for dag_id in dag_ids:
        drawn = "".join(_bar(scale, bar, texts) for bar in shown if (bar.region, bar.dag_id) == (region, dag_id))
        name = escape(f"{dag_id} in {region}")
        rows += _row(dag_id, f'<svg class="lane" height="{_LANE}" role="img" aria-label="{name}">{drawn}</svg>')
    return (
        f'<section class="region"><div class="bands">{"".join(_bands(figure, scale, region))}</div>'
        f'<div class="row head"><b class="label">{escape(region)}</b><svg class="lane" height="{_LANE}"></svg></div>'
        f"{rows}</section>"
    )


def _bands(figure: Figure, scale: _Scale, region: str) -> Iterator[str]:
    """Yield a band for each time in which the region was active or lost, and a label for each change."""
    outages = [outage for outage in figure.outages if outage.region == region]
    ends = [*(at for at, _ in figure.moves[1:]), scale.end]
    for (since, active), until in zip(figure.moves, ends, strict=True):
        if active == region:
            yield _band(scale, since, until, "active")
    for outage in outages:
        yield _band(scale, outage.since, outage.until or scale.end, "outage")

    def word_at(at: datetime) -> str:
        for outage in outages:
            if outage.since <= at < (outage.until or scale.end):
                return f"lost: {outage.how}"
        return "active" if figure.active_at(at) == region else "standby"

    edges = {scale.begin, *ends[:-1], *(outage.since for outage in outages)}
    edges |= {outage.until for outage in outages if outage.until is not None}
    since, word = scale.begin, word_at(scale.begin)
    for at in [*sorted(edges - {scale.begin}), scale.end]:
        following = word_at(at)
        if following != word or at == scale.end:
            style = f"left:{scale.x(since)}%;width:{scale.x(at) - scale.x(since):.2f}%"
            title = f"{word}, {since:%H:%M:%S} to {at:%H:%M:%S}"
            yield f'<span class="word" style="{style}" title="{escape(title)}">{escape(word)}</span>'
            since, word = at, following


def _band(scale: _Scale, since: datetime, until: datetime, kind: str) -> str:
    left = scale.x(since)
    return f'<i class="band {kind}" style="left:{left}%;width:{scale.x(until) - left:.2f}%"></i>'


def _bar(scale: _Scale, bar: Bar, texts: Mapping[RunOutcome, str], *, is_sample: bool = False) -> str:
    left, right = scale.x(bar.begin), scale.x(bar.end)
    title = "" if is_sample else f"<title>{escape(_title(bar, texts))}</title>"
    if bar.outcome is RunOutcome.FORCED:
        number = f'<text class="few" x="{left}%" dx="8" y="15">{bar.runs}</text>' if bar.runs > 1 else ""
        return f'<g><circle class="{bar.outcome.value}" cx="{left}%" cy="11" r="4.5"/>{number}{title}</g>'
    if bar.outcome is RunOutcome.LOST:
        return f'<g><text class="lost" x="{left}%" y="17" text-anchor="middle">✕</text>{title}</g>'
    width = max(right - left, 0.1)
    drawn = ""
    if bar.due is not None and scale.begin < bar.due and _has_waited(bar):
        drawn = f'<line class="waited {bar.outcome.value}" x1="{scale.x(bar.due)}%" x2="{left}%" y1="11" y2="11"/>'
    if bar.outcome in {RunOutcome.AGAIN, RunOutcome.TWICE}:
        parts = [(4, 5), (13, 5)]
    elif bar.outcome is RunOutcome.IN_STANDBY:
        parts = [(3, 16)]
    else:
        parts = [(6, 10)]
    drawn += "".join(
        f'<rect class="{bar.outcome.value}" x="{left}%" y="{y}" width="{width:.2f}%" height="{height}"/>'
        for y, height in parts
    )
    if bar.runs >= 10 and width > 5:
        drawn += f'<text class="many" x="{left + width / 2:.2f}%" y="15" text-anchor="middle">{bar.runs} runs</text>'
    return f"<g>{drawn}{title}</g>"


def _has_waited(bar: Bar) -> bool:
    """Return whether the run started late. A second execution does not count as late."""
    if bar.due is None or bar.outcome not in {RunOutcome.ONCE, RunOutcome.WENT_ON, RunOutcome.UNFINISHED}:
        return False
    return (bar.begin - bar.due).total_seconds() > _LATE_S


def _title(bar: Bar, texts: Mapping[RunOutcome, str]) -> str:
    """Return the tooltip of a bar."""
    when = f"{bar.begin:%H:%M:%S}" if bar.begin == bar.end else f"{bar.begin:%H:%M:%S} to {bar.end:%H:%M:%S}"
    which = f"{bar.dag_id} {bar.what}" if bar.runs == 1 else f"{bar.runs} runs of {bar.dag_id}"
    due = "" if bar.due is None or bar.begin == bar.due else f", scheduled for {bar.due:%H:%M:%S}"
    return f"{which}. {texts[bar.outcome]}, {when}{due}"


def _legend(figure: Figure, shown: Sequence[Bar], texts: Mapping[RunOutcome, str]) -> str:
    outcomes = {bar.outcome for bar in shown}
    scale = _Scale(figure.moves[0][0], figure.moves[0][0] + timedelta(seconds=26))
    items = []
    for outcome in RunOutcome:
        if outcome in texts and (outcome in outcomes or outcome in _ALWAYS_IN_LEGEND):
            is_moment = outcome in {RunOutcome.FORCED, RunOutcome.LOST}
            begin, end = (scale.begin + timedelta(seconds=13 if is_moment else at) for at in (2, 24))
            sample = _bar(
                scale, Bar(region="", dag_id="", outcome=outcome, begin=begin, end=end), texts, is_sample=True
            )
            items.append(f'<li><svg width="26" height="22">{sample}</svg>{escape(texts[outcome])}</li>')
    if any(_has_waited(bar) for bar in shown):
        items.append(
            '<li><svg width="26" height="22"><line class="waited once" x1="0" x2="18" y1="11" y2="11"/>'
            '<rect class="once" x="18" y="6" width="7" height="10"/></svg>waited after its scheduled time</li>'
        )
    items.append('<li><i class="swatch of-active"></i>the region is active</li>')
    if figure.outages:
        items.append('<li><i class="swatch of-outage"></i>the region is lost</li>')
    items.append('<li><i class="swatch of-column"></i>a failover, from claim to complete</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
