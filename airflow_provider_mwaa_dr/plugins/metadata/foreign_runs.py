"""Finds the rows that runs of another version of Airflow get in this region; :mod:`.core.translation` has the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey, mark_of
from airflow_provider_mwaa_dr.core.translation import (
    free_date,
    is_of_other_era,
    original_id,
    own_forms,
    resumed_at,
)
from airflow_provider_mwaa_dr.plugins.metadata.imported import is_local
from airflow_provider_mwaa_dr.plugins.metadata.insertion import find_taken
from airflow_provider_mwaa_dr.plugins.metadata.own_ends import is_skipped
from airflow_provider_mwaa_dr.plugins.metadata.runs import key_in
from airflow_provider_mwaa_dr.plugins.metadata.schema import ENDED, ERA, LOGICAL_DATE, MARK, OPEN, RUNS, schedules
from airflow_provider_mwaa_dr.plugins.metadata.transactions import utc_now


class Translation:
    """
    The rows for some runs of the ledger.

    :ivar taken: what the database has of *runs* and of their translations.
    """

    def __init__(self, session: Any, runs: Sequence[LedgerRun]) -> None:
        foreign = [run for run in runs if is_of_other_era(run)]
        self._schedules = schedules(session, sorted({run.dag_id for run in foreign})) if foreign else {}
        self._forms: dict[RunKey, Sequence[LedgerRun]] = {
            run.key: own_forms(run, schedule, ERA)
            for run in foreign
            if (schedule := self._schedules.get(run.dag_id)) is not None
        }
        self._connection = session.connection()
        self._given: set[tuple[str, datetime]] = set()
        forms = [form for forms in self._forms.values() for form in forms]
        self.taken = find_taken(self._connection, [*runs, *forms])
        self._rows = self._rows_of(forms) if forms else {}

    def to_adopt(self, run: LedgerRun) -> LedgerRun:
        """
        Return the row of an ended run.

        A run of another era gets the id, the date and the interval of a run of this Airflow, unless this region has it
        already because it has resumed it.
        """
        if run.key in self.taken.runs:
            return run
        forms = self._forms.get(run.key, ())
        fitting = [*filter(self._exists, forms), *filter(self._is_free, forms)]
        return fitting[0] if fitting else self._dated(run)

    def is_skipped(self, row: LedgerRun) -> bool:
        """
        Whether the database has the row of a run of another era because this region skipped the mark as a standby.

        The dates in the ledger do not show that the other region executed the mark, so the row itself must show it.
        """
        return row.key in self._rows and bool(self._rows[row.key].is_skipped)

    def to_resume(self, run: LedgerRun) -> LedgerRun:
        """Return the row of an unfinished run."""
        if run.key in self.taken.runs:
            return run
        if not is_of_other_era(run):
            return self._dated(run)
        at = resumed_at(run, self._schedules.get(run.dag_id), self._is_taken(run))
        return replace(run, logical_date=at)

    def why_taken(self, run: LedgerRun) -> str | None:
        """
        Return why another run holds the interval of an unfinished run; None if no run does.

        A run of this Airflow for the same mark that has ended does not hold it. If it had ended in the same or a later
        epoch than the unfinished run, the ledger would not list the run as unfinished. So it ended before that, or this
        region adopted its earlier result, and a user cleared the run since.
        """
        if not is_of_other_era(run):
            return self.taken.why_taken(run)
        if run.key in self.taken.runs:
            return None  # its row may have a later date, because another run has its own
        for form in self._forms.get(run.key, ()):
            if self._exists(form) and self._rows[form.key].state in OPEN:
                return f"another run has its interval: {form.run_id}"
        return None

    def copies(self, runs: Sequence[LedgerRun]) -> list[Any]:
        """
        Return the rows that this region adopted as the result of one of *runs*, which are unfinished now.

        They were never queued in this region. With both rows, a user could start the run a second time.
        """
        return [
            self._rows[form.key]
            for run in runs
            if run.key not in self.taken.runs
            for form in self._forms.get(run.key, ())
            if self._exists(form) and self._rows[form.key].state in ENDED and self._rows[form.key].queued_at is None
        ]

    def _exists(self, form: LedgerRun) -> bool:
        """Whether the database has the run. A run with the same id may be that of another mark."""
        return form.key in self._rows and self._rows[form.key].mark == mark_of(form)

    def _is_free(self, form: LedgerRun) -> bool:
        return form.key not in self._rows and self.taken.why_taken(form) is None

    def _rows_of(self, forms: Sequence[LedgerRun]) -> dict[RunKey, Any]:
        query = select(
            RUNS.c.id,
            RUNS.c.dag_id,
            RUNS.c.run_id,
            RUNS.c.state,
            RUNS.c.queued_at,
            MARK.label("mark"),
            is_skipped().label("is_skipped"),
        )
        rows = self._connection.execute(query.where(key_in([form.key for form in forms]), is_local()))
        return {(row.dag_id, row.run_id): row for row in rows}

    def _dated(self, run: LedgerRun) -> LedgerRun:
        """Return *run* with a logical date, if this version of Airflow requires one."""
        if run.logical_date is not None or LOGICAL_DATE.nullable:
            return run
        return replace(run, logical_date=free_date(run.run_after or utc_now(), self._is_taken(run)))

    def _is_taken(self, run: LedgerRun) -> Callable[[datetime], bool]:
        """Return a function that tells whether a run of the DAG has a date; it reserves the first that none has."""

        def is_taken(at: datetime) -> bool:
            if (run.dag_id, at) in self._given:
                return True
            query = select(RUNS.c.id).where(RUNS.c.dag_id == run.dag_id, LOGICAL_DATE == at, is_local())
            if self._connection.execute(query).first() is not None:
                return True
            self._given.add((run.dag_id, at))
            return False

        return is_taken


def notes_of(runs: Sequence[LedgerRun], rows: Sequence[LedgerRun], note: str) -> dict[RunKey, str]:
    """Return the notes of rows whose id is not that of their run: *note*, and the id that the run was created with."""
    return {
        row.key: f"{note} as {original_id(run)}"
        for run, row in zip(runs, rows, strict=True)
        if row.run_id != run.run_id
    }
