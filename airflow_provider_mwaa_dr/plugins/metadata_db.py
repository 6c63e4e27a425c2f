"""
What the gate and the agent read and change in Airflow's metadata database; no other module uses Airflow's models.

The gate calls :func:`skip_run` and :func:`hold_run` inside the scheduler's open transaction. They never commit or
flush, and they send their statements in a savepoint, so that an error leaves the transaction usable. The agent calls
:class:`MetadataDb` in its own thread; each method is one or more short transactions. It leaves locked rows alone and
finds them again in its next turn.

The number of statements does not grow with the number of task instances: one UPDATE closes all of a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.configuration import conf
from airflow.jobs.job import Job
from airflow.models.connection import Connection
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagcode import DagCode
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.errors import ParseImportError
from airflow.models.pool import Pool
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.variable import Variable
from airflow.utils.state import State
from sqlalchemy import (
    LargeBinary,
    PickleType,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.orm import Session, object_session

from airflow_provider_mwaa_dr.core.bookkeeping import NO_RERUN_TAG, RunRow, to_conf
from airflow_provider_mwaa_dr.core.config import CONTROL_TAG, is_exempt
from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.core.inventory import DEPENDS_ON_PAST, EXTERNAL_SENSOR, DagFacts
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey, TaskState

_OPEN = ("queued", "running")
_AT_WORK = tuple(state for state in State.unfinished if state is not None)
"""States of a task instance that the scheduler has accepted for execution, and that has not ended."""
_ENDED = ("success", "failed")
_HELD = f"{NOTE_TOKEN} held"
_RESUMED = "resumed:"
"""Start of the sentence in the note of a resumed run; a later "held" note keeps this sentence."""
_CLOSED = (f"{NOTE_TOKEN} skipped", f"{NOTE_TOKEN} closed")
_NOTE_LIMIT = 1000
"""The length of ``dag_run_note.content``, in characters."""
_NEWEST_RUNS = 1000
"""The search for the task that ended last covers this many of the newest runs."""
_IDLE_FOR = timedelta(minutes=1)
"""A begun run counts as waiting for an earlier one if no task of it executes, and none has ended for so long."""
_BATCH = 200
"""Runs in one transaction. Transactions are short, because the scheduler skips the rows that they lock."""

# Tables and not classes: bulk statements must use neither a synonym (DagRun.state) nor a session.
_runs = DagRun.__table__
_tasks = TaskInstance.__table__
_notes = DagRunNote.__table__
_dags = DagModel.__table__
_serialized = SerializedDagModel.__table__
_versions = DagRun.metadata.tables.get("dag_version")
"""Airflow 3 keeps every version of a DAG, Airflow 2 only the last one."""
_DEPENDS_ON_PAST_TEXTS = ('"depends_on_past": true', '"depends_on_past":true')
"""How the JSON of a DAG shows ``depends_on_past``; Airflow also sets it for ``wait_for_downstream``."""


# For the gate, inside the scheduler's transaction.


def skip_run(dag_run: Any, note: str) -> None:
    """
    Close *dag_run*, which is about to start: the run succeeds, all its open tasks are skipped, no callback is called.

    The same number of statements for 10 task instances and for 10,000. Also updates what Airflow updates when a run
    ends by itself, so that a DAG with ``max_active_runs`` gets its next run immediately.
    """
    session = object_session(dag_run)
    now = _now()
    with _savepoint(session) as connection:
        connection.execute(_close_task_instances(_of_run(dag_run), now))
        _put_note(connection, dag_run.id, note)
        others = connection.execute(
            select(func.count()).where(
                _runs.c.dag_id == dag_run.dag_id,
                _runs.c.id != dag_run.id,
                _runs.c.run_type != "backfill",
                _runs.c.state.in_(_OPEN),
            )
        ).scalar_one()
    session.expire(dag_run, ["task_instances", "dag_run_note"])
    dag_run.set_state("success")
    _drop_deadlines(session, dag_run)
    _update_run_limit(session, dag_run, others)


def hold_run(dag_run: Any, note: str) -> bool:
    """
    Put *dag_run* back into the queue; the scheduler tries it again.

    The scheduler first tries runs that it has never tried, so that runs of exempt DAGs start however many runs are
    held. It tries the held runs of a DAG in the order of their dates. Otherwise, with ``max_active_runs``, later runs
    could take all the room. With ``depends_on_past`` they would then wait forever for an earlier run that has no room.

    :return: whether the note is new; a repeated hold writes nothing, and the caller logs nothing.
    """
    session = object_session(dag_run)
    dag_run.set_state("queued")
    dag_run.last_scheduling_decision = _queue_date(dag_run)
    with _savepoint(session) as connection:
        written = _put_note(connection, dag_run.id, note, keeps=_RESUMED)
    if written:
        session.expire(dag_run, ["dag_run_note"])
    return written


def _queue_date(run: Any) -> datetime:
    """Return the date by which Airflow sorts a held run; Airflow sorts runs that it has not tried by the same date."""
    date: datetime | None = getattr(run, "run_after", None) or getattr(run, _logical_date.name)
    return date or _now()


def dag_is_exempt(dag_run: Any, exempt_dags: Collection[str]) -> bool:
    """Return whether the run's DAG is exempt. Makes no query: the scheduler has just set ``dag_run.dag``."""
    return is_exempt(dag_run.dag_id, getattr(dag_run.dag, "tags", None) or (), exempt_dags)


def _now() -> datetime:
    return datetime.now(tz=timezone.utc)


@contextlib.contextmanager
def _savepoint(session: Any) -> Iterator[Any]:
    """
    Yield the session's connection inside a savepoint.

    It is a savepoint of the connection and not of the session: ``session.begin_nested`` fires before_commit, and
    Airflow's scheduler then raises "UNEXPECTED COMMIT".
    """
    connection = session.connection()
    with connection.begin_nested():
        yield connection


def _of_run(dag_run: Any) -> Any:
    return and_(_tasks.c.dag_id == dag_run.dag_id, _tasks.c.run_id == dag_run.run_id)


def _close_task_instances(of_runs: Any, now: datetime) -> Any:
    return (
        update(_tasks)
        .where(of_runs, or_(_tasks.c.state.is_(None), _tasks.c.state.in_(_AT_WORK)))
        .values(state="skipped", start_date=func.coalesce(_tasks.c.start_date, now), end_date=now)
    )


def _drop_deadlines(session: Any, dag_run: Any) -> None:
    """Delete the run's deadlines (3.1 and later): a run that executes nothing must not raise an alarm."""
    if not getattr(dag_run.dag, "deadline", None):
        return
    for deadline in list(dag_run.deadlines):
        session.delete(deadline)


def _update_run_limit(session: Any, dag_run: Any, others: int) -> None:
    """
    Update the DAG's limit of runs as the scheduler does when a run of the DAG ends.

    Without it, the scheduler creates no further run until the next parse. Airflow 3.2 and later keep a flag. In earlier
    versions ``next_dagrun_create_after`` is empty while the DAG is at its limit, and the scheduler fills it when a
    scheduled run ends.
    """
    dag_model = session.get(DagModel, dag_run.dag_id)
    if dag_model is None:
        return
    if hasattr(DagModel, "exceeds_max_non_backfill"):
        dag_model.exceeds_max_non_backfill = others >= (dag_model.max_active_runs or 0)
        return
    dag = dag_run.dag
    if (
        dag_run.run_type == "scheduled"
        and dag_model.next_dagrun_create_after is None
        and others < dag.max_active_runs
        and dag.timetable.can_be_scheduled
    ):
        dag_model.calculate_dagrun_date_fields(dag, dag.get_run_data_interval(dag_run))


# Notes: the user's text, then the provider's.


def _put_note(connection: Any, dag_run_id: int, note: str, *, keeps: str | None = None) -> bool:
    """
    Write *note* after the user's text, and replace an earlier note of the provider; return whether the note changed.

    :param keeps: the start of a sentence of the earlier note that stays, after the new one.
    """
    row = connection.execute(select(_notes.c.content).where(_notes.c.dag_run_id == dag_run_id)).first()
    if row is None:
        connection.execute(insert(_notes).values(dag_run_id=dag_run_id, content=compose_note(None, note)))
        return True
    own = own_note(row.content)
    if keeps is not None and keeps in own:
        note = f"{note}; {own[own.index(keeps) :]}"
    if _same(own, note):
        return False
    connection.execute(
        update(_notes).where(_notes.c.dag_run_id == dag_run_id).values(content=compose_note(row.content, note))
    )
    return True


def compose_note(existing: str | None, note: str) -> str:
    """
    Return the note of a run: the user's text, then *note* with the token in front.

    *note* replaces an earlier note of the provider. If both texts together are too long, the end of the user's text is
    cut, because readers of the note need the newest reason.
    """
    own = f"{NOTE_TOKEN} {note}"[:_NOTE_LIMIT]
    users = user_note(existing)
    if not users:
        return own
    room = _NOTE_LIMIT - len(own) - 1
    return f"{users[:room]}\n{own}" if room > 0 else own


def user_note(content: str | None) -> str:
    """Return the part of a note that users wrote."""
    return (content or "").partition(NOTE_TOKEN)[0].rstrip()


def own_note(content: str | None) -> str:
    """Return the part of a note that the provider wrote, without its token."""
    return (content or "").partition(NOTE_TOKEN)[2].strip()


def _same(one: str, other: str) -> bool:
    """Whether two notes are equal except for numbers: a repeated hold only increases its seconds."""
    digits = str.maketrans("", "", "0123456789")
    return one.translate(digits) == other.translate(digits)


# For the agent, in its own transactions.


class MetadataDb:
    """
    What the agent reads and changes in Airflow's metadata database; each method is one or more short transactions.

    :param job: the scheduler's own job, which Airflow passes to ``on_starting``.
    :param exempt_dags: ids of DAGs that the agent never changes, like the DAGs with the control tag.
    """

    def __init__(self, job: Any, *, exempt_dags: Collection[str]) -> None:
        self._job = job
        self._exempt_dags = tuple(sorted(exempt_dags))
        self._depends_on_past: dict[str, tuple[str, bool]] = {}

    @property
    def job_id(self) -> str | None:
        """Id of the scheduler's job; None until Airflow has stored it."""
        job_id = self._read("id")
        return str(job_id) if job_id is not None else None

    @property
    def is_scheduler(self) -> bool:
        """Whether the job is a scheduler's; Airflow sets the type after it has called ``on_starting``."""
        return bool(self._read("job_type") == "SchedulerJob")

    def pulse(self) -> object:
        """
        Return a value that changes whenever the scheduler's thread sends its heartbeat, outside any transaction.

        The value is an attribute of the job object, which only that thread writes. If it changes after the agent has
        set a new view, every decision with an older view is committed or rolled back.
        """
        return self._read("latest_heartbeat")

    def _read(self, attribute: str) -> Any:
        """Return an attribute as the scheduler's thread last wrote it. SQLAlchemy might load it in this thread."""
        return self._job.__dict__.get(attribute)

    def alive_schedulers(self) -> tuple[str, ...]:
        """Return the job ids of all schedulers that Airflow counts as alive, oldest first."""
        threshold_s = conf.getint("scheduler", "scheduler_health_check_threshold", fallback=30)
        with _transaction() as session:
            ids = session.execute(
                select(Job.id)
                .where(
                    Job.job_type == "SchedulerJob",
                    Job.state == "running",
                    Job.latest_heartbeat > _now() - timedelta(seconds=threshold_s),
                )
                .order_by(Job.id)
            ).scalars()
            return tuple(str(job_id) for job_id in ids)

    def newest_run(self) -> int:
        """Return the highest id of a run; 0 when there is none."""
        with _transaction() as session:
            return int(session.execute(select(func.max(_runs.c.id))).scalar() or 0)

    def open_runs(self, *, up_to: int, spared_since: datetime | None = None) -> int:
        """
        Return how many runs of DAGs that are not exempt are queued or running, with an id of at most *up_to*.

        :param spared_since: as in :meth:`close_runs`; runs that it leaves open do not count.
        """
        query = select(func.count()).where(
            _runs.c.state.in_(_OPEN), _runs.c.id <= up_to, _not_spared(spared_since), ~self._is_exempt(_runs.c.dag_id)
        )
        with _transaction() as session:
            return int(session.execute(query).scalar_one())

    def close_runs(self, note: str, *, queued_for_s: float = 0.0, spared_since: datetime | None = None) -> int:
        """
        End every open run of the DAGs that are not exempt: failed, open tasks skipped, no callback, *note* on each.

        Airflow ends a task that executes at the task's next heartbeat, some seconds later. Idempotent; locked rows are
        left for the next call.

        :param queued_for_s: younger queued runs of unpaused DAGs stay open, because the gate is about to skip them.
        :param spared_since: queued runs that a user or an asset requested since then stay open; scheduled runs do not.
        :return: how many runs were closed.
        """
        closed = 0
        while batch := self._close_batch(note, queued_for_s, spared_since):
            closed += batch
            if batch < _BATCH:
                break
        return closed

    def _close_batch(self, note: str, queued_for_s: float, spared_since: datetime | None) -> int:
        now = _now()
        query = (
            select(_runs.c.id, _runs.c.dag_id, _runs.c.run_id)
            .where(_runs.c.state.in_(_OPEN), _not_spared(spared_since), ~self._is_exempt(_runs.c.dag_id))
            .order_by(_runs.c.id)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        if queued_for_s > 0:
            startable = select(_dags.c.dag_id).where(_dags.c.is_paused.is_(False))
            query = query.where(
                or_(
                    _runs.c.state == "running",
                    _runs.c.dag_id.not_in(startable),
                    _runs.c.queued_at.is_(None),
                    _runs.c.queued_at < now - timedelta(seconds=queued_for_s),
                )
            )
        with _transaction() as session:
            connection = session.connection()
            rows = connection.execute(query).all()
            if not rows:
                return 0
            ids = [row.id for row in rows]
            keys = select(_runs.c.dag_id, _runs.c.run_id).where(_runs.c.id.in_(ids)).subquery()
            of_runs = exists().where(_tasks.c.dag_id == keys.c.dag_id, _tasks.c.run_id == keys.c.run_id)
            connection.execute(_close_task_instances(of_runs, now))
            for run_id in ids:
                _put_note(connection, run_id, note)
            connection.execute(update(_runs).where(_runs.c.id.in_(ids)).values(state="failed", end_date=now))
            self._forget_deadlines(session, ids)
            self._update_run_limits(connection, {row.dag_id for row in rows})
            return len(ids)

    @staticmethod
    def _forget_deadlines(session: Any, run_ids: list[int]) -> None:
        if not hasattr(DagRun, "deadlines"):
            return
        from airflow.models.deadline import Deadline  # noqa: PLC0415  (3.1 and later)

        for deadline in session.execute(select(Deadline).where(Deadline.dagrun_id.in_(run_ids))).scalars():
            session.delete(deadline)

    @staticmethod
    def _update_run_limits(connection: Any, dag_ids: Collection[str]) -> None:
        """Update limits as :func:`_update_run_limit` does; before 3.2 the DAG processor does it at the next parse."""
        if not hasattr(DagModel, "exceeds_max_non_backfill"):
            return
        active = (
            select(func.count())
            .where(_runs.c.dag_id == _dags.c.dag_id, _runs.c.run_type != "backfill", _runs.c.state.in_(_OPEN))
            .correlate(_dags)
            .scalar_subquery()
        )
        connection.execute(
            update(_dags)
            .where(_dags.c.dag_id.in_(dag_ids))
            .values(exceeds_max_non_backfill=active >= _dags.c.max_active_runs)
        )

    # For the ledger.

    def read_states(self, *, above: int) -> tuple[int, dict[RunKey, str]]:
        """Return the highest run id, and the states of all open runs and of all runs with an id above *above*."""
        of_ours = ~self._is_exempt(_runs.c.dag_id)
        columns = (_runs.c.id, _runs.c.dag_id, _runs.c.run_id, _runs.c.state)
        with _transaction() as session:
            # Two queries, because each needs another index. The new runs first: the second query also returns a run
            # that is committed between the two, because it is open.
            new = session.execute(select(*columns).where(_runs.c.id > above, of_ours)).all()
            still_open = session.execute(select(*columns).where(_runs.c.state.in_(_OPEN), of_ours)).all()
            newest = session.execute(select(func.max(_runs.c.id))).scalar() or 0
        states = {(row.dag_id, row.run_id): str(row.state) for row in (*new, *still_open)}
        return int(newest), states

    def runs(self, keys: Collection[RunKey]) -> list[RunRow]:
        """Return the rows of those *keys* that exist."""
        found: list[RunRow] = []
        ordered = sorted(keys)
        for start in range(0, len(ordered), _BATCH):
            with _transaction() as session:
                query = select(*_ROW).where(_key_in(ordered[start : start + _BATCH]))
                found += [_to_row(row) for row in session.execute(query).all()]
        return found

    def tasks(self, keys: Collection[RunKey]) -> dict[RunKey, list[TaskState]]:
        """Return the task instances of the runs whose DAG has tasks that depend on the previous run."""
        with _transaction() as session:
            connection = session.connection()
            depending = self._depending_on_past(connection, sorted({dag_id for dag_id, _ in keys}))
            return self._task_states_of(connection, sorted(key for key in keys if key[0] in depending))

    @staticmethod
    def _task_states_of(connection: Any, keys: Sequence[RunKey]) -> dict[RunKey, list[TaskState]]:
        found: dict[RunKey, list[TaskState]] = defaultdict(list)
        for start in range(0, len(keys), _BATCH):
            query = (
                select(_tasks.c.dag_id, _tasks.c.run_id, _tasks.c.task_id, _tasks.c.map_index, _tasks.c.state)
                .where(tuple_(_tasks.c.dag_id, _tasks.c.run_id).in_(keys[start : start + _BATCH]))
                .order_by(_tasks.c.task_id, _tasks.c.map_index)
            )
            for row in connection.execute(query):
                state = None if row.state is None else str(row.state)
                found[row.dag_id, row.run_id].append((row.task_id, row.map_index, state))
        return dict(found)

    def _depending_on_past(self, connection: Any, dag_ids: Sequence[str]) -> set[str]:
        """
        Return the DAGs that have a task with ``depends_on_past`` in their newest serialized version.

        The database searches a DAG's JSON once, and again when the DAG's hash has changed.
        """
        for start in range(0, len(dag_ids), _BATCH):
            newest = _newest_serialized(dag_ids[start : start + _BATCH])
            hashes = {row.dag_id: row.dag_hash for row in connection.execute(newest(_serialized.c.dag_hash))}
            unknown = [
                dag_id for dag_id, found in hashes.items() if self._depends_on_past.get(dag_id, ("",))[0] != found
            ]
            if not unknown:
                continue
            text = cast(_serialized.c.data, Text)
            found_in_text = or_(*(text.contains(words, autoescape=True) for words in _DEPENDS_ON_PAST_TEXTS))
            columns = found_in_text.label("depends"), _serialized.c.data_compressed
            for row in connection.execute(_newest_serialized(unknown)(*columns)):
                unpacked = zlib.decompress(row.data_compressed).decode() if row.data_compressed else ""
                depends = bool(row.depends) or any(words in unpacked for words in _DEPENDS_ON_PAST_TEXTS)
                self._depends_on_past[row.dag_id] = hashes[row.dag_id], depends
        return {dag_id for dag_id in dag_ids if self._depends_on_past.get(dag_id, ("", False))[1]}

    def last_finished(self, dag_ids: Collection[str]) -> list[RunRow]:
        """Return the newest ended scheduled run of each DAG that has one, without runs that the provider skipped."""
        found: list[RunRow] = []
        ordered = sorted(dag_ids)
        for start in range(0, len(ordered), _BATCH):
            newest = (
                select(_runs.c.dag_id, func.max(_logical_date).label("at"))
                .where(
                    _runs.c.dag_id.in_(ordered[start : start + _BATCH]),
                    _runs.c.run_type == "scheduled",
                    _runs.c.state.in_(_ENDED),
                    ~_is_skipped(),
                )
                .group_by(_runs.c.dag_id)
                .subquery()
            )
            query = select(*_ROW).join(newest, and_(_runs.c.dag_id == newest.c.dag_id, _logical_date == newest.c.at))
            with _transaction() as session:
                found += [_to_row(row) for row in session.execute(query).all()]
        return found

    def dag_ids(self) -> tuple[str, ...]:
        """Return the ids of all DAGs that are in the folder and not exempt."""
        with _transaction() as session:
            query = select(_dags.c.dag_id).where(_present(), ~self._is_exempt(_dags.c.dag_id)).order_by(_dags.c.dag_id)
            return tuple(session.execute(query).scalars())

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        """
        Write runs that ended in another region into the history, with *note* on each; return how many were new.

        Ignores a run that exists, a run whose logical date another run has, and a run that is older than the DAG's
        newest scheduled run. Exception: a run that exists, has ended, and comes with tasks gets the result and the task
        states of the other region.
        """
        adopted = 0
        for start in range(0, len(runs), _BATCH):
            batch = runs[start : start + _BATCH]
            with _transaction() as session:
                connection = session.connection()
                newest = self._newest_scheduled(connection, [run.dag_id for run in batch])
                taken = self._taken(connection, batch)
                current = [
                    run
                    for run in batch
                    if run.logical_date is None or newest.get(run.dag_id, run.logical_date) <= run.logical_date
                ]
                new, _ = _insertable(current, taken)
                self._insert(connection, new, state=None, note=note)
                present = [run for run in current if run.tasks and run.key in taken.runs]
                tasks = self._task_states_of(connection, [run.key for run in present]) if present else {}
                for run in present:
                    if taken.runs[run.key] != run.status.value or set(tasks.get(run.key, ())) != set(run.tasks):
                        self._apply_result(connection, run, note)
                adopted += len(new)
        return adopted

    @staticmethod
    def _apply_result(connection: Any, run: LedgerRun, note: str) -> None:
        """Give an ended run the result, and its tasks the states, that another region published; idempotent."""
        row = connection.execute(
            select(_runs.c.id, _runs.c.state)
            .where(_runs.c.dag_id == run.dag_id, _runs.c.run_id == run.run_id, _runs.c.state.in_(_ENDED))
            .with_for_update()
        ).first()
        if row is None:
            return
        connection.execute(update(_runs).where(_runs.c.id == row.id).values(state=run.status.value))
        _put_note(connection, row.id, note)
        if not run.tasks:
            return
        of_run = and_(_tasks.c.dag_id == run.dag_id, _tasks.c.run_id == run.run_id)
        own = {
            (task.task_id, task.map_index): task.state
            for task in connection.execute(select(_tasks.c.task_id, _tasks.c.map_index, _tasks.c.state).where(of_run))
        }
        published = {(task_id, map_index): state for task_id, map_index, state in run.tasks}
        by_state = defaultdict(list)
        for key, state in published.items():
            if key in own and own[key] != state:
                by_state[state].append(key)
        for state, keys in by_state.items():
            for some in _batches(keys):
                connection.execute(update(_tasks).where(of_run, _task_in(some)).values(state=state))
        for some in _batches([key for key in own if key not in published]):
            connection.execute(delete(_tasks).where(of_run, _task_in(some)))
        missing = tuple(task for task in run.tasks if task[:2] not in own)
        _insert_tasks(connection, [replace(run, tasks=missing)])

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> dict[RunKey, str]:
        """Return the runs that this region must not or cannot queue, with the reason."""
        dag_ids = sorted({run.dag_id for run in runs})
        present: set[str] = set()
        opted_out: set[str] = set()
        dates: dict[tuple[str, datetime], str] = {}
        with _transaction() as session:
            connection = session.connection()
            for start in range(0, len(dag_ids), _BATCH):
                batch = dag_ids[start : start + _BATCH]
                ours = select(_dags.c.dag_id).where(
                    _dags.c.dag_id.in_(batch), _present(), ~self._is_exempt(_dags.c.dag_id)
                )
                present |= set(connection.execute(ours).scalars())
                tagged = select(DagTag.dag_id).where(DagTag.dag_id.in_(batch), DagTag.name == NO_RERUN_TAG)
                opted_out |= set(connection.execute(tagged).scalars())
            for start in range(0, len(runs), _BATCH):
                dates |= self._taken(connection, runs[start : start + _BATCH]).dates
        refused = {}
        for run in runs:
            other = dates.get((run.dag_id, run.logical_date)) if run.logical_date is not None else None
            if run.dag_id not in present:
                refused[run.key] = "its DAG is not in this region, or exempt"
            elif run.dag_id in opted_out:
                refused[run.key] = f"its DAG is tagged {NO_RERUN_TAG}"
            elif run.run_type == "backfill" and "backfill_id" not in _runs.c:
                refused[run.key] = "before Airflow 3, only the command that started a backfill can continue it"
            elif other is not None and other != run.run_id:
                refused[run.key] = f"another run has its logical date: {other}"
        return refused

    def resume(self, runs: Sequence[LedgerRun], note: str) -> dict[RunKey, str]:
        """
        Queue runs with their old ids and all their other values; all their tasks execute again. Idempotent.

        A run that is already open does not change. ``queued_at`` becomes ``taken_at``, or later.

        :return: the runs that could not be queued, with the reason; all others are queued.
        """
        failed: dict[RunKey, str] = {}
        for start in range(0, len(runs), _BATCH):
            batch = runs[start : start + _BATCH]
            with _transaction() as session:
                connection = session.connection()
                taken = self._taken(connection, batch)
                new, refused = _insertable(batch, taken)
                self._insert(connection, new, state="queued", note=note)
                self._update_run_limits(connection, {run.dag_id for run in new})
            failed |= refused
            for run in batch:
                if run.key not in taken.runs or taken.runs[run.key] in _OPEN:
                    continue
                try:
                    self._queue_again(run, note)
                except Exception as error:  # an error of Airflow for this run must not stop the other runs
                    failed[run.key] = f"this region cannot queue it: {type(error).__name__}: {error}"
        return failed

    @staticmethod
    def _queue_again(run: LedgerRun, note: str) -> None:
        """Clear a run that this region closed, as Airflow does: it keeps the attempts and allows another one."""
        with _transaction() as session:
            found = session.execute(
                select(DagRun).where(DagRun.dag_id == run.dag_id, DagRun.run_id == run.run_id)
            ).scalar_one_or_none()
            if found is None or found.state in _OPEN:
                return
            taken_at = run.taken_at or _now()
            if found.queued_at is not None and found.queued_at >= taken_at:
                return  # another agent has queued it
            tasks = session.execute(
                select(TaskInstance).where(TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id)
            ).scalars()
            clear_task_instances(list(tasks), session, dag_run_state="queued")
            session.flush()
            queued_at = max(_now(), taken_at)
            values: dict[str, Any] = {
                "state": "queued",
                "start_date": None,
                "end_date": None,
                "queued_at": queued_at,
                "last_scheduling_decision": _queue_date(found),
            }
            if to_conf(found.conf)[0] != run.conf:
                # A user requested a run with the same id while this region was a standby. The provider closed that
                # run, so the conf of the resumed run counts.
                values["conf"] = json.loads(run.conf) if run.conf is not None else {}
            connection = session.connection()
            connection.execute(update(_runs).where(_runs.c.id == found.id).values(values))
            MetadataDb._update_run_limits(connection, [run.dag_id])
            _put_note(connection, found.id, note)

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        """
        Let queued runs start that have no room because later runs, which wait for them, take all of it.

        A run with ``depends_on_past`` counts towards ``max_active_runs`` while it waits for the previous run. If its
        DAG is at the limit and the previous run is still queued, neither of them executes. For each such DAG, one
        running run goes back into the queue, and its tasks do not change. This is the latest run that has not begun. If
        all have begun, it is the latest run that has no executing task, and none that ended in the last minute. The run
        that it waits for starts next. The agent calls this in every turn, so a later call handles what one call misses.

        :param runs: the runs that wait in the queue; runs that Airflow would not start even with room are ignored.
        :return: how many runs went back into the queue.
        """
        with _transaction() as session:
            connection = session.connection()
            first: dict[str, Any] = {}
            for row in self._without_room(connection, [run.key for run in runs]):
                first.setdefault(row.dag_id, row)
            gives = {
                run_id: first[dag_id].id
                for dag_id in sorted(self._depending_on_past(connection, sorted(first)))
                if (run_id := self._run_to_requeue(connection, dag_id, first[dag_id].at)) is not None
            }
            if not gives:
                return 0
            both = select(_runs.c.id).where(_runs.c.id.in_([*gives, *gives.values()]))
            locked = {*connection.execute(both.with_for_update(skip_locked=True)).scalars()}
            pairs = {later: earlier for later, earlier in gives.items() if {later, earlier} <= locked}
            works = _task_exists(_tasks.c.state.in_(_AT_WORK))
            # A second statement, so that it sees what the scheduler committed before it released the rows.
            result = connection.execute(
                update(_runs)
                .where(_runs.c.id.in_([*pairs]), _runs.c.state == "running", ~works)
                .values(state="queued", queued_at=_now(), start_date=None, last_scheduling_decision=_queue_date_of_row)
            )
            # Airflow starts runs without a scheduling decision first; the date alone does not decide the order.
            connection.execute(
                update(_runs)
                .where(_runs.c.id.in_([*pairs.values()]), _runs.c.state == "queued")
                .values(last_scheduling_decision=None)
            )
            return int(result.rowcount)

    @staticmethod
    def _without_room(connection: Any, keys: Sequence[RunKey]) -> list[Any]:
        """Return id, DAG and date (``at``) of runs that Airflow would start if their DAG had room, earliest first."""
        others = _runs.alias()
        running = (
            select(func.count())
            .where(others.c.dag_id == _runs.c.dag_id, others.c.state == "running", _takes_room(others))
            .scalar_subquery()
        )
        found: list[Any] = []
        for start in range(0, len(keys), _BATCH):
            query = (
                select(_runs.c.id, _runs.c.dag_id, _logical_date.label("at"))
                .join(_dags, _dags.c.dag_id == _runs.c.dag_id)
                .where(
                    _key_in(keys[start : start + _BATCH]),
                    _runs.c.state == "queued",
                    _logical_date.is_not(None),
                    _queue_date_of_row <= _now(),
                    _takes_room(_runs),
                    _dags.c.is_paused.is_(False),
                    _dags.c.max_active_runs > 0,
                    running >= _dags.c.max_active_runs,
                )
            )
            found += connection.execute(query)
        return sorted(found, key=lambda row: (row.dag_id, row.at))

    @staticmethod
    def _run_to_requeue(connection: Any, dag_id: str, earliest: datetime) -> int | None:
        """Return the id of the run that gives its room to the run of date *earliest*; None if no run is idle."""
        has_begun = _task_exists(_tasks.c.state.is_not(None))
        # Before Airflow 3, only the command that started a backfill starts its runs; the scheduler starts none.
        can_restart = true() if "backfill_id" in _runs.c else _runs.c.run_type != "backfill"
        query = (
            select(_runs.c.id)
            .where(
                _runs.c.dag_id == dag_id,
                _runs.c.state == "running",
                _takes_room(_runs),
                can_restart,
                _logical_date > earliest,
                ~_task_exists(_tasks.c.state.in_(_AT_WORK)),
                or_(_task_exists(_tasks.c.state.is_(None)), ~_task_exists()),
                ~_task_exists(_tasks.c.end_date > _now() - _IDLE_FOR),
            )
            .order_by(has_begun, _logical_date.desc())
            .limit(1)
        )
        found: int | None = connection.execute(query).scalar()
        return found

    def apply_outcomes(self, runs: Sequence[LedgerRun], note: str) -> None:
        """Give closed runs, and their tasks if the ledger has them, the result that another region published."""
        for start in range(0, len(runs), _BATCH):
            batch = runs[start : start + _BATCH]
            with _transaction() as session:
                connection = session.connection()
                for run in batch:
                    self._apply_result(connection, run, note)

    def forget_closed(self, created: Mapping[str, datetime | None]) -> int:
        """
        Delete scheduled runs that the provider closed in a standby before a task executed; return how many.

        :param created: for each DAG id, the logical date after which no region has created a run; None: no region has
            created any.
        """
        query = select(_runs.c.id, _runs.c.dag_id, _runs.c.run_id, _logical_date.label("at")).where(
            _runs.c.run_type == "scheduled",
            _is_skipped(),
            ~self._is_exempt(_runs.c.dag_id),
        )
        with _transaction() as session:
            connection = session.connection()
            rows = [
                row
                for row in connection.execute(query)
                if row.dag_id in created and (created[row.dag_id] is None or row.at > created[row.dag_id])
            ]
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                keys = [(row.dag_id, row.run_id) for row in batch]
                ids = [row.id for row in batch]
                connection.execute(delete(_tasks).where(tuple_(_tasks.c.dag_id, _tasks.c.run_id).in_(keys)))
                connection.execute(delete(_notes).where(_notes.c.dag_run_id.in_(ids)))
                connection.execute(delete(_runs).where(_runs.c.id.in_(ids)))
            # The scheduler continues after the newest run that remains.
            for dag_id in sorted({row.dag_id for row in rows}):
                self._continue_after_newest(connection, dag_id)
            return len(rows)

    @staticmethod
    def _continue_after_newest(connection: Any, dag_id: str) -> None:
        newest = connection.execute(
            select(*_ROW)
            .where(_runs.c.dag_id == dag_id, _runs.c.run_type == "scheduled")
            .order_by(_logical_date.desc())
            .limit(1)
        ).first()
        if newest is None:
            # Airflow computes these values at the next parse of the file.
            values: dict[str, Any] = dict.fromkeys(
                ("next_dagrun", "next_dagrun_data_interval_start", "next_dagrun_data_interval_end",
                 "next_dagrun_create_after")
            )  # fmt: skip
        else:
            values = _next_dagrun(_to_row(newest))
        connection.execute(update(_dags).where(_dags.c.dag_id == dag_id).values(values))

    @staticmethod
    def _newest_scheduled(connection: Any, dag_ids: Collection[str]) -> dict[str, datetime]:
        query = (
            select(_runs.c.dag_id, func.max(_logical_date).label("at"))
            .where(_runs.c.dag_id.in_(sorted(set(dag_ids))), _runs.c.run_type == "scheduled")
            .group_by(_runs.c.dag_id)
        )
        return {row.dag_id: row.at for row in connection.execute(query) if row.at is not None}

    @staticmethod
    def _taken(connection: Any, runs: Sequence[LedgerRun]) -> _Taken:
        """Return which of these keys and logical dates the database has: states by key, run ids by DAG and date."""
        columns = (_runs.c.dag_id, _runs.c.run_id, _runs.c.state, _logical_date.label("at"))
        dates = [(run.dag_id, run.logical_date) for run in runs if run.logical_date is not None]
        rows = list(connection.execute(select(*columns).where(_key_in([run.key for run in runs]))))
        if dates:
            rows += connection.execute(select(*columns).where(tuple_(_runs.c.dag_id, _logical_date).in_(dates)))
        return _Taken(
            runs={(row.dag_id, row.run_id): str(row.state) for row in rows},
            dates={(row.dag_id, row.at): row.run_id for row in rows if row.at is not None},
        )

    @staticmethod
    def _insert(connection: Any, runs: Sequence[LedgerRun], *, state: str | None, note: str) -> None:
        """
        Insert runs with *state*, or with their own result if it is None; the DAG's next scheduled run comes after them.

        The same number of statements for one run and for many.
        """
        if not runs:
            return
        now = _now()
        versions = _newest_versions(connection, {run.dag_id for run in runs})
        connection.execute(insert(_runs), [_new_row(run, state, now, versions.get(run.dag_id)) for run in runs])
        ids = connection.execute(select(_runs.c.id).where(_key_in([run.key for run in runs]))).scalars().all()
        content = compose_note(None, note)
        connection.execute(insert(_notes), [{"dag_run_id": run_id, "content": content} for run_id in ids])
        scheduled = [run for run in runs if run.run_type == "scheduled" and run.logical_date is not None]
        if scheduled:
            is_behind = or_(_dags.c.next_dagrun.is_(None), _dags.c.next_dagrun <= bindparam("of_date"))
            names = _next_dagrun(scheduled[0])
            connection.execute(
                update(_dags)
                .where(_dags.c.dag_id == bindparam("of_dag"), is_behind)
                .values({name: bindparam(f"new_{name}") for name in names}),
                [
                    {
                        "of_dag": run.dag_id,
                        "of_date": run.logical_date,
                        **{f"new_{name}": value for name, value in _next_dagrun(run).items()},
                    }
                    for run in scheduled
                ],
            )
        _insert_tasks(connection, runs if state is None else [])

    def pause_all(self) -> int:
        """Pause every DAG that is not exempt; return how many were not paused before."""
        with _transaction() as session:
            result = session.connection().execute(
                update(_dags)
                .where(_dags.c.is_paused.is_(False), ~self._is_exempt(_dags.c.dag_id))
                .values(is_paused=True)
            )
            return int(result.rowcount)

    def unpaused_dags(self) -> tuple[str, ...]:
        """Return the ids of the DAGs that are unpaused, in the folder and not exempt."""
        with _transaction() as session:
            ids = session.execute(
                select(_dags.c.dag_id)
                .where(_dags.c.is_paused.is_(False), _present(), ~self._is_exempt(_dags.c.dag_id))
                .order_by(_dags.c.dag_id)
            ).scalars()
            return tuple(ids)

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int:
        """Pause or unpause those of *dag_ids* that exist and are not exempt; return how many changed."""
        changed, ids = 0, sorted(dag_ids)
        for start in range(0, len(ids), _BATCH):
            batch = _dags.c.dag_id.in_(ids[start : start + _BATCH])
            with _transaction() as session:
                result = session.connection().execute(
                    update(_dags)
                    .where(batch, _dags.c.is_paused.is_(not paused), ~self._is_exempt(_dags.c.dag_id))
                    .values(is_paused=paused)
                )
                changed += int(result.rowcount)
        return changed

    def drop_held_notes(self) -> int:
        """Remove the "held" note from runs that are no longer queued; return how many queued runs have one."""
        with _transaction() as session:
            connection = session.connection()
            rows = connection.execute(
                select(_notes.c.dag_run_id, _notes.c.content, _runs.c.state)
                .join(_runs, _runs.c.id == _notes.c.dag_run_id)
                .where(_notes.c.content.contains(_HELD, autoescape=True))
                .order_by(_runs.c.state == "queued")
                .limit(_BATCH)
            ).all()
            waiting = 0
            for row in rows:
                if row.state == "queued":
                    waiting += 1
                    continue
                ours = and_(_notes.c.dag_run_id == row.dag_run_id, _notes.c.content == row.content)
                left, own = user_note(row.content), own_note(row.content)
                if _RESUMED in own:
                    left = compose_note(left, own[own.index(_RESUMED) :])
                connection.execute((update(_notes).values(content=left) if left else delete(_notes)).where(ours))
            return waiting

    def last_task_end(self, since: datetime) -> datetime | None:
        """
        Return when the last task ended that had a worker, and that started no earlier than *since*; None if none did.

        Reads the newest runs only, because the times of tasks, and those times of runs that would help, have no index.
        """
        newest = select(_runs.c.dag_id, _runs.c.run_id).order_by(_runs.c.id.desc()).limit(_NEWEST_RUNS).subquery()
        with _transaction() as session:
            at: datetime | None = session.execute(
                select(func.max(_tasks.c.end_date))
                .join(newest, and_(newest.c.dag_id == _tasks.c.dag_id, newest.c.run_id == _tasks.c.run_id))
                .where(
                    _tasks.c.start_date >= since,
                    _tasks.c.end_date >= since,
                    _tasks.c.hostname != "",
                    _tasks.c.state.in_(("success", "failed")),
                )
            ).scalar()
            return at

    def _is_exempt(self, dag_id: Any) -> Any:
        tagged = select(DagTag.dag_id).where(DagTag.name == CONTROL_TAG)
        return or_(dag_id.in_(self._exempt_dags), dag_id.in_(tagged))


_logical_date = _runs.c.logical_date if "logical_date" in _runs.c else _runs.c.execution_date
_queue_date_of_row = _runs.c["run_after" if "run_after" in _runs.c else _logical_date.name]
"""As :func:`_queue_date`."""
_IS_PICKLED = isinstance(_runs.c.conf.type, PickleType)


def _task_exists(*conditions: Any) -> Any:
    """Return the condition that a run has a task instance that meets *conditions*."""
    return exists().where(_tasks.c.dag_id == _runs.c.dag_id, _tasks.c.run_id == _runs.c.run_id, *conditions)


def _is_skipped() -> Any:
    """
    Return the condition that the provider has closed a run before any of its tasks executed.

    It takes both to know this: the run has the provider's note, and no task instance ever had a worker.
    """
    noted = or_(*(_notes.c.content.contains(text, autoescape=True) for text in _CLOSED))
    return and_(
        _runs.c.state.in_(_ENDED),
        exists().where(_notes.c.dag_run_id == _runs.c.id, noted),
        ~_task_exists(_tasks.c.hostname != ""),
    )


_ROW = (
    _is_skipped().label("is_skipped"),
    _runs.c.id,
    _runs.c.dag_id,
    _runs.c.run_id,
    _runs.c.run_type,
    _runs.c.state,
    _logical_date.label("logical_date"),
    _runs.c.data_interval_start,
    _runs.c.data_interval_end,
    _runs.c.queued_at,
    # Airflow 2 stores it pickled. If one cannot be read, the query must still return all others.
    (type_coerce(_runs.c.conf, LargeBinary) if _IS_PICKLED else _runs.c.conf).label("conf"),
    *(
        (_runs.c[name] if name in _runs.c else null()).label(name)
        for name in ("run_after", "partition_key", "partition_date")
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    runs: dict[RunKey, str]
    dates: dict[tuple[str, datetime], str]


def _insertable(runs: Iterable[LedgerRun], taken: _Taken) -> tuple[list[LedgerRun], dict[RunKey, str]]:
    """Return the runs that can be inserted, and those whose logical date another run has, with the reason."""
    dates, found, refused = dict(taken.dates), [], {}
    for run in runs:
        if run.key in taken.runs:
            continue
        if run.logical_date is not None:
            other = dates.setdefault((run.dag_id, run.logical_date), run.run_id)
            if other != run.run_id:
                refused[run.key] = f"another run has its logical date: {other}"
                continue
        found.append(run)
    return found, refused


def _to_row(row: Any) -> RunRow:
    values = dict(row._mapping)
    values["is_skipped"] = bool(values["is_skipped"])
    if _IS_PICKLED and values["conf"] is not None:
        try:
            values["conf"] = _runs.c.conf.type.pickler.loads(values["conf"])
        except Exception as error:  # the pickled classes may raise any error
            values |= {"conf": None, "conf_lost": f"it cannot be read ({type(error).__name__}: {error})"}
    return RunRow(**values)


def _key_in(keys: Sequence[RunKey]) -> Any:
    return tuple_(_runs.c.dag_id, _runs.c.run_id).in_(keys)


def _not_spared(since: datetime | None) -> Any:
    """Return the condition that a run is not a queued run that a user or an asset requested since *since*."""
    if since is None:
        return true()
    return or_(
        _runs.c.state != "queued",
        _runs.c.run_type == "scheduled",
        _runs.c.queued_at.is_(None),
        _runs.c.queued_at < since,
    )


def _takes_room(runs: Any) -> Any:
    """Return the condition that a running run counts towards its DAG's ``max_active_runs``."""
    return runs.c.backfill_id.is_(None) if "backfill_id" in runs.c else true()


def _task_in(keys: Sequence[tuple[str, int]]) -> Any:
    return tuple_(_tasks.c.task_id, _tasks.c.map_index).in_(keys)


def _batches(keys: Sequence[tuple[str, int]]) -> Iterator[Sequence[tuple[str, int]]]:
    return (keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH))


def _newest_versions(connection: Any, dag_ids: Iterable[str]) -> dict[str, Any]:
    """Return the ids of the newest versions of the DAGs; Airflow 2 has none."""
    if _versions is None:
        return {}
    query = select(_versions.c.dag_id, _versions.c.id).where(_is_newest_version(sorted(dag_ids)))
    return {row.dag_id: row.id for row in connection.execute(query)}


def _is_newest_version(dag_ids: Sequence[str]) -> Any:
    newest = (
        select(_versions.c.dag_id, func.max(_versions.c.version_number))
        .where(_versions.c.dag_id.in_(dag_ids))
        .group_by(_versions.c.dag_id)
    )
    return tuple_(_versions.c.dag_id, _versions.c.version_number).in_(newest)


def _newest_serialized(dag_ids: Sequence[str]) -> Callable[..., Any]:
    """Return a function that makes a query for columns of the newest serialized version of each DAG."""

    def columns(*wanted: Any) -> Any:
        query = select(_serialized.c.dag_id, *wanted)
        if _versions is None:
            return query.where(_serialized.c.dag_id.in_(dag_ids))
        return query.join(_versions, _versions.c.id == _serialized.c.dag_version_id).where(_is_newest_version(dag_ids))

    return columns


def _new_row(run: LedgerRun, state: str | None, now: datetime, version: Any) -> dict[str, Any]:
    """Return the columns of another region's run: queued if *state* is set, else ended."""
    values: dict[str, Any] = {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "run_type": run.run_type,
        "state": state or run.status.value,
        # An adopted run was never queued in this region, so it has no time. With a time, a later resume would take the
        # run for one that it has queued already (core/bookkeeping.py), and would not start a cleared run again.
        "queued_at": (run.taken_at or now) if state else None,
        "start_date": None if state else now,
        "end_date": None if state else now,
        "data_interval_start": run.data_interval_start,
        "data_interval_end": run.data_interval_end,
        "conf": json.loads(run.conf) if run.conf is not None else {},
        _logical_date.name: run.logical_date,
    }
    run_after = run.run_after or run.data_interval_end or run.logical_date or now
    if state is not None:
        values["last_scheduling_decision"] = run_after if "run_after" in _runs.c else run.logical_date
    if "run_after" in _runs.c:
        values["run_after"] = run_after
    else:
        values["external_trigger"] = run.run_type == "manual"
    later = {
        "created_dag_version_id": version,
        "partition_key": run.partition_key,
        "partition_date": run.partition_date,
    }
    return values | {name: value for name, value in later.items() if name in _runs.c}


def _insert_tasks(connection: Any, runs: Sequence[LedgerRun]) -> None:
    """Insert the task instances of ended runs: the tasks of the next run depend on their states; none executes."""
    if not any(run.tasks for run in runs):
        return
    now = _now()
    versions = _newest_versions(connection, {run.dag_id for run in runs})
    rows: list[dict[str, Any]] = [
        {
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "task_id": task_id,
            "map_index": map_index,
            "state": state,
            "start_date": now,
            "end_date": now,
            "duration": 0.0,
            "try_number": 0,
            "max_tries": 0,
            "hostname": "",
            "unixname": "",
            "pool": "default_pool",
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
            "operator": "",
            "executor_config": {},  # without it, the REST API of Airflow 2 answers 500 for the list of task instances
            "task_display_name": task_id,
            **({"dag_version_id": versions.get(run.dag_id)} if "dag_version_id" in _tasks.c else {}),
        }
        for run in runs
        for task_id, map_index, state in run.tasks
    ]
    connection.execute(insert(_tasks), rows)


def _present() -> Any:
    return _dags.c.is_stale.is_(False) if "is_stale" in _dags.c else _dags.c.is_active.is_(True)


def _next_dagrun(run: LedgerRun | RunRow) -> dict[str, Any]:
    """
    Return the values of a DAG's row that make the scheduler create the run after *run*, which exists.

    They name *run* itself as the DAG's next run. The scheduler finds that it exists, creates nothing, and computes the
    following run with the DAG's own timetable and catchup. The next parse of the file does the same.
    """
    return {
        "next_dagrun": run.logical_date,
        "next_dagrun_data_interval_start": run.data_interval_start,
        "next_dagrun_data_interval_end": run.data_interval_end,
        "next_dagrun_create_after": run.run_after or run.data_interval_end or run.logical_date,
    }


@contextlib.contextmanager
def _transaction() -> Iterator[Session]:
    """Yield a new session with one transaction: committed at the end, rolled back on an error."""
    from airflow import settings  # noqa: PLC0415  (Airflow makes the engine after this module is imported)

    with Session(bind=settings.engine, autoflush=False, expire_on_commit=False) as session, session.begin():
        yield session


# For the inventory.


class MetadataInventoryDb:
    """Lists the DAGs and settings of the region's Airflow; each method is a short transaction that only reads."""

    def dag_versions(self) -> dict[str, str]:
        """Return, for each DAG in the folder, a text that changes when its file or its serialized form changes."""
        with _transaction() as session:
            return {row.dag_id: f"{row.dag_hash} {row.code_mark}" for row in session.execute(_latest_dags())}

    def dag_facts(self, dag_ids: Collection[str]) -> dict[str, DagFacts]:
        """Return the facts of those DAGs that exist."""
        with _transaction() as session:
            rows = session.execute(_latest_dags().where(_dags.c.dag_id.in_(sorted(dag_ids)))).all()
            forms = session.execute(
                select(SerializedDagModel).where(_serialized_key.in_([row.serialized_key for row in rows]))
            ).scalars()
            data_of = {form.dag_id: form.data for form in forms}
            sources = dict(
                session.execute(
                    select(_code_key, DagCode.__table__.c.source_code).where(
                        _code_key.in_([row.code_key for row in rows])
                    )
                ).all()
            )
        return {
            row.dag_id: DagFacts(
                source=_digest(sources.get(row.code_key) or ""),
                shape=_digest(json.dumps(_shape(data_of[row.dag_id]), sort_keys=True, default=str)),
                traits=_traits(data_of[row.dag_id]),
            )
            for row in rows
            if row.dag_id in data_of
        }

    def import_errors(self) -> tuple[str, ...]:
        """Return the files that Airflow could not import, sorted, with paths relative to the DAG folder."""
        folder = conf.get("core", "dags_folder", fallback="").rstrip("/") + "/"
        with _transaction() as session:
            names = session.execute(select(ParseImportError.__table__.c.filename)).scalars()
            return tuple(sorted({(name or "?").removeprefix(folder) for name in names}))

    def values(self) -> dict[str, dict[str, str | None]]:
        """Return names and values by kind; a value that cannot be decrypted is None. Only for fingerprints."""
        variables, connections, pools = Variable.__table__, Connection.__table__, Pool.__table__
        with _transaction() as session:
            variable_rows = session.execute(select(variables)).all()
            connection_rows = session.execute(select(connections)).all()
            pool_rows = session.execute(select(pools)).all()
        return {
            "variables": {row.key: _plain(row.val, row.is_encrypted) for row in variable_rows},
            "connections": {row.conn_id: _connection_text(row) for row in connection_rows},
            "pools": {row.pool: f"{row.slots} {row.include_deferred}" for row in pool_rows},
        }


_forms = SerializedDagModel.__table__
_codes = DagCode.__table__
_serialized_key = _forms.c.id if "id" in _forms.c else _forms.c.dag_id
_code_key = _codes.c.id if "id" in _codes.c else _codes.c.fileloc_hash


def _latest_dags() -> Any:
    """Return the query of the DAGs in the folder, with the keys of their newest serialized form and code."""
    columns = (
        _dags.c.dag_id,
        _serialized_key.label("serialized_key"),
        _forms.c.dag_hash,
        _code_key.label("code_key"),
        # Airflow 3 keeps a digest. Airflow 2 does not, so the time of the last change has to show a change.
        (_codes.c.source_code_hash if "source_code_hash" in _codes.c else _codes.c.last_updated).label("code_mark"),
    )
    query = select(*columns).join(_forms, _forms.c.dag_id == _dags.c.dag_id).where(_present())
    if "created_at" not in _forms.c:
        return query.join(_codes, _codes.c.fileloc_hash == _forms.c.fileloc_hash)
    # Airflow 3 keeps a row, and a row of code, for each version of a DAG.
    newest = select(_forms.c.dag_id, func.max(_forms.c.created_at).label("at")).group_by(_forms.c.dag_id).subquery()
    return query.join(newest, and_(newest.c.dag_id == _forms.c.dag_id, newest.c.at == _forms.c.created_at)).join(
        _codes, _codes.c.dag_version_id == _forms.c.dag_version_id
    )


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:16]


_DAG_SHAPE = ("timetable", "catchup", "max_active_runs", "max_active_tasks", "tags", "is_paused_upon_creation")
_TASK_SHAPE = (
    "task_id",
    "task_type",
    "_task_type",
    "downstream_task_ids",
    "pool",
    "queue",
    "trigger_rule",
    "retries",
    "depends_on_past",
    "wait_for_downstream",
    "_is_mapped",
)


def _serialized_tasks_of(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [task.get("__var", task) for task in data["dag"].get("tasks", ())]


def _shape(data: Mapping[str, Any]) -> Any:
    """
    Return the structure of a serialized DAG: names, types, order, schedule.

    It contains no arguments of tasks, because they may contain values that the file read from a variable.
    """
    dag = data["dag"]
    return {
        "dag": {name: _sorted(dag[name]) for name in _DAG_SHAPE if name in dag},
        "tasks": sorted(
            (
                {name: _sorted(task[name]) for name in _TASK_SHAPE if name in task}
                for task in _serialized_tasks_of(data)
            ),
            key=lambda task: str(task.get("task_id")),
        ),
    }


def _sorted(value: Any) -> Any:
    """Return *value*; a list of texts is sorted, because Airflow does not always keep its order."""
    is_texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return sorted(value) if is_texts else value


def _traits(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which parts of its own region's history a DAG reads."""
    found = []
    # wait_for_downstream makes Airflow set depends_on_past, too.
    if any(
        task.get("depends_on_past") or task.get("partial_kwargs", {}).get("depends_on_past")
        for task in _serialized_tasks_of(data)
    ):
        found.append(DEPENDS_ON_PAST)
    if any(each.get("dependency_type") == "sensor" for each in data["dag"].get("dag_dependencies", ())):
        found.append(EXTERNAL_SENSOR)
    return tuple(found)


def _plain(text: str | None, is_encrypted: bool | None) -> str | None:
    """Return a stored value in plain text; None if this environment's key cannot decrypt it."""
    if not text or not is_encrypted:
        return text or ""
    from airflow.models.crypto import get_fernet  # noqa: PLC0415
    from cryptography.fernet import InvalidToken  # noqa: PLC0415

    try:
        return str(get_fernet().decrypt(text.encode()).decode())
    except (InvalidToken, ValueError):
        return None


def _connection_text(row: Any) -> str | None:
    password = _plain(row.password, row.is_encrypted)
    extra = _plain(row.extra, row.is_extra_encrypted)
    if password is None or extra is None:
        return None
    with contextlib.suppress(ValueError):
        extra = json.dumps(json.loads(extra), sort_keys=True)
    return json.dumps([row.conn_type, row.host, row.schema, row.login, row.port, password, extra])
