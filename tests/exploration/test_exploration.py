"""
All states of the protocol up to some depth, and a proof that the search finds each planted break.

``make explore DEPTH=9`` searches deeper.
"""

from __future__ import annotations

import pytest

from tests.exploration.breaks import BREAKS, Break, Where
from tests.exploration.search import SCOPES, Found, Scope, search
from tests.exploration.silence import Silence
from tests.exploration.silence_breaks import SILENCE_BREAKS, SILENCE_SCOPES, Shown


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_every_invariant_holds_in_every_state(scope: Scope, capsys: pytest.CaptureFixture[str]) -> None:
    """
    No region starts a run under an old epoch, each plan can be finished and cancelled, and the wanted set is kept.
    """
    found = search(scope.model(), scope.depth)
    with capsys.disabled():
        print(f"\n{scope}: {found}")
    assert not found.broken, str(found)
    assert found.is_complete is (scope.depth is None)


@pytest.mark.parametrize(("plant", "where"), BREAKS.items(), ids=[each.__name__ for each in BREAKS])
def test_a_break_is_found(plant: Break, where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest history that shows the break has the expected length."""

    def find() -> Found:
        return search(where.model(), where.depth + 1)

    assert not find().broken
    plant(monkeypatch)
    found = find()
    print(found)
    assert (bool(found.broken), len(found.trace)) == (True, where.depth)


@pytest.mark.parametrize("name", SILENCE_SCOPES)
def test_silence_ends_no_lease_that_has_not_expired(name: str) -> None:
    """However heartbeats, reads and reports interleave, no scheduler starts a run after the promotion."""
    bounds, depth = SILENCE_SCOPES[name]
    found = search(Silence(bounds), depth)
    print(f"{name}: {found}")
    assert not found.broken, str(found)
    assert found.is_complete is (depth is None)


@pytest.mark.parametrize(("plant", "shown"), SILENCE_BREAKS.items(), ids=[each.__name__ for each in SILENCE_BREAKS])
def test_a_break_of_silence_is_found(plant: Break, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest history that shows the break has the expected length."""
    assert not search(Silence(shown.bounds), shown.depth).broken
    plant(monkeypatch)
    found = search(Silence(shown.bounds), shown.depth)
    print(found)
    assert (bool(found.broken), len(found.trace)) == (True, shown.depth)
