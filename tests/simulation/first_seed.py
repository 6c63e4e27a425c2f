"""The first seed of a run: a fresh one, or that of an earlier run."""

from __future__ import annotations

import random

FRESH = 10_000_000, 2_000_000_000
"""Fresh first seeds are between these."""


def first_seed(repeated: int | str | None = None) -> int:
    """
    Return the first seed of a run that is to see other histories than the runs before it.

    :param repeated: what a user gives to repeat a run; None or an empty text: nothing was given.
    """
    if repeated is None or repeated == "":
        return random.SystemRandom().randrange(*FRESH)
    return int(repeated)
