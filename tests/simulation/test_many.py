"""What ``make simulation`` and ``make simulate`` do with their results: fresh seeds, open seeds, parts."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation import eventual, many, open_seeds
from tests.simulation.first_seed import first_seed
from tests.simulation.open_seeds import OpenSeed
from tests.simulation.report import OverlappingPartsError, Tally, sum_parts

LEDGER = many.WORLDS[0]

HISTORIES = """
import sys
seed = sys.argv[sys.argv.index("--first") + 1]
is_wrong = seed in open("wrong_seeds").read().split()
print(f"1 histories: {int(is_wrong)} went wrong.")
sys.exit(is_wrong)
"""


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository in which seed 1 is wrong, and since its last commit also seed 2."""
    root = tmp_path / "repository"
    package = root / "tests" / "simulation"
    package.mkdir(parents=True)
    for folder in (root / "tests", package):
        (folder / "__init__.py").touch()
    (package / "__main__.py").write_text(HISTORIES, encoding="utf-8")
    (package / "open_seeds.txt").write_text("# Columns: world, seed, date, commit, verdict.\n", encoding="utf-8")
    (root / "wrong_seeds").write_text("1\n", encoding="utf-8")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "before")
    (root / "wrong_seeds").write_text("1 2\n", encoding="utf-8")
    git(root, "commit", "--quiet", "--all", "--message", "the change")
    return root


def listing(root: Path) -> Path:
    return root / "tests" / "simulation" / "open_seeds.txt"


def test_a_run_begins_at_a_fresh_seed_or_at_one_that_is_repeated() -> None:
    """It does not start at the same seed each time. Seed 0 can be repeated like any other."""
    fresh = {first_seed() for _ in range(10)} | {first_seed("") for _ in range(10)}
    assert len(fresh) > 10
    assert min(fresh) >= 10_000_000
    assert (first_seed(7), first_seed("7"), first_seed(0)) == (7, 7, 0)


def test_a_fresh_seed_that_went_wrong_before_the_change_is_listed_and_does_not_fail_the_build(root: Path) -> None:
    """Only the other seed fails the build, because the change made it wrong."""
    wrong = {1: "History 1: {'is lost': 1}", 2: "History 2: {'is lost': 2}"}
    assert many.excuse(LEDGER, wrong, root, listing(root)) == {2: wrong[2]}
    [listed] = open_seeds.read(listing(root))
    assert (listed.seed, listed.verdict) == (1, "{'is lost': 1}")
    assert listed.commit == open_seeds.commit_before(root), "the listing is no change of its own"
    assert (
        subprocess.run(["git", "worktree", "list"], cwd=root, capture_output=True, check=True).stdout.count(b"\n") == 1
    )


def test_a_listed_seed_that_is_met_again_is_not_compared_again(root: Path, tmp_path: Path) -> None:
    """The list keeps the date on which it was first seen."""
    listing(root).write_text("ledger\t1\t2026-01-01\tabc\t{'is lost': 1}\n", encoding="utf-8")
    assert many.excuse(LEDGER, {1: "History 1: {'is lost': 1}"}, tmp_path, listing(root)) == {}
    assert [each.since for each in open_seeds.read(listing(root))] == ["2026-01-01"]


def test_the_change_is_the_uncommitted_tree_or_the_last_commit(root: Path) -> None:
    """A tree with uncommitted changes is compared with its last commit. CI compares with the commit before that."""
    assert many.excuse(LEDGER, {2: "History 2: x"}, root, listing(root)) == {2: "History 2: x"}
    (root / "wrong_seeds").write_text("1 2 3\n", encoding="utf-8")
    assert many.excuse(LEDGER, {2: "History 2: x", 3: "History 3: x"}, root, listing(root)) == {3: "History 3: x"}


def test_without_a_commit_before_the_build_fails(root: Path, tmp_path: Path) -> None:
    """A copy without git, and a clone with one commit, have nothing to compare with."""
    wrong = {1: "History 1: x"}
    assert many.excuse(LEDGER, wrong, tmp_path, listing(root)) == wrong
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{root}", str(clone))
    assert many.excuse(LEDGER, wrong, clone, listing(clone)) == wrong
    assert open_seeds.read(listing(clone)) == []


def test_a_commit_before_that_cannot_run_a_history_excuses_nothing(root: Path) -> None:
    """An error of Python is not a wrong history."""
    (root / "tests" / "simulation" / "__main__.py").write_text("import no_such_module\n", encoding="utf-8")
    git(root, "commit", "--quiet", "--all", "--message", "broken")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "the change")
    assert many.excuse(LEDGER, {1: "History 1: x"}, root, listing(root)) == {1: "History 1: x"}


def test_many_wrong_histories_are_not_compared_one_by_one(root: Path) -> None:
    """A change that breaks something common fails immediately."""
    wrong = {seed: f"History {seed}: x" for seed in range(open_seeds.MOST_TRIED + 1)}
    assert many.excuse(LEDGER, wrong, root, listing(root)) == wrong


def test_an_open_seed_that_is_right_now_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise it would stay in the list. The advice is to make it a named test."""
    fixed = many.check_open([OpenSeed(LEDGER, 0, "2026-01-01", "abc", "{'is lost': 1}")])
    assert fixed == [0]
    assert "Make it a named test" in capsys.readouterr().out


def test_a_seed_is_open_in_its_own_world(root: Path) -> None:
    """The same seed gives another history in another world. The commit before runs the history of the same world."""
    package = root / "tests" / "simulation"
    (package / "__main__.py").write_text(HISTORIES + '\nassert "available" in sys.argv', encoding="utf-8")
    wrong = {1: "History 1: x"}
    listing(root).write_text("ledger\t1\t2026-01-01\tabc\tx\n", encoding="utf-8")
    assert many.excuse("ledger", wrong, root, listing(root)) == {}
    assert many.excuse("available", wrong, root, listing(root)) == {}
    assert [each.world for each in open_seeds.read(listing(root))] == ["ledger", "available"]


@pytest.mark.parametrize("world", many.WORLDS)
def test_each_world_can_be_run(world: str) -> None:
    """A chunk counts its histories. Seed 0 is right in each world."""
    chunk = many.run_chunk(0, 1, world=world)
    assert (chunk.tally.histories, chunk.tally.wrong) == (1, {})


def test_a_wrong_history_of_each_world_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace is printed, and it says how to repeat the history."""

    def go_wrong(*_: object) -> None:
        raise AssertionError("12.0 s: a rule is broken")

    monkeypatch.setattr(eventual, "run_history", go_wrong)
    chunk = many.run_chunk(5, 1, world="safe")
    assert chunk.tally.wrong == {5: "History 5: AssertionError: 12.0 s: a rule is broken"}
    assert "--world safe --first 5 --histories 1" in chunk.traces[0]


def test_the_list_in_the_repository_can_be_read() -> None:
    """Each line has five columns, and no seed of a world is listed twice."""
    listed = [(each.world, each.seed) for each in open_seeds.read()]
    assert len(listed) == len(set(listed))


def test_parts_add_up(tmp_path: Path) -> None:
    """A million histories run in parts, and each part writes a file."""
    for first, reached in ((0, 3), (100, 0), (200, 4)):
        part = Tally(histories=100, ranges=[(first, 100)], due=7, wrong={first: f"History {first}: x"})
        part.reached = {"action": Counter({"join": reached, "cancel": 0})}
        (tmp_path / f"{first}.json").write_text(part.to_json(), encoding="utf-8")
    total = sum_parts(tmp_path)
    assert (total.histories, total.due, sorted(total.wrong)) == (300, 21, [0, 100, 200])
    assert total.reached == {"action": {"join": 7, "cancel": 0}}
    text = "\n".join(total.lines())
    assert "300 histories (seeds 0 to 299)" in text
    assert "never  cancel" in text


def test_parts_that_overlap_are_not_added_up(tmp_path: Path) -> None:
    """The sum would count the same histories twice."""
    for name, first in (("a", 0), ("b", 50)):
        (tmp_path / f"{name}.json").write_text(Tally(histories=100, ranges=[(first, 100)]).to_json(), encoding="utf-8")
    with pytest.raises(OverlappingPartsError, match="seed 50"):
        sum_parts(tmp_path)
