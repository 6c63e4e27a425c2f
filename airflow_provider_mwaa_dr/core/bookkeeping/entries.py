"""Dividing what a region publishes into entries of its log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from airflow_provider_mwaa_dr.core.bookkeeping.conversion import size_of
from airflow_provider_mwaa_dr.core.ledger import LedgerRun

_ENTRY_BYTES = 250_000
"""The approximate size of the JSON in one entry of the log; the rest goes into the next entry."""


def chunks(
    runs: Iterable[LedgerRun], dag_ids: Sequence[str]
) -> Iterator[tuple[tuple[LedgerRun, ...], tuple[str, ...]]]:
    """Yield first the runs, then the DAG ids, in parts that each fit one entry."""
    part: list[LedgerRun] = []
    size = 0
    for run in runs:
        # 600 covers names, times and ids; only conf, tasks and events can be long.
        cost = 600 + len(run.dag_id) + len(run.run_id) + len(run.conf or "")
        cost += sum(len(task_id) + 30 for task_id, _, _ in run.tasks) + 80 * len(run.deadlines)
        cost += sum(map(size_of, run.events or ()))
        cost += sum(len(child.dag_id) + len(child.run_id or "") + 30 for child in run.children)
        if part and size + cost > _ENTRY_BYTES:
            yield tuple(part), ()
            part, size = [], 0
        part.append(run)
        size += cost
    if part:
        yield tuple(part), ()
    ids: list[str] = []
    size = 0
    for dag_id in dag_ids:
        cost = len(json.dumps(dag_id)) + 2
        if size + cost > _ENTRY_BYTES:
            yield (), tuple(ids)
            ids, size = [], 0
        ids.append(dag_id)
        size += cost
    if ids:
        yield (), tuple(ids)
