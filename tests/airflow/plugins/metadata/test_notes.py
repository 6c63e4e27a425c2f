"""The notes of runs in a real metadata database of the installed Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

REASON = "skipped: us-east-1 is standby, us-east-2 is active (epoch 4)"


def test_a_users_note_stays_in_front(database: Database, gates: Any) -> None:
    """The provider appends its sentence, and later replaces only that. The user's note is never lost."""
    database.add_dag("orders")
    database.add_run("orders", "r1", note="requested by Ann")
    database.start("r1", lambda run: gates.hold_run(run, "held: a"))
    database.start("r1", lambda run: gates.hold_run(run, "held: b"))
    assert database.note("r1") == "requested by Ann\n[mwaa-dr] held: b"


def test_a_hold_does_not_hide_that_the_run_was_resumed(database: Database, gates: Any) -> None:
    """The sentence stays after the reason of the hold, and stays alone after the run has started."""
    database.add_dag("orders")
    database.add_run("orders", "r1", note="[mwaa-dr] resumed: it was interrupted")
    for reason in ("held: a", "held: b"):
        database.start("r1", lambda run, reason=reason: gates.hold_run(run, reason))
    assert database.note("r1") == "[mwaa-dr] held: b; resumed: it was interrupted"


def test_a_long_note_is_cut_to_what_fits() -> None:
    """Airflow's column has 1,000 characters. A longer note would break the scheduler's transaction."""
    from airflow_provider_mwaa_dr.plugins.metadata.notes import compose_note

    assert len(compose_note("x" * 1000, REASON)) == 1000
    assert compose_note("x" * 1000, REASON).endswith(f"[mwaa-dr] {REASON}")
    assert len(compose_note(None, "y" * 2000)) == 1000


def test_the_note_of_a_hold_is_removed_when_the_run_starts(database: Database, agent_db: Any) -> None:
    """No code depends on a note, but users read it, so an outdated note must not stay."""
    database.add_dag("orders")
    database.add_run("orders", "waits", note="[mwaa-dr] held: why")
    database.add_run("orders", "runs", state="running", note="Ann\n[mwaa-dr] held: why")
    database.add_run("orders", "ran", state="success", note="[mwaa-dr] held: why")
    database.add_run("orders", "skipped", state="success", note="[mwaa-dr] skipped: why")
    database.add_run("orders", "resumed", state="running", note="Ann\n[mwaa-dr] held: why; resumed: it was interrupted")
    assert agent_db.drop_held_notes() == 1
    assert database.note("resumed") == "Ann\n[mwaa-dr] resumed: it was interrupted"
    assert database.note("waits") == "[mwaa-dr] held: why"
    assert database.note("runs") == "Ann"
    assert database.note("ran") is None
    assert database.note("skipped") == "[mwaa-dr] skipped: why"


def test_the_note_of_one_run_without_the_users_text(database: Database) -> None:
    """The page of a run shows it. An unknown run has none."""
    from airflow_provider_mwaa_dr.plugins.metadata.notes import note_of

    database.add_dag("orders")
    database.add_run("orders", "r1", note="Ann\n[mwaa-dr] skipped: why")
    database.add_run("orders", "r2", note="Ann")
    assert [note_of("orders", run) for run in ("r1", "r2", "r3")] == ["skipped: why", "", ""]
    assert note_of("other", "r1") == ""
