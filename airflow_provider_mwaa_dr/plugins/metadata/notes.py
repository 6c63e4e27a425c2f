"""The notes of runs: the user's text, then the provider's, behind its token."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, insert, select, update

from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.plugins.metadata.schema import NOTES, RUNS
from airflow_provider_mwaa_dr.plugins.metadata.transactions import BATCH, transaction

RESUMED = "resumed:"
"""Start of the sentence in the note of a resumed run; a later "held" note keeps this sentence."""
CLOSED = (f"{NOTE_TOKEN} skipped", f"{NOTE_TOKEN} closed")
"""Starts of the notes of runs that the provider closed."""
_HELD = f"{NOTE_TOKEN} held"
_LIMIT = 1000
"""The length of ``dag_run_note.content``, in characters."""


def put_note(connection: Any, dag_run_id: int, note: str, *, keeps: str | None = None) -> bool:
    """
    Write *note* after the user's text, and replace an earlier note of the provider; return whether the note changed.

    :param keeps: the start of a sentence of the earlier note that stays, after the new one.
    """
    row = connection.execute(select(NOTES.c.content).where(NOTES.c.dag_run_id == dag_run_id)).first()
    if row is None:
        connection.execute(insert(NOTES).values(dag_run_id=dag_run_id, content=compose_note(None, note)))
        return True
    own = own_note(row.content)
    if keeps is not None and keeps in own:
        note = f"{note}; {own[own.index(keeps) :]}"
    if _same(own, note):
        return False
    connection.execute(
        update(NOTES).where(NOTES.c.dag_run_id == dag_run_id).values(content=compose_note(row.content, note))
    )
    return True


def note_of(dag_id: str, run_id: str) -> str:
    """Return the provider's part of the note of a run; empty if it has none, or if there is no such run."""
    with transaction() as session:
        content = session.connection().scalar(
            select(NOTES.c.content)
            .join(RUNS, RUNS.c.id == NOTES.c.dag_run_id)
            .where(RUNS.c.dag_id == dag_id, RUNS.c.run_id == run_id)
        )
    return own_note(content)


def compose_note(existing: str | None, note: str) -> str:
    """
    Return the note of a run: the user's text, then *note* with the token in front.

    *note* replaces an earlier note of the provider. If both texts together are too long, the end of the user's text is
    cut, because readers of the note need the newest reason.
    """
    own = f"{NOTE_TOKEN} {note}"[:_LIMIT]
    users = user_note(existing)
    if not users:
        return own
    room = _LIMIT - len(own) - 1
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


def drop_held_notes() -> int:
    """Remove the "held" note from runs that are no longer queued; return how many queued runs have one."""
    with transaction() as session:
        connection = session.connection()
        rows = connection.execute(
            select(NOTES.c.dag_run_id, NOTES.c.content, RUNS.c.state)
            .join(RUNS, RUNS.c.id == NOTES.c.dag_run_id)
            .where(NOTES.c.content.contains(_HELD, autoescape=True))
            .order_by(RUNS.c.state == "queued")
            .limit(BATCH)
        ).all()
        waiting = 0
        for row in rows:
            if row.state == "queued":
                waiting += 1
                continue
            ours = and_(NOTES.c.dag_run_id == row.dag_run_id, NOTES.c.content == row.content)
            left, own = user_note(row.content), own_note(row.content)
            if RESUMED in own:
                left = compose_note(left, own[own.index(RESUMED) :])
            connection.execute((update(NOTES).values(content=left) if left else delete(NOTES)).where(ours))
        return waiting
