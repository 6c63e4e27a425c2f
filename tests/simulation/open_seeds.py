"""
Seeds of wrong histories whose cause is not fixed yet: a list in the repository.

If a fresh seed goes wrong, its history runs again with the commit before. If it goes wrong there, too, the current
change is not the cause: the seed is added to the list, and the build does not fail.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

LISTING = Path(__file__).with_name("open_seeds.txt")
MOST_TRIED = 20
"""If more histories are wrong, they are not compared with the commit before: the change broke something common."""


@dataclass(frozen=True)
class OpenSeed:
    """A line of the list. A seed belongs to one world: in another world it is another history."""

    world: str
    seed: int
    since: str
    commit: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.world}\t{self.seed}\t{self.since}\t{self.commit}\t{self.verdict}"


def read(listing: Path = LISTING) -> list[OpenSeed]:
    """Return the listed seeds of all worlds."""
    lines = listing.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 4) for line in lines if line.strip() and not line.startswith("#")]
    return [OpenSeed(world, int(seed), since, commit, verdict) for world, seed, since, commit, verdict in rows]


def listed_seeds(world: str, listing: Path = LISTING) -> set[int]:
    """Return the listed seeds of one world."""
    return {each.seed for each in read(listing) if each.world == world}


def add(world: str, seeds: Mapping[int, str], commit: str, listing: Path = LISTING) -> None:
    """Append seeds with their verdicts. A seed that is already listed stays unchanged."""
    listed = listed_seeds(world, listing)
    today = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    with listing.open("a", encoding="utf-8") as file:
        for seed, verdict in sorted(seeds.items()):
            if seed not in listed:
                file.write(f"{OpenSeed(world, seed, today, commit, verdict)}\n")


def _git(*arguments: str, root: Path) -> str | None:
    """Return the output of git; None if git fails or is missing."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit_before(root: Path) -> str | None:
    """
    Return the commit before the change: HEAD if the tree has uncommitted changes, otherwise the commit before HEAD.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no", root=root)
    if changed is None:
        return None
    others = [line for line in changed.splitlines() if not line.endswith(LISTING.name)]
    return _git("rev-parse", "--short=12", "--verify", "HEAD" if others else "HEAD^", root=root)


def wrong_before(world: str, seeds: Collection[int], commit: str, root: Path) -> set[int] | None:
    """
    Return those of the seeds that also go wrong with the tree of *commit*, in a temporary worktree.

    :return: None if that cannot be found out.
    """
    with tempfile.TemporaryDirectory(prefix="mwaa-dr-before-") as folder:
        tree = Path(folder) / "tree"
        if _git("worktree", "add", "--detach", str(tree), commit, root=root) is None:
            return None
        try:
            codes = {seed: _run_history(world, seed, tree) for seed in seeds}
        finally:
            _git("worktree", "remove", "--force", str(tree), root=root)
    return None if set(codes.values()) - {0, 1} else {seed for seed, code in codes.items() if code == 1}


def _run_history(world: str, seed: int, tree: Path) -> int:
    """Run one history with the code of another tree. The working directory comes first in Python's path."""
    command = [sys.executable, "-m", "tests.simulation", "--world", world, "--histories", "1", "--first", str(seed)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    # Python also exits with 1 if an import fails.
    return done.returncode if done.returncode != 1 or "1 went wrong" in done.stdout else 2
