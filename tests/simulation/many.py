"""
Run many histories in several processes, and count the results; ``make simulate``.

The histories have the seeds from ``--first`` on, and are the same each time. A wrong history prints its trace, and the
command that runs it alone. After an interrupt, the program prints the seed from which to continue. ``--report`` writes
the counts of a part to a file, and ``--sum`` adds up the files of a folder.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.config import Eventual
from tests.simulation import eventual, families, halts, kinds
from tests.simulation.fast import thaw
from tests.simulation.faults import REACHED
from tests.simulation.first_seed import first_seed
from tests.simulation.kind_rules import KIND_RULES
from tests.simulation.open_seeds import (
    LISTING,
    MOST_TRIED,
    OpenSeed,
    add,
    commit_before,
    listed_seeds,
    read,
    wrong_before,
)  # fmt: skip
from tests.simulation.reach import BRANCH, FAULT, SAMPLE, all_branches, known, with_branches
from tests.simulation.report import Tally, sum_parts
from tests.simulation.rules import RULES
from tests.simulation.world import Simulation, Verdict, WrongHistoryError, digest, run_history

WORLDS = ("ledger", "families", "halts", *(mode.value for mode in Eventual), "kinds")
"""
What is simulated: one table with a ledger and runs (world.py), the same with runs that wait for each other
(families.py) or with failovers that halt for steps of users (halts.py), two lagging copies of a table (eventual.py), or
each kind of run in two versions of Airflow (kinds.py).
"""
KINDS = WORLDS[-1]
COUNTED = (WORLDS[0], KINDS)
"""Worlds with counts of cases, reports, and rules that can be disabled."""
CHUNK = 25
"""The number of histories that a process runs before it reports."""
SHOWN = 3
"""The number of traces that are printed completely. Of other wrong histories, only the first line is printed."""
EVERY_S = 10.0
"""Seconds between two progress lines if the output is no terminal."""


@dataclass
class Chunk:
    """The results of some histories, with the traces of the wrong ones."""

    first: int
    tally: Tally
    traces: list[str] = field(default_factory=list)


def run_chunk(first: int, count: int, without: str | None = None, world: str = WORLDS[0]) -> Chunk:
    """Run the histories of *count* seeds. If a rule is disabled, run them in a process of their own."""
    if without is not None:
        next(rule for rule in rules_of(world) if rule.__name__ == without)(pytest.MonkeyPatch())
    gc.disable()  # collect garbage once, after all histories
    started = time.process_time()
    chunk = Chunk(first, Tally(histories=count, ranges=[(first, count)]))
    for seed in range(first, first + count):
        if world == WORLDS[0]:
            _run_one(seed, chunk)
        elif world == KINDS:
            _run_one_of_all_kinds(seed, chunk)
        elif (trace := _trace_of(world, seed)) is not None:
            _count_wrong(seed, trace, chunk)
    gc.collect()
    chunk.tally.cpu_s = time.process_time() - started
    return chunk


def _run_one(seed: int, chunk: Chunk) -> None:
    try:
        if seed % SAMPLE:
            world, verdict = run_history(seed)
        else:
            (world, verdict), branches = with_branches(lambda: run_history(seed))
            chunk.tally.sampled += 1
            chunk.tally.reached.setdefault(BRANCH, Counter()).update(branches)
    except WrongHistoryError as error:
        _count_wrong(seed, str(error), chunk)
    else:
        _count_right(world, verdict, chunk.tally)


def _run_one_of_all_kinds(seed: int, chunk: Chunk) -> None:
    try:
        world, verdict = kinds.run_history(seed)
    except Exception as error:
        _count_wrong(seed, _trace(KINDS, seed, error), chunk)
    else:
        _count_right(world, verdict, chunk.tally)


def _count_wrong(seed: int, trace: str, chunk: Chunk) -> None:
    chunk.tally.wrong[seed] = trace.splitlines()[0]
    chunk.traces.append(trace)


def _count_right(world: Simulation, verdict: Verdict, tally: Tally) -> None:
    tally.due += verdict.due
    tally.again.update(verdict.again.values())
    for (kind, name), count in world.reached.items():
        tally.reached.setdefault(kind, Counter())[name] += count


def rules_of(world: str) -> Sequence[Callable[[pytest.MonkeyPatch], None]]:
    """Return the functions that disable a rule of a world."""
    return [*(KIND_RULES if world == KINDS else RULES)]


def chunks(first: int, histories: int) -> Iterator[tuple[int, int]]:
    """Yield the first seed and the number of seeds of each chunk."""
    for start in range(first, first + histories, CHUNK):
        yield start, min(CHUNK, first + histories - start)


class Progress:
    """A line that shows the progress; on a terminal, it is updated in place."""

    def __init__(self, first: int, histories: int) -> None:
        self.first, self.histories = first, histories
        self.done = 0
        self.started, self.printed_at = time.monotonic(), time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    @property
    def rate(self) -> float:
        return self.done / max(0.001, time.monotonic() - self.started)

    def say(self, wrong: int) -> None:
        now = time.monotonic()
        if now - self.printed_at < (0.5 if self._is_terminal else EVERY_S) and self.done < self.histories:
            return
        self.printed_at = now
        left_s = (self.histories - self.done) / max(0.001, self.rate)
        text = (
            f"{self.done:,} of {self.histories:,} histories, {self.rate:.1f} per second, "
            f"{wrong} wrong, about {left_s / 60:.0f} min left"
        )
        print(f"\r{text:<78}" if self._is_terminal else text, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()


def simulate(
    first: int, histories: int, workers: int, without: str | None = None, world: str = WORLDS[0]
) -> tuple[Tally, bool]:
    """Run the histories. Return the results of the completed ones, without a gap, and whether all are complete."""
    progress = Progress(first, histories)
    cases = {WORLDS[0]: known, KINDS: kinds.known_cases}
    total, later = Tally(reached=cases[world]() if world in cases else {}), dict[int, Tally]()
    wrong = 0
    left = chunks(first, histories)
    is_whole = True
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        running: set[Future[Chunk]] = {
            pool.submit(run_chunk, *each, without, world) for each in itertools.islice(left, 2 * workers)
        }
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                more = itertools.islice(left, len(done))
                running |= {pool.submit(run_chunk, *each, without, world) for each in more}
                for chunk in sorted((future.result() for future in done), key=lambda each: each.first):
                    later[chunk.first] = chunk.tally
                    progress.done += chunk.tally.histories
                    for trace in chunk.traces:
                        wrong += 1
                        print(f"\n{trace if wrong <= SHOWN else trace.splitlines()[0]}", flush=True)
                while (part := later.pop(first + total.histories, None)) is not None:
                    total.add(part)
                progress.say(wrong)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            is_whole = False
            on = first + total.histories
            print(
                f"\nStopped. The histories below seed {on} are complete. To continue: "
                f"make simulate FIRST={on} HISTORIES={first + histories - on}",
                file=sys.stderr,
            )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    total.seconds = time.monotonic() - progress.started
    if total.sampled:
        total.reached[BRANCH].update(all_branches())
    return total, is_whole


def check_open(listed: Sequence[OpenSeed]) -> list[int]:
    """Run the listed seeds, and return those whose history is right now."""
    right = []
    for each in listed:
        if (trace := _trace_of(each.world, each.seed)) is not None:
            print(f"Wrong since {each.since}, and still wrong: {trace.splitlines()[0]}")
            continue
        right.append(each.seed)
        print(
            f"Wrong since {each.since}, and now right: history {each.seed} ({each.verdict}). Make it a named test "
            f"({_test_of(each.world)}), and remove its line from {LISTING.name}."
        )
    return right


def _trace_of(world: str, seed: int) -> str | None:
    """Return the trace of a wrong history; None for a right one."""
    try:
        if world == WORLDS[0]:
            run_history(seed)
        elif world == WORLDS[1]:
            families.run_history(seed)
        elif world == WORLDS[2]:
            halts.run_history(seed)
        elif world == KINDS:
            kinds.run_history(seed)
        else:
            eventual.run_history(seed, Eventual(world))
    except WrongHistoryError as error:
        return str(error)
    except Exception as error:
        return _trace(world, seed, error)
    return None


def _trace(world: str, seed: int, error: Exception) -> str:
    how = f"To run only this history: .venv/bin/python -m tests.simulation --world {world} --first {seed}"
    return f"History {seed}: {type(error).__name__}: {error}\n{how} --histories 1"


def _test_of(world: str) -> str:
    """Return the file with the named tests of a world."""
    name = {WORLDS[0]: "simulation", WORLDS[1]: WORLDS[1], WORLDS[2]: WORLDS[2], KINDS: KINDS}.get(world, "eventual")
    return f"tests/simulation/test_{name}.py"


def excuse(world: str, wrong: Mapping[int, str], root: Path, listing: Path = LISTING) -> dict[int, str]:
    """
    Return the wrong histories that the current change has caused.

    Histories that also go wrong with the commit before are added to the list of open seeds.
    """
    new = {seed: verdict for seed, verdict in wrong.items() if seed not in listed_seeds(world, listing)}
    if not new:
        return {}
    if len(new) > MOST_TRIED:
        print(f"{len(new)} histories went wrong: too many to compare with the commit before the change.")
        return new
    commit = commit_before(root)
    before = wrong_before(world, new, commit, root) if commit is not None else None
    if commit is None or before is None:
        print("There is no commit before the change that can run these histories, so they fail the build.")
        return new
    add(world, {seed: new[seed].partition(": ")[2] for seed in before}, commit, listing)
    for seed in sorted(before):
        print(
            f"History {seed} was wrong before the change, too (commit {commit}): it does not fail the build. It was "
            f"added to {listing.name}; commit that file."
        )
    return {seed: verdict for seed, verdict in new.items() if seed not in before}


def judge(world: str, tally: Tally, root: Path) -> int:
    """Return the exit code of a run on fresh seeds: 1 if the change caused a wrong history."""
    blamed = excuse(world, tally.wrong, root)
    for seed in sorted(blamed):
        print(f"History {seed} is wrong. Fix the cause, and make it a named test ({_test_of(world)}).")
    return 1 if blamed else 0


def write_reached(tally: Tally) -> None:
    """Write how often each pair of fault and phase was reached. Later seeds aim at the least reached pairs."""
    counts = dict(sorted(tally.reached[FAULT].items()))
    REACHED.write_text(json.dumps(counts, indent=0) + "\n", encoding="utf-8")


def digest_of_seed(seed: int, world: str) -> str:
    """Return the digest of one history."""
    if world in {mode.value for mode in Eventual}:
        return eventual.digest(seed, Eventual(world))
    of_world = {WORLDS[0]: digest, WORLDS[1]: families.digest, WORLDS[2]: halts.digest, KINDS: kinds.digest}
    return of_world[world](seed)


def print_digests(first: int, histories: int, workers: int, world: str) -> int:
    """Print the digest of each history, one line each. Compare the output of two versions with ``diff``."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        seeds = range(first, first + histories)
        for seed, found in zip(
            seeds, pool.map(digest_of_seed, seeds, itertools.repeat(world), chunksize=CHUNK), strict=False
        ):
            print(seed, found)
    return 0


def _prepare() -> None:
    """Prepare a process for many histories."""
    logging.disable(logging.CRITICAL)
    thaw()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").strip())
    parser.add_argument("--histories", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--first", type=int, help="the first seed (default 0, or with --ci a fresh one)")
    parser.add_argument("--world", choices=WORLDS, default=WORLDS[0], help=f"what to simulate (default {WORLDS[0]})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="processes (default: one a core)")
    names = [rule.__name__ for world in COUNTED for rule in rules_of(world)]
    parser.add_argument("--without", choices=names, help="disable this rule of the core")
    parser.add_argument("--digest", action="store_true", help="print a hash of each history")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the counts to a JSON file, to be summed")
    parser.add_argument("--sum", type=Path, metavar="FOLDER", help="print the sum of the reports in a folder")
    parser.add_argument(
        "--reached",
        action="store_true",
        help=f"write how often each fault was reached to {REACHED.name}; later seeds aim at the rare ones",
    )
    parser.add_argument(
        "--ci",
        action="store_true",
        help="use a fresh first seed, run the open seeds, too, and accept histories that were wrong before the change",
    )
    options = parser.parse_args()
    if options.world not in COUNTED and (options.without or options.report):
        parser.error(f"--world {options.world} has no rules or reports")
    if options.world != WORLDS[0] and options.reached:
        parser.error(f"--world {options.world} has no counts of faults")
    if options.without is not None and options.without not in {rule.__name__ for rule in rules_of(options.world)}:
        parser.error(f"--world {options.world} has no rule {options.without}")
    if options.sum is not None:
        total = sum_parts(options.sum)
        if options.reached:
            write_reached(total)
        print(*total.lines(), sep="\n")
        return 1 if total.wrong else 0
    first = first_seed(options.first) if options.ci else options.first or 0
    workers = max(1, min(options.workers, options.histories))
    if options.digest:
        return print_digests(first, options.histories, workers, options.world)
    if options.ci:
        print(f"The first seed is {first}. To repeat: make simulation FIRST={first}", flush=True)
    tally, is_whole = simulate(first, options.histories, workers, options.without, options.world)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(tally.to_json(), encoding="utf-8")
    if options.reached:
        write_reached(tally)
    print(*tally.lines(), sep="\n", flush=True)
    if not is_whole:
        return 130
    if not options.ci:
        return 1 if tally.wrong else 0
    logging.disable(logging.CRITICAL)
    fixed = check_open([each for each in read() if each.world == options.world])
    return max(judge(options.world, tally, Path(__file__).parents[2]), 1 if fixed else 0)
