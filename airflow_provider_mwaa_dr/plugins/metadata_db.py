"""
Airflow's metadata database, as the gate and the agent need it: the only module that touches Airflow's models.

Two kinds of callers. The gate's functions (:func:`skip_run`, :func:`hold_run`) work inside the scheduler's own open
transaction: they never commit, never flush, and what they send goes through a savepoint, so an error of ours leaves
that transaction usable. :class:`MetadataDb` is the agent's, with short transactions of its own in its own thread; it
leaves alone rows that somebody else has locked and finds them on its next turn.

No statement's cost grows with the number of statements per task instance: task instances are closed by one UPDATE.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.configuration import conf
from airflow.jobs.job import Job
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import State
from sqlalchemy import and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, object_session

from airflow_provider_mwaa_dr.core.config import CONTROL_TAG, is_exempt
from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN

_OPEN = ("queued", "running")
_HELD = f"{NOTE_TOKEN} held"
_NOTE_LIMIT = 1000
"""Characters that ``dag_run_note.content`` takes."""
_BATCH = 200
"""Runs closed in one transaction: short ones, the scheduler passes over what they lock."""

# Tables, not classes: a synonym (DagRun.state) or a session has no business in a bulk statement.
_runs = DagRun.__table__
_tasks = TaskInstance.__table__
_notes = DagRunNote.__table__
_dags = DagModel.__table__


# The gate's side: inside the scheduler's transaction.


def skip_run(dag_run: Any, note: str) -> None:
    """
    Close *dag_run*, which is about to start, without executing anything: success, every open task skipped, no callback.

    The same number of statements for 10 task instances and for 10,000. Airflow's books are kept as if the run had
    ended by itself, so that a DAG with ``max_active_runs`` gets its next run at once.
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
    _book(session, dag_run, others)


def hold_run(dag_run: Any, note: str) -> bool:
    """
    Put *dag_run* back into the queue, behind the others; the scheduler tries it again by itself.

    :return: whether the note is a new one: a repeated hold writes nothing and deserves no log line.
    """
    session = object_session(dag_run)
    dag_run.set_state("queued")
    dag_run.last_scheduling_decision = _now()
    with _savepoint(session) as connection:
        written = _put_note(connection, dag_run.id, note)
    if written:
        session.expire(dag_run, ["dag_run_note"])
    return written


def dag_is_exempt(dag_run: Any, exempt_dags: Collection[str]) -> bool:
    """Return whether the provider leaves this run's DAG alone. No query: the scheduler has just set ``dag_run.dag``."""
    return is_exempt(dag_run.dag_id, getattr(dag_run.dag, "tags", None) or (), exempt_dags)


def _now() -> datetime:
    return datetime.now(tz=timezone.utc)


@contextlib.contextmanager
def _savepoint(session: Any) -> Iterator[Any]:
    """
    Yield the session's connection inside a savepoint.

    Of the connection, not of the session: ``session.begin_nested`` fires before_commit, which Airflow's scheduler
    answers with "UNEXPECTED COMMIT".
    """
    connection = session.connection()
    with connection.begin_nested():
        yield connection


def _of_run(dag_run: Any) -> Any:
    return and_(_tasks.c.dag_id == dag_run.dag_id, _tasks.c.run_id == dag_run.run_id)


def _close_task_instances(of_runs: Any, now: datetime) -> Any:
    unfinished = [state for state in State.unfinished if state is not None]
    return (
        update(_tasks)
        .where(of_runs, or_(_tasks.c.state.is_(None), _tasks.c.state.in_(unfinished)))
        .values(state="skipped", start_date=func.coalesce(_tasks.c.start_date, now), end_date=now)
    )


def _drop_deadlines(session: Any, dag_run: Any) -> None:
    """Forget the run's deadlines (3.1 and later): a run that never was must not raise an alarm."""
    if not getattr(dag_run.dag, "deadline", None):
        return
    for deadline in list(dag_run.deadlines):
        session.delete(deadline)


def _book(session: Any, dag_run: Any, others: int) -> None:
    """
    Do what the scheduler does when a run of the DAG ends; without it, no further run is created until the next parse.

    3.2 and later keep a flag. Before, ``next_dagrun_create_after`` is empty while the DAG is at its limit, and the
    scheduler fills it when a scheduled run ends.
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


# Notes: the user's text, then one of ours.


def _put_note(connection: Any, dag_run_id: int, note: str) -> bool:
    """Put *note* behind what people wrote, in place of an earlier one of ours; return whether anything was written."""
    row = connection.execute(select(_notes.c.content).where(_notes.c.dag_run_id == dag_run_id)).first()
    if row is None:
        connection.execute(insert(_notes).values(dag_run_id=dag_run_id, content=compose_note(None, note)))
        return True
    if _same(own_note(row.content), note):
        return False
    connection.execute(
        update(_notes).where(_notes.c.dag_run_id == dag_run_id).values(content=compose_note(row.content, note))
    )
    return True


def compose_note(existing: str | None, note: str) -> str:
    """
    Return the note of a run: the user's text, kept whole where it fits, then *note* with the token in front.

    An earlier note of the provider's is replaced; when the two are too long together, the user's text is cut, at its
    end: the newest reason is what is looked for here.
    """
    own = f"{NOTE_TOKEN} {note}"[:_NOTE_LIMIT]
    users = user_note(existing)
    if not users:
        return own
    room = _NOTE_LIMIT - len(own) - 1
    return f"{users[:room]}\n{own}" if room > 0 else own


def user_note(content: str | None) -> str:
    """Return the part of a note that people wrote."""
    return (content or "").partition(NOTE_TOKEN)[0].rstrip()


def own_note(content: str | None) -> str:
    """Return the part of a note that the provider wrote, without its token."""
    return (content or "").partition(NOTE_TOKEN)[2].strip()


def _same(one: str, other: str) -> bool:
    """Whether two notes differ in numbers at most: a hold repeated each second only counts its seconds up."""
    digits = str.maketrans("", "", "0123456789")
    return one.translate(digits) == other.translate(digits)


# The agent's side: transactions of its own.


class MetadataDb:
    """
    What the agent does in Airflow's metadata database; each method is one or more short transactions.

    :param job: the scheduler's own job, as Airflow handed it to ``on_starting``.
    :param exempt_dags: ids of DAGs never touched, like those tagged with the control tag.
    """

    def __init__(self, job: Any, *, exempt_dags: Collection[str]) -> None:
        self._job = job
        self._exempt_dags = tuple(sorted(exempt_dags))

    @property
    def job_id(self) -> str | None:
        """Id of the scheduler's job; None until Airflow has stored it."""
        job_id = self._read("id")
        return str(job_id) if job_id is not None else None

    @property
    def is_scheduler(self) -> bool:
        """Whether the job is a scheduler's; Airflow sets its type after it has announced the job."""
        return bool(self._read("job_type") == "SchedulerJob")

    def pulse(self) -> object:
        """
        Return a value that changes whenever the scheduler's thread passes its heartbeat, outside any transaction.

        Read from the job object, which only that thread writes. A change seen after a view was swapped in means: every
        decision made on an older view is committed or rolled back.
        """
        return self._read("latest_heartbeat")

    def _read(self, attribute: str) -> Any:
        """Return what the scheduler's thread last wrote, without SQLAlchemy, which might load it in this thread."""
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

    def open_runs(self, *, up_to: int) -> int:
        """Return how many runs of DAGs that are not exempt are queued or running, their id no higher than *up_to*."""
        query = select(func.count()).where(
            _runs.c.state.in_(_OPEN), _runs.c.id <= up_to, ~self._is_exempt(_runs.c.dag_id)
        )
        with _transaction() as session:
            return int(session.execute(query).scalar_one())

    def close_runs(self, note: str, *, queued_for_s: float = 0.0) -> int:
        """
        End every open run of the DAGs that are not exempt: failed, open tasks skipped, no callback, *note* on each.

        A task that executes is ended by Airflow at its next heartbeat, some seconds later. Repeatable; rows that
        somebody else has locked are left for the next call.

        :param queued_for_s: leave alone queued runs of unpaused DAGs that are younger: the gate is about to skip them.
        :return: how many were closed.
        """
        closed = 0
        while batch := self._close_batch(note, queued_for_s):
            closed += batch
            if batch < _BATCH:
                break
        return closed

    def _close_batch(self, note: str, queued_for_s: float) -> int:
        now = _now()
        query = (
            select(_runs.c.id, _runs.c.dag_id, _runs.c.run_id)
            .where(_runs.c.state.in_(_OPEN), ~self._is_exempt(_runs.c.dag_id))
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
            self._book(connection, {row.dag_id for row in rows})
            return len(ids)

    @staticmethod
    def _forget_deadlines(session: Any, run_ids: list[int]) -> None:
        if not hasattr(DagRun, "deadlines"):
            return
        from airflow.models.deadline import Deadline  # noqa: PLC0415  (3.1 and later)

        for deadline in session.execute(select(Deadline).where(Deadline.dagrun_id.in_(run_ids))).scalars():
            session.delete(deadline)

    @staticmethod
    def _book(connection: Any, dag_ids: Collection[str]) -> None:
        """As the gate's; before 3.2 the DAG processor does it at the next parse."""
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
        """Return the ids of the DAGs that people want running: not paused, not gone from the folder, not exempt."""
        present = _dags.c.is_stale.is_(False) if "is_stale" in _dags.c else _dags.c.is_active.is_(True)
        with _transaction() as session:
            ids = session.execute(
                select(_dags.c.dag_id)
                .where(_dags.c.is_paused.is_(False), present, ~self._is_exempt(_dags.c.dag_id))
                .order_by(_dags.c.dag_id)
            ).scalars()
            return tuple(ids)

    def set_paused(self, dag_ids: Collection[str], *, paused: bool) -> int:
        """Pause or unpause those of *dag_ids* that are there and not exempt; return how many changed."""
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
        """Take the "held" note off runs that went on; return how many runs still carry one, rightly."""
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
                users = user_note(row.content)
                rest = update(_notes).values(content=users) if users else delete(_notes)
                connection.execute(rest.where(ours))
            return waiting

    def last_task_end(self, since: datetime) -> datetime | None:
        """Return when a task that had a worker last ended, no earlier than *since*; None when there was none."""
        with _transaction() as session:
            # last_scheduling_decision has an index, a task instance's end_date has none.
            at: datetime | None = session.execute(
                select(func.max(_tasks.c.end_date))
                .join(_runs, and_(_runs.c.dag_id == _tasks.c.dag_id, _runs.c.run_id == _tasks.c.run_id))
                .where(
                    _runs.c.last_scheduling_decision >= since,
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


@contextlib.contextmanager
def _transaction() -> Iterator[Session]:
    """Yield a session of the calling thread's own in one transaction: committed at the end, rolled back on an error."""
    from airflow import settings  # noqa: PLC0415  (its engine is made after this module is imported)

    with Session(bind=settings.engine, autoflush=False, expire_on_commit=False) as session, session.begin():
        yield session
