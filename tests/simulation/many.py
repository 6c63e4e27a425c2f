"""
Live through many histories, in processes, and count what came out; ``make simulate``.

The histories are those of the seeds from ``--first`` on, the same each time. One that goes wrong prints its trace, and
how to live through it alone. Interrupted, it says from which seed on it has to be taken up again.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

import pytest

from tests.simulation.fast import thaw
from tests.simulation.rules import RULES
from tests.simulation.world import WrongHistoryError, digest, live_through

CHUNK = 25
"""Histories that a process lives through before it reports."""
SHOWN = 3
"""Traces that are printed whole; of the other histories that go wrong, the first line is."""
EVERY_S = 10.0
"""Between two lines of progress where there is no terminal."""


@dataclass
class Chunk:
    """What came out of some histories."""

    first: int
    count: int
    wrong: list[tuple[int, str]] = field(default_factory=list)
    due: int = 0
    again: Counter[str] = field(default_factory=Counter)


def live_through_chunk(first: int, count: int, without: str | None = None) -> Chunk:
    """Live through the histories of *count* seeds; in a process of their own if a rule is taken out."""
    if without is not None:
        next(rule for rule in RULES if rule.__name__ == without)(pytest.MonkeyPatch())
    gc.disable()  # a history's garbage goes at once, between two of them
    chunk = Chunk(first, count)
    for seed in range(first, first + count):
        _live_through_one(seed, chunk)
    gc.collect()
    return chunk


def _live_through_one(seed: int, chunk: Chunk) -> None:
    try:
        _, verdict = live_through(seed)
    except WrongHistoryError as error:
        chunk.wrong.append((seed, str(error)))
    else:
        chunk.due += verdict.due
        chunk.again.update(verdict.again.values())


def chunks(first: int, histories: int) -> Iterator[tuple[int, int]]:
    """Yield the first seed and the number of seeds of each chunk."""
    for start in range(first, first + histories, CHUNK):
        yield start, min(CHUNK, first + histories - start)


class Progress:
    """One line that says how far it is; on a terminal it stays where it is."""

    def __init__(self, first: int, histories: int) -> None:
        self.first, self.histories = first, histories
        self.done = 0
        self.started, self.said_at = time.monotonic(), time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    @property
    def rate(self) -> float:
        return self.done / max(0.001, time.monotonic() - self.started)

    def say(self, wrong: int) -> None:
        now = time.monotonic()
        if now - self.said_at < (0.5 if self._is_terminal else EVERY_S) and self.done < self.histories:
            return
        self.said_at = now
        left_s = (self.histories - self.done) / max(0.001, self.rate)
        text = (
            f"{self.done:,} of {self.histories:,} histories, {self.rate:.1f} a second, "
            f"{wrong} wrong, about {left_s / 60:.0f} min left"
        )
        print(f"\r{text:<78}" if self._is_terminal else text, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()


def simulate(first: int, histories: int, workers: int, without: str | None = None) -> int:
    """Live through the histories, and return the exit code: 1 when one went wrong."""
    progress = Progress(first, histories)
    wrong: list[int] = []
    due, again = 0, Counter[str]()
    finished: set[int] = set()
    left = chunks(first, histories)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        running: set[Future[Chunk]] = {
            pool.submit(live_through_chunk, *each, without) for each in itertools.islice(left, 2 * workers)
        }
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                more = itertools.islice(left, len(done))
                running |= {pool.submit(live_through_chunk, *each, without) for each in more}
                for chunk in sorted((future.result() for future in done), key=lambda each: each.first):
                    finished |= set(range(chunk.first, chunk.first + chunk.count))
                    progress.done += chunk.count
                    due += chunk.due
                    again += chunk.again
                    for seed, trace in chunk.wrong:
                        wrong.append(seed)
                        print(f"\n{trace if len(wrong) <= SHOWN else trace.splitlines()[0]}", flush=True)
                progress.say(len(wrong))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            on = next(seed for seed in itertools.count(first) if seed not in finished)
            print(
                f"\nStopped after {progress.done:,} histories, {len(wrong)} wrong; all below {on} are done. Go on: "
                f"make simulate FIRST={on} HISTORIES={first + histories - on}",
                file=sys.stderr,
            )
            return 130
    if sys.stderr.isatty():
        print(file=sys.stderr)
    _sum_up(progress, wrong, due, again)
    return 1 if wrong else 0


def _sum_up(progress: Progress, wrong: Sequence[int], due: int, again: Counter[str]) -> None:
    seconds = time.monotonic() - progress.started
    last = progress.first + progress.done - 1
    print(
        f"{progress.done:,} histories (seeds {progress.first} to {last}) in {seconds:.0f} s, "
        f"{progress.rate:.1f} a second: {len(wrong)} went wrong."
    )
    print(f"{due:,} runs were due. Executed again, for a reason that is allowed: {sum(again.values()):,}.")
    for why, count in again.most_common():
        print(f"  {count:>9,}  {why}")
    if wrong:
        print("Wrong: " + " ".join(map(str, sorted(wrong))))
        print("One of them alone: .venv/bin/python -m tests.simulation --histories 1 --first SEED")


def print_digests(first: int, histories: int, workers: int) -> int:
    """Print the digest of each history, a line each; compare those of two versions with ``diff``."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        seeds = range(first, first + histories)
        for seed, found in zip(seeds, pool.map(digest, seeds, chunksize=CHUNK), strict=True):
            print(seed, found)
    return 0


def _prepare() -> None:
    """Prepare a process of its own for many histories."""
    logging.disable(logging.CRITICAL)
    thaw()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").strip())
    parser.add_argument("--histories", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="processes (default: one a core)")
    parser.add_argument("--without", choices=[rule.__name__ for rule in RULES], help="take a rule out of the core")
    parser.add_argument("--digest", action="store_true", help="print a hash of everything that happens, for each seed")
    options = parser.parse_args()
    if options.digest:
        return print_digests(options.first, options.histories, options.workers)
    return simulate(options.first, options.histories, max(1, min(options.workers, options.histories)), options.without)
