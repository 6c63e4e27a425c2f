"""The first seed of a run: a fresh seed, or the seed of an earlier run."""

from __future__ import annotations

import random

FRESH = 10_000_000, 2_000_000_000
"""The range of fresh first seeds."""


def first_seed(repeated: int | str | None = None) -> int:
    """
    Return the first seed of a run: a fresh one, so that each run has other histories, or the one to repeat.

    :param repeated: the seed that the user gives to repeat a run; None or an empty text if the user gives none.
    """
    if repeated is None or repeated == "":
        return random.SystemRandom().randrange(*FRESH)
    return int(repeated)
