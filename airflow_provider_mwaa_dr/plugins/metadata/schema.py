"""
Airflow's tables, and every difference between Airflow 2.10 and 3.3 in its metadata database.

Only this module imports Airflow's models, and only this module knows which version has which column. The other modules
of the package use the names below. A new version of Airflow that changes its database changes this module and no other.

The differences:

- A run's date is ``execution_date`` before 3.0, then ``logical_date``, which may be empty. 3.0 adds ``run_after``.
- A run's conf is pickled before 3.0, then JSON.
- An XCom is JSON or pickled before 3.0, then a column of type JSON. Early versions of Airflow 3 store JSON text in it.
- A run that an event triggers has the type ``dataset_triggered`` before 3.0, then ``asset_triggered``. 3.1 and 3.3 add
  types.
- The scheduler names runs after their logical date before 3.2, then after the end of their interval.
- The scheduler starts the runs of backfills from 3.0 on; before, the command that creates a backfill starts them.
- 3.0 keeps every version of a DAG, with its serialized form and its code; before, it kept only the last one.
- 3.0 adds what requested a run, the version of its bundle and a carrier of its trace; 3.1 adds the user.
- 3.1 adds deadlines of runs; 3.2 adds the alerts that they belong to.
- Datasets become assets in 3.0; 3.2 adds a queue of partitions.
- 3.0 adds watchers of assets; the table that connects assets and triggers has two names.
- 3.1 adds questions to people; 3.2 stores who answered in another column.
- 3.2 adds partitions of runs, a flag on DAGs that are at their limit of runs, and teams.
- 3.0 stores the path of a DAG file relative to its bundle; 3.2 moves the function that reads a stored timetable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow import __version__
from airflow.jobs.job import Job
from airflow.models.connection import Connection
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagcode import DagCode
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.errors import ParseImportError
from airflow.models.pool import Pool
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.trigger import Trigger
from airflow.models.variable import Variable
from airflow.serialization.serialized_objects import BaseSerialization
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.simple import ContinuousTimetable
from airflow.utils.state import State
from airflow.utils.types import DagRunType
from pendulum import UTC, instance

try:
    from airflow.serialization.decoders import decode_timetable
except ImportError:  # before 3.2
    from airflow.serialization.serialized_objects import decode_timetable
from sqlalchemy import LargeBinary, PickleType, String, and_, func, null, select, true, tuple_, type_coerce, update

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import EVENT_TRIGGERED, RunKey
from airflow_provider_mwaa_dr.core.translation import Era, Schedule
from airflow_provider_mwaa_dr.plugins.metadata.transactions import utc_now

log = get_logger(__name__)

# Tables and not classes: bulk statements must use neither a synonym (DagRun.state) nor a session.
RUNS = DagRun.__table__
TASKS = TaskInstance.__table__
NOTES = DagRunNote.__table__
DAGS = DagModel.__table__
TAGS = DagTag.__table__
SERIALIZED = SerializedDagModel.__table__
CODES = DagCode.__table__
JOBS = Job.__table__
IMPORT_ERRORS = ParseImportError.__table__
RENDERED = RenderedTaskInstanceFields.__table__
TRIGGERS = Trigger.__table__
XCOMS = DagRun.metadata.tables["xcom"]
VARIABLES, CONNECTIONS, POOLS = Variable.__table__, Connection.__table__, Pool.__table__
_VERSIONS = DagRun.metadata.tables.get("dag_version")
"""Airflow 3 keeps every version of a DAG, Airflow 2 only the last one."""

ERA = Era.of(__version__) or Era.AIRFLOW_3_2
"""The era of the installed Airflow; see :mod:`.translation`."""
OPEN = ("queued", "running")
"""States of a run that has not ended."""
ENDED = ("success", "failed")
AT_WORK = tuple(state for state in State.unfinished if state is not None)
"""States of a task instance that the scheduler has accepted for execution, and that has not ended."""


def existing_columns(table: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those *values* whose columns this version of Airflow has."""
    return {name: value for name, value in values.items() if name in table.c}


# Settings.

DEFAULT_POOL = Pool.DEFAULT_POOL_NAME


def encrypted_variable(value: str) -> dict[str, Any]:
    """Return the columns with a variable's value, as Airflow's own model encrypts it."""
    variable = Variable(key=None, val=value)
    return {"val": variable._val, "is_encrypted": bool(variable.is_encrypted)}


def encrypted_connection(conn_id: str, password: str, extra: str) -> dict[str, Any] | None:
    """Return the encrypted columns of a connection; None if Airflow refuses its id or its extra."""
    try:
        connection = Connection(conn_id=conn_id, extra=extra or None)
    except ValueError:
        return None  # Airflow 3 accepts only JSON as extra
    if connection.conn_id != conn_id:
        return None  # Airflow accepts only some characters
    # The constructor would add the password to the expression that masks logs. It grows with each password, and is
    # compiled again each time.
    connection.set_password(password)
    return {
        "password": connection._password,
        "is_encrypted": bool(connection.is_encrypted),
        "extra": connection._extra,
        "is_extra_encrypted": bool(connection.is_extra_encrypted),
    }


# Runs.

LOGICAL_DATE = RUNS.c.logical_date if "logical_date" in RUNS.c else RUNS.c.execution_date
MARK = func.coalesce(RUNS.c.data_interval_end, LOGICAL_DATE)
"""When an interval is due; see :func:`.ledger.mark_of`."""
QUEUE_DATE = RUNS.c["run_after" if "run_after" in RUNS.c else LOGICAL_DATE.name]
"""The column by which Airflow sorts runs that it has not tried; see :func:`queue_date`."""
PARTITION_KEY, PARTITION_DATE = RUNS.c.get("partition_key"), RUNS.c.get("partition_date")
"""None before 3.2."""
NEXT_PARTITION_DATE = DAGS.c.get("next_dagrun_partition_date")
"""None before 3.2."""
_CONF_IS_PICKLED = isinstance(RUNS.c.conf.type, PickleType)
RUN_COLUMNS = (
    RUNS.c.id,
    RUNS.c.dag_id,
    RUNS.c.run_id,
    RUNS.c.run_type,
    RUNS.c.state,
    LOGICAL_DATE.label("logical_date"),
    RUNS.c.data_interval_start,
    RUNS.c.data_interval_end,
    RUNS.c.queued_at,
    RUNS.c.start_date.label("started_at"),
    RUNS.c.end_date.label("ended_at"),
    # Airflow 2 stores it pickled. If one cannot be read, the query must still return all others.
    (type_coerce(RUNS.c.conf, LargeBinary) if _CONF_IS_PICKLED else RUNS.c.conf).label("conf"),
    *(
        (RUNS.c[name] if name in RUNS.c else null()).label(name)
        for name in ("run_after", "partition_key", "partition_date")
    ),
    # As Airflow stores it: a name. Airflow's type raises an error for a name that it does not know.
    (type_coerce(RUNS.c.triggered_by, String) if "triggered_by" in RUNS.c else null()).label("triggered_by"),
    (RUNS.c.triggering_user_name if "triggering_user_name" in RUNS.c else null()).label("triggering_user"),
)
"""The columns of a run under the same names in every version; :func:`read_conf` reads ``conf``."""
SCHEDULER_STARTS_BACKFILLS = "backfill_id" in RUNS.c
"""Before Airflow 3, only the command that started a backfill starts its runs; the scheduler starts none."""


def read_conf(stored: Any) -> tuple[Any, str | None]:
    """Return the conf of a row with :data:`RUN_COLUMNS`, and why it cannot be read; None if it can."""
    if not _CONF_IS_PICKLED or stored is None:
        return stored, None
    try:
        return RUNS.c.conf.type.pickler.loads(stored), None
    except Exception as error:  # the pickled classes may raise any error
        return None, f"it cannot be read ({type(error).__name__}: {error})"


def read_xcom(stored: Any) -> Any:
    """Return the value of an XCom; None if it cannot be read, for example because it is pickled."""
    is_json = isinstance(stored, bytes) or (isinstance(stored, str) and (stored[:1] in '"[{' or stored == "null"))
    try:
        return json.loads(stored) if is_json else stored
    except ValueError:
        return None


def read_trigger(session: Any, trigger_id: int) -> Mapping[str, Any] | None:
    """Return the values with which a trigger was created; None if they cannot be read."""
    try:
        trigger = session.get(Trigger, trigger_id)
        return None if trigger is None else dict(trigger.kwargs)
    except Exception:  # the values are decrypted, and may be of any class
        return None


_TRIGGERED_BY_EVENTS = set(EVENT_TRIGGERED)


def existing_type(run_type: str) -> str:
    """Return the type that this version of Airflow has for a run of *run_type*; an unknown type becomes manual."""
    types = {known.value for known in DagRunType}
    if run_type in types:
        return run_type
    return next(iter(types & _TRIGGERED_BY_EVENTS)) if run_type in _TRIGGERED_BY_EVENTS else DagRunType.MANUAL.value


def queue_date(run: Any) -> datetime:
    """Return the date by which Airflow sorts a held run; Airflow sorts runs that it has not tried by the same date."""
    date: datetime | None = getattr(run, "run_after", None) or getattr(run, LOGICAL_DATE.name)
    return date or utc_now()


def takes_room(runs: Any) -> Any:
    """Return the condition that a running run counts towards its DAG's ``max_active_runs``."""
    return runs.c.backfill_id.is_(None) if "backfill_id" in runs.c else true()


_TRIGGERED_BY = {"scheduled": "TIMETABLE", "asset_triggered": "ASSET", "backfill": "BACKFILL"}
"""What requests the runs of a type."""


def existing_trigger(name: str | None, run_type: str) -> str | None:
    """Return what requested a run, if this version of Airflow knows the name; else what requests runs of its type."""
    known = RUNS.c.triggered_by.type.enums if "triggered_by" in RUNS.c else ()
    return next((each for each in (name, _TRIGGERED_BY.get(run_type)) if each in known), None)


def new_trace_carrier(dag_id: str, run_type: str, conf: Any) -> Any:
    """
    Return the carrier of the trace of a new run, as Airflow makes it; None on Airflow 2.

    Without the run's id, because Airflow refuses ids that were accepted under another configuration.
    """
    if "context_carrier" not in RUNS.c:
        return None
    return DagRun(dag_id=dag_id, run_type=run_type, conf=conf).context_carrier


def create_tasks(session: Any, dag_run: Any, dag: Any) -> None:
    """Create the missing task instances of a run, as Airflow does (3.0 and later)."""
    dag_run.dag = dag
    dag_run.verify_integrity(session=session, dag_version_id=dag_run.created_dag_version_id)


def find_run(session: Any, key: RunKey) -> Any:
    """Return Airflow's object of a run; None if the run does not exist."""
    query = select(DagRun).where(DagRun.dag_id == key[0], DagRun.run_id == key[1])
    return session.execute(query).scalar_one_or_none()


def clear_tasks(session: Any, key: RunKey) -> None:
    """Clear all tasks of a run as Airflow does, and queue the run; *session* is not flushed."""
    query = select(TaskInstance).where(TaskInstance.dag_id == key[0], TaskInstance.run_id == key[1])
    clear_task_instances(list(session.execute(query).scalars()), session, dag_run_state="queued")


# Events of assets that have not started a run: the condition of their consumer is not complete. Airflow 2 has datasets.

_TABLES = DagRun.metadata.tables
ASSETS = _TABLES["asset" if "asset" in _TABLES else "dataset"]
ASSET_QUEUE = _TABLES["asset_dag_run_queue" if "asset_dag_run_queue" in _TABLES else "dataset_dag_run_queue"]
QUEUED_ASSET = ASSET_QUEUE.c["asset_id" if "asset_id" in ASSET_QUEUE.c else "dataset_id"]
EVENTS = _TABLES["asset_event" if "asset_event" in _TABLES else "dataset_event"]
EVENT_ASSET = EVENTS.c["asset_id" if "asset_id" in EVENTS.c else "dataset_id"]
RUN_EVENTS = _TABLES["dagrun_asset_event" if "dagrun_asset_event" in _TABLES else "dagrun_dataset_event"]
ALIASES = _TABLES["asset_alias" if "asset_alias" in _TABLES else "dataset_alias"]
EVENT_ALIASES = _TABLES[
    "asset_alias_asset_event" if "asset_alias_asset_event" in _TABLES else "dataset_alias_dataset_event"
]
ASSET_CONSUMERS = _TABLES[
    "dag_schedule_asset_reference" if "dag_schedule_asset_reference" in _TABLES else "dag_schedule_dataset_reference"
]
WATCHERS = _TABLES.get("asset_watcher", _TABLES.get("asset_trigger"))
"""Which trigger watches for which asset; None before 3.0, which has no watchers."""
QUESTIONS = _TABLES.get("hitl_detail")
"""What tasks ask a person, and the answers; None in versions that MWAA does not have, and before 3.2."""
if QUESTIONS is not None and "responded_by" not in QUESTIONS.c:
    QUESTIONS = None
PARTITION_QUEUE, PARTITION_EVENTS = _TABLES.get("asset_partition_dag_run"), _TABLES.get("partitioned_asset_key_log")
"""Runs of partitions that Airflow has not created yet, and their events; None before 3.2."""

# The limit of runs of a DAG.


def update_run_limit(session: Any, dag_run: Any, others: int) -> None:
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


def update_run_limits(connection: Any, dag_ids: Collection[str]) -> None:
    """Update limits as :func:`update_run_limit` does; before 3.2 the DAG processor does it at the next parse."""
    if not hasattr(DagModel, "exceeds_max_non_backfill"):
        return
    active = (
        select(func.count())
        .where(RUNS.c.dag_id == DAGS.c.dag_id, RUNS.c.run_type != "backfill", RUNS.c.state.in_(OPEN))
        .correlate(DAGS)
        .scalar_subquery()
    )
    connection.execute(
        update(DAGS).where(DAGS.c.dag_id.in_(dag_ids)).values(exceeds_max_non_backfill=active >= DAGS.c.max_active_runs)
    )


# Deadlines.


DEADLINES, ALERTS = DagRun.metadata.tables.get("deadline"), DagRun.metadata.tables.get("deadline_alert")
"""Alerts are what the file of a DAG says about deadlines; None before 3.1 and before 3.2."""


def delete_deadlines_of(session: Any, dag_run: Any) -> None:
    """
    Delete the run's deadlines (3.1 and later): a run that executes nothing must not raise an alarm.

    A missed deadline stays. It shows that Airflow has requested its callback, if the run is resumed later.
    """
    if not getattr(dag_run.dag, "deadline", None):
        return
    for deadline in list(dag_run.deadlines):
        if not deadline.missed:
            session.delete(deadline)


def delete_deadlines(session: Any, run_ids: Sequence[int]) -> None:
    """Delete the deadlines of runs by the ids of their rows; see :func:`delete_deadlines_of`."""
    if not hasattr(DagRun, "deadlines"):
        return
    from airflow.models.deadline import Deadline  # noqa: PLC0415  (3.1 and later)

    query = select(Deadline).where(Deadline.dagrun_id.in_(run_ids), Deadline.missed.is_(False))
    for deadline in session.execute(query).scalars():
        session.delete(deadline)


def create_deadlines(session: Any, dag_run: Any, dag: Any) -> None:
    """
    Create the deadlines of a run that Airflow creates for a new run (3.2 and later).

    Airflow has no public function for this.
    """
    dag._process_dagrun_deadline_alerts(dag_run, session)


# Teams.

_TEAMS = DagRun.metadata.tables.get("team")
"""None before 3.2."""


def team_names(connection: Any) -> tuple[str, ...]:
    """Return the names of the teams, sorted."""
    return () if _TEAMS is None else tuple(sorted(connection.execute(select(_TEAMS.c.name)).scalars()))


# DAGs, their versions, serialized forms and code.

TASK_VERSION_IS_REQUIRED = "dag_version_id" in TASKS.c and not TASKS.c.dag_version_id.nullable
"""Whether a task instance must have the id of a version of its DAG. Airflow 3 allows none; see history_import."""

_SERIALIZED_KEY = SERIALIZED.c.id if "id" in SERIALIZED.c else SERIALIZED.c.dag_id
CODE_KEY = CODES.c.id if "id" in CODES.c else CODES.c.fileloc_hash


def is_present() -> Any:
    """Return the condition that a DAG is in the folder."""
    return DAGS.c.is_stale.is_(False) if "is_stale" in DAGS.c else DAGS.c.is_active.is_(True)


def newest_versions(connection: Any, dag_ids: Iterable[str]) -> dict[str, Any]:
    """Return the ids of the newest versions of the DAGs; Airflow 2 has none."""
    if _VERSIONS is None:
        return {}
    query = select(_VERSIONS.c.dag_id, _VERSIONS.c.id).where(_is_newest_version(sorted(dag_ids)))
    return {row.dag_id: row.id for row in connection.execute(query)}


def _is_newest_version(dag_ids: Sequence[str]) -> Any:
    newest = (
        select(_VERSIONS.c.dag_id, func.max(_VERSIONS.c.version_number))
        .where(_VERSIONS.c.dag_id.in_(dag_ids))
        .group_by(_VERSIONS.c.dag_id)
    )
    return tuple_(_VERSIONS.c.dag_id, _VERSIONS.c.version_number).in_(newest)


def newest_serialized(dag_ids: Sequence[str]) -> Callable[..., Any]:
    """Return a function that makes a query for columns of the newest serialized version of each DAG."""

    def columns(*wanted: Any) -> Any:
        query = select(SERIALIZED.c.dag_id, *wanted)
        if _VERSIONS is None:
            return query.where(SERIALIZED.c.dag_id.in_(dag_ids))
        return query.join(_VERSIONS, _VERSIONS.c.id == SERIALIZED.c.dag_version_id).where(_is_newest_version(dag_ids))

    return columns


def latest_dags() -> Any:
    """Return the query of the DAGs in the folder, with the keys of their newest serialized form and code."""
    columns = (
        DAGS.c.dag_id,
        DAGS.c["relative_fileloc" if "relative_fileloc" in DAGS.c else "fileloc"].label("file"),
        _SERIALIZED_KEY.label("serialized_key"),
        SERIALIZED.c.dag_hash,
        CODE_KEY.label("code_key"),
        # Airflow 3 keeps a digest. Airflow 2 does not, so the time of the last change has to show a change.
        (CODES.c.source_code_hash if "source_code_hash" in CODES.c else CODES.c.last_updated).label("code_mark"),
    )
    query = select(*columns).join(SERIALIZED, SERIALIZED.c.dag_id == DAGS.c.dag_id).where(is_present())
    if "created_at" not in SERIALIZED.c:
        return query.join(CODES, CODES.c.fileloc_hash == SERIALIZED.c.fileloc_hash)
    # Airflow 3 keeps a row, and a row of code, for each version of a DAG.
    newest = (
        select(SERIALIZED.c.dag_id, func.max(SERIALIZED.c.created_at).label("at"))
        .group_by(SERIALIZED.c.dag_id)
        .subquery()
    )
    return query.join(
        newest, and_(newest.c.dag_id == SERIALIZED.c.dag_id, newest.c.at == SERIALIZED.c.created_at)
    ).join(CODES, CODES.c.dag_version_id == SERIALIZED.c.dag_version_id)


def serialized_data(session: Any, keys: Collection[Any]) -> dict[str, Mapping[str, Any]]:
    """Return serialized forms by DAG id, as Airflow unpacks them. *keys* are those of :func:`latest_dags`."""
    forms = session.execute(select(SerializedDagModel).where(_SERIALIZED_KEY.in_(keys))).scalars()
    return {form.dag_id: form.data for form in forms}


@dataclass(frozen=True, slots=True)
class AirflowSchedule:
    """A DAG's timetable; see :class:`.translation.Schedule`."""

    timetable: Any

    def interval(self, mark: datetime) -> tuple[datetime, datetime]:
        """See :meth:`.translation.Schedule.interval`."""
        start, end = self.timetable.infer_manual_data_interval(run_after=instance(mark))
        return start, end

    def next_start(self, start: datetime, end: datetime) -> datetime | None:
        """See :meth:`.translation.Schedule.next_start`."""
        last = DataInterval(instance(start), instance(end))
        # Without a start date, @continuous of Airflow 2 has no next run.
        restriction = TimeRestriction(earliest=last.start, latest=None, catchup=True)
        found = self.timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        return None if found is None else found.logical_date


def schedules(session: Any, dag_ids: Sequence[str]) -> dict[str, Schedule]:
    """Return the schedules of those DAGs that have one, and that Airflow can read."""
    keys = session.execute(newest_serialized(dag_ids)(_SERIALIZED_KEY)).all()
    found: dict[str, Schedule] = {}
    for form in session.execute(
        select(SerializedDagModel).where(_SERIALIZED_KEY.in_([key for _, key in keys]))
    ).scalars():
        try:
            timetable = form.dag.timetable
        except Exception as error:  # a timetable of a plugin that is not installed in this region, for example
            log.warning("The schedule of %s cannot be read: %s: %s", form.dag_id, type(error).__name__, error)
            continue
        if timetable.can_be_scheduled:
            found[form.dag_id] = AirflowSchedule(timetable)
    return found


def next_runs(
    data: Mapping[str, Any], after: datetime, *, count: int
) -> tuple[str, Sequence[tuple[datetime, datetime]]]:
    """
    Return the name of a DAG's timetable, and logical date and mark of the scheduled runs after a run that ended then.

    :param data: the serialized form of the DAG.
    :return: no runs if the timetable schedules none, if their dates depend on the end of earlier runs, or if the
        timetable raises an error: its code may come from a plugin.
    """
    dag = data["dag"]
    name = str((dag.get("timetable") or {}).get("__type", "")).rpartition(".")[2]
    runs: list[tuple[datetime, datetime]] = []
    try:
        timetable = _timetable(dag)
        name = type(timetable).__name__
        # Airflow 3.3 skips the next interval after an interval of no length.
        last = DataInterval(instance(after - timedelta(seconds=1)), instance(after))
        is_dated = timetable.can_be_scheduled and not isinstance(timetable, ContinuousTimetable)
        while is_dated and len(runs) < count:
            # With an earliest date, a cron timetable with intervals would skip the interval that contains it.
            found = timetable.next_dagrun_info(
                last_automated_data_interval=last, restriction=TimeRestriction(earliest=None, latest=None, catchup=True)
            )
            if found is None:
                break
            runs.append((found.logical_date, found.run_after))
            last = found.data_interval
    except Exception as error:  # a timetable of a plugin may raise any error
        log.debug("The next runs of a %s are unknown: %s: %s", name, type(error).__name__, error)
        return name, ()
    return name, runs


def _timetable(dag: Mapping[str, Any]) -> Any:
    if "timetable" in dag:
        return decode_timetable(dag["timetable"])
    # Airflow 2 stores a timedelta, or that there is no schedule, in place of the timetable.
    from airflow.models.dag import create_timetable  # noqa: PLC0415  (Airflow 2 only)

    return create_timetable(BaseSerialization.deserialize(dag.get("schedule_interval")), UTC)


def newest_dag(session: Any, dag_id: str) -> Any:
    """Return the newest serialized form of a DAG as Airflow's object; None if there is none."""
    form = SerializedDagModel.get(dag_id, session=session)
    return None if form is None else form.dag


def bundle_versions(connection: Any, dag_ids: Collection[str]) -> dict[str, str]:
    """Return the versions of the bundles of DAGs, without those whose bundle has no versions (3.0 and later)."""
    if "bundle_version" not in DAGS.c:
        return {}
    query = select(DAGS.c.dag_id, DAGS.c.bundle_version).where(
        DAGS.c.dag_id.in_(dag_ids), DAGS.c.bundle_version.is_not(None)
    )
    return {row.dag_id: row.bundle_version for row in connection.execute(query)}


def with_alerts(connection: Any, dag_ids: Collection[str]) -> set[str]:
    """Return the DAGs whose file has or had alerts about deadlines (3.2 and later)."""
    if ALERTS is None:
        return set()
    of_form = ALERTS.c.serialized_dag_id == SERIALIZED.c.id
    query = select(SERIALIZED.c.dag_id).join(ALERTS, of_form).where(SERIALIZED.c.dag_id.in_(dag_ids)).distinct()
    return set(connection.execute(query).scalars())


def serialized_tasks(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tasks in the serialized form of a DAG."""
    return [task.get("__var", task) for task in data["dag"].get("tasks", ())]
