"""The document of the page, and what of it a user may see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import is_rest, shortened, visible_document
from airflow_provider_mwaa_dr.core.documents import iso, record_document
from airflow_provider_mwaa_dr.core.ports import Clock, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.status import plan_meaning
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.web.reader import Knowledge
from airflow_provider_mwaa_dr.web.strip import Strip, strip_of

SHOWN_RUNS = 20
"""Maximum number of entries of a list. A set may have 10,000 DAGs."""
_REGION_LISTS = ("waiting", "repeats", "exempt")
_RECORD_LISTS = ("not_unpaused", "ended_in_standby")

Readable = Callable[[set[str]], Collection[str]]
"""Returns which of these DAGs a user may see."""


def strip_document(known: Knowledge, config: DRConfig, clock: Clock) -> dict[str, Any]:
    """Return what the strip shows, and the age of the read in seconds."""
    return {"strip": _strip(strip_of(known, config, clock)), "age_s": _age(known.read_at, clock)}


def page_document(known: Knowledge, config: DRConfig, clock: Clock) -> dict[str, Any]:
    """
    Return the document of ``mwaa-dr status --json``, as far as the web server knows it, and the key ``web``.

    Before the first read, it has the key ``web`` only.
    """
    details = known.details
    status = dict(details.document) if details is not None else {}
    state = known.observation.state if known.observation is not None else None
    records = details.records if details is not None else ()
    web = {
        "site": config.region,
        "names": dict(details.names) if details is not None else {},
        "age_s": _age(known.read_at, clock),
        "details_age_s": _age(details.read_at, clock) if details is not None else None,
        "error": known.error,
        "failing_since": iso(known.failing_since) if known.failing_since is not None else None,
        "strip": _strip(strip_of(known, config, clock)),
        "active": _active(state, records) if state is not None else None,
        "plan": _plan(status, records, Timing.from_config(config)) if status.get("plan") is not None else None,
        "history": [_record(record) for record in records],
        "silence_s": Timing.from_config(config).agent_silence_s,
    }
    return visible_document({**status, "web": web})


def run_document(note: str, config: DRConfig) -> dict[str, Any]:
    """
    Return what the strip shows on the page of a run: the provider's note, and the other sites.

    The links open the other site's Airflow through the console of AWS. The addresses of its web server are not known
    here, so they do not lead to the run itself.
    """
    others = [site for site in config.sites.all if site.id != config.region] if note else []
    return {
        "note": note,
        "others": [
            {
                "site": site.id,
                "href": f"https://{site.aws_region}.console.aws.amazon.com/mwaa/home?region={site.aws_region}"
                f"#environments/{quote(site.environment, safe='')}/sso",
            }
            for site in others
        ],
    }


def for_user(document: Mapping[str, Any], readable: Readable, *, sees_all: bool) -> dict[str, Any]:
    """
    Return the document without the DAGs that a user may not see.

    Texts that may contain the id of a DAG are left out if the user does not see all DAGs. Lists are shortened.
    """
    places = list(_lists(document))
    ids = {_dag_id(entry) for _, entries in places for entry in entries}
    allowed = ids if sees_all else set(readable(ids))

    def kept(name: str, entries: list[str]) -> list[str]:
        found = [entry for entry in entries if is_rest(entry) or _dag_id(entry) in allowed]
        if name == "repeats" and not sees_all:
            found = [" ".join(entry.split()[:2]) for entry in found]
        return shortened(found, SHOWN_RUNS)

    def record(found: Mapping[str, Any]) -> dict[str, Any]:
        steps = found["steps"] if sees_all else [{**step, "detail": ""} for step in found["steps"]]
        return {**found, "steps": steps, **{name: kept(name, found[name]) for name in _RECORD_LISTS}}

    def region(found: Mapping[str, Any]) -> dict[str, Any]:
        lists = {name: kept(name, found[name]) for name in _REGION_LISTS if found[name] is not None}
        unpublished = found["unpublished"]
        if unpublished is not None:
            unpublished = {**unpublished, "runs": kept("runs", unpublished["runs"])}
        return {**found, **lists, "unpublished": unpublished}

    web = document["web"]
    plan = web["plan"]
    if plan is not None and not sees_all:
        plan = {**plan, "steps": [{**step, "detail": ""} for step in plan["steps"]]}
    shown: dict[str, Any] = {
        **document,
        "web": {**web, "plan": plan, "history": [record(each) for each in web["history"]]},
    }
    if "regions" in document:
        shown["regions"] = {site: region(found) for site, found in document["regions"].items()}
    return shown


def _lists(document: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for found in document.get("regions", {}).values():
        yield from ((name, found[name]) for name in _REGION_LISTS if found[name] is not None)
        if found["unpublished"] is not None:
            yield "runs", found["unpublished"]["runs"]
    for record in document["web"]["history"]:
        yield from ((name, record[name]) for name in _RECORD_LISTS)


def _dag_id(entry: str) -> str:
    """Return the DAG of an entry ``DAG_ID RUN_ID ...``; the id of a DAG contains no space."""
    return entry.split(" ", 1)[0].rstrip(":")


def _strip(strip: Strip | None) -> dict[str, Any] | None:
    return None if strip is None else {"word": strip.word, "text": strip.text, "is_alarm": strip.is_alarm}


def _age(read_at: float | None, clock: Clock) -> float | None:
    return None if read_at is None else round(max(0.0, clock.monotonic() - read_at), 1)


def _active(state: DRState, records: Collection[FailoverRecord]) -> dict[str, Any]:
    """Return the active site, since when, by whom and why. An open or cancelled failover does not count."""
    since = state.last_failover_time
    promoted = [
        record
        for record in records
        if since is not None
        and record.target == state.active_region != record.source
        and record.outcome is not FailoverOutcome.ABORTED
        and record.started_at <= since
    ]
    return {
        "site": state.active_region,
        "since": iso(since) if since is not None else None,
        "by": promoted[0].by if promoted else state.changed_by,
        "reason": state.failover_reason,
    }


def _record(record: FailoverRecord) -> dict[str, Any]:
    took = (record.finished_at - record.started_at).total_seconds() if record.finished_at is not None else None
    return {**record_document(record), "seconds": took}


def _plan(status: Mapping[str, Any], records: Collection[FailoverRecord], timing: Timing) -> dict[str, Any]:
    """Return the steps of the open plan so far, what it waits for, and the commands that continue or cancel it."""
    plan, phase = status["plan"], Phase(status["phase"])
    source, target = plan["from"], plan["to"]
    record = next((found for found in records if found.id == plan["id"]), None)
    is_halted = plan["hold"] is not None and plan["hold"]["is_halted"]
    if is_halted:
        owner = f"It is halted for steps of users since {status['last_updated']}."
    elif plan["silent_s"] <= timing.takeover_s:
        owner = f"Its owner {plan['owner']} sent a heartbeat {plan['silent_s']:.0f} s ago."
    else:
        owner = f"Its owner {plan['owner']} has been silent for {plan['silent_s']:.0f} s."
    ways = [{"what": "Continue it" if is_halted else "Follow or resume it", "to": target}]
    if source != target:
        ways.append({"what": "Cancel it" if phase is Phase.DRAINING else "Fail back instead", "to": source})
    return {
        "meaning": plan_meaning(plan, phase),
        "owner": owner,
        "is_halted": is_halted,
        "is_silent": not is_halted and plan["silent_s"] > timing.takeover_s,
        "steps": record_document(record)["steps"] if record is not None else [],
        "ways": [{**way, "command": f"mwaa-dr failover {way['to']} --reason TEXT"} for way in ways],
    }
