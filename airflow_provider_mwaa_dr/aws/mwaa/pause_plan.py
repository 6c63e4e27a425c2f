"""
Plan the calls that pause, or unpause, exactly the given DAGs and never another DAG. Pure.

Airflow's bulk ``PATCH /dags`` accepts no list of ids. Its filters differ by version (source code of 2.10.3, 3.0.6,
3.2.1 and 3.3.1, api_connexion/endpoints/dag_endpoint.py and core_api/routes/public/dags.py):

=========  ==================================================  =======================================================
version    which DAGs a call matches                           which of them it changes
=========  ==================================================  =======================================================
2.x        ILIKE %pattern%                                     limit and offset over the matches, sorted by id
3.0, 3.1   ILIKE %pattern%, and a filter on the paused flag    limit and offset over the matches, in NO order
3.2        the same, and ``a|b`` matches either                the same
3.3        the same                                            every match; limit and offset have no effect
=========  ==================================================  =======================================================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from airflow_provider_mwaa_dr.core.ports import DagInfo

PAGE = 100
"""Number of DAGs that every version can return and change in one call."""
ALL = "~"
"""The pattern that matches every DAG. A call without a pattern matches ids that contain "none"."""
MAX_PATTERN = 3_500
"""Maximum length of a pattern in a URL of 4,096 characters; the rest is for the other parts."""
MAX_SINGLE_ID = 58
"""Longest id whose path InvokeRestApi accepts (64 characters with ``/dags/``)."""


class Bulk(str, Enum):
    """How the bulk call of an Airflow version selects DAGs."""

    WINDOW = "window"
    PATTERN = "pattern"
    PATTERNS = "patterns"

    @classmethod
    def of(cls, version: tuple[int, ...]) -> Bulk:
        """Return how the bulk call of *version* selects DAGs."""
        if version < (3,):
            return cls.WINDOW
        return cls.PATTERN if version < (3, 2) else cls.PATTERNS


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseCall:
    """
    One call.

    :param dag_ids: the DAGs that the call changes; all are in the other state before.
    :param pattern: pattern of a bulk call; None: a call to the path of one DAG.
    :param offset: position in the server's sorted list of all DAGs; only with Bulk.WINDOW.
    :param limit: number of DAGs from there; only with Bulk.WINDOW.
    """

    dag_ids: frozenset[str]
    pattern: str | None = None
    offset: int = 0
    limit: int = PAGE


def plan_calls(listing: Sequence[DagInfo], wanted: Collection[str], *, paused: bool, bulk: Bulk) -> list[PauseCall]:
    """
    Return the calls that set the paused flag of the *wanted* DAGs to *paused*.

    No call changes another DAG, as long as the listing is up to date: a pattern or a window may include another DAG
    only if its flag is *paused* already. The calls are few if the ids have common prefixes; else there is one for each
    DAG.

    :param listing: all DAGs, in the order of the server.
    """
    chosen = frozenset(wanted)
    changing = [dag.dag_id for dag in listing if dag.is_paused is not paused and dag.dag_id in chosen]
    untouchable = [dag.dag_id for dag in listing if dag.is_paused is not paused and dag.dag_id not in chosen]
    if not changing:
        return []
    if bulk is Bulk.WINDOW:
        return list(_windows(listing, frozenset(changing), frozenset(untouchable)))
    if not untouchable:
        return [PauseCall(dag_ids=frozenset(changing), pattern=ALL)]
    terms, singles = _terms(sorted(changing), Hits(untouchable))
    if bulk is Bulk.PATTERNS:
        calls = list(_joined(terms))
    else:
        calls = [_call_for(dag_ids, pattern) for pattern, dag_ids in terms.items()]
    return calls + [PauseCall(dag_ids=frozenset({dag_id})) for dag_id in singles]


def _windows(listing: Sequence[DagInfo], changing: frozenset[str], untouchable: frozenset[str]) -> Iterator[PauseCall]:
    """
    Return windows of the listing that begin and end with a DAG to change, and contain no DAG that must not change.
    """
    start = 0
    while start < len(listing):
        if listing[start].dag_id not in changing:
            start += 1
            continue
        end = last = start
        while end < len(listing) and end - start < PAGE and listing[end].dag_id not in untouchable:
            last = end if listing[end].dag_id in changing else last
            end += 1
        inside = frozenset(dag.dag_id for dag in listing[start : last + 1]) & changing
        if len(inside) == 1:
            yield PauseCall(dag_ids=inside)
        else:
            yield PauseCall(dag_ids=inside, pattern=ALL, offset=start, limit=last + 1 - start)
        start = last + 1


class Hits:
    """
    Whether a pattern matches any of some ids, like ILIKE %pattern%.

    Errs on the side of a match: it ignores case as in Unicode, and ``_`` matches any character.
    """

    def __init__(self, dag_ids: Collection[str]) -> None:
        # DAG ids contain no line break, and neither "." in a regular expression nor a literal term matches one.
        self._joined = "\n".join(dag_ids).lower()

    def any_by(self, pattern: str) -> bool:
        """Return whether *pattern* matches one of the ids."""
        pattern = pattern.lower()
        if pattern in self._joined:
            return True
        return "_" in pattern and re.search(re.escape(pattern).replace("_", "."), self._joined) is not None


def _terms(changing: Sequence[str], untouchable: Hits) -> tuple[dict[str, frozenset[str]], list[str]]:
    """
    Return patterns that match no untouchable id, with the ids for each, and the ids for which no pattern exists.

    The patterns are the shortest sufficient prefixes: DAGs that belong together often have a common prefix.

    :param changing: sorted ids.
    """
    terms: dict[str, frozenset[str]] = {}
    singles: list[str] = []
    groups: list[tuple[int, Sequence[str]]] = [(0, changing)]
    while groups:
        known, group = groups.pop()
        prefix = _common_prefix(group[0], group[-1])
        if _is_safe(prefix) and not untouchable.any_by(prefix):
            # If a prefix matches no untouchable id, no longer prefix does. So a binary search finds the shortest one.
            low, high = known + 1, len(prefix)
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if untouchable.any_by(prefix[:middle]) else (low, middle)
            terms[prefix[:low]] = terms.get(prefix[:low], frozenset()) | frozenset(group)
        elif len(group) == 1:
            singles.append(group[0])
        else:
            by_next: dict[str, list[str]] = {}
            for dag_id in group:
                by_next.setdefault(dag_id[: len(prefix) + 1], []).append(dag_id)
            groups += [(len(prefix), members) for members in by_next.values()]
    return terms, sorted(singles)


def _common_prefix(first: str, last: str) -> str:
    """Return the common prefix of a sorted group, from its first and last id."""
    length = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return first[:length] if length is not None else min(first, last, key=len)


def _is_safe(pattern: str) -> bool:
    """Whether a pattern has one meaning in every database: plain ASCII, without operators of ILIKE or of Airflow."""
    return bool(pattern) and pattern.isascii() and not set(pattern) & set("%|\\~ ")


def _call_for(dag_ids: frozenset[str], pattern: str) -> PauseCall:
    (first, *others) = dag_ids
    if not others and len(first) <= MAX_SINGLE_ID:
        return PauseCall(dag_ids=dag_ids)
    return PauseCall(dag_ids=dag_ids, pattern=pattern)


def _joined(terms: dict[str, frozenset[str]]) -> Iterator[PauseCall]:
    """Return calls with as many patterns each as fit into a URL; ``|`` takes three characters there."""
    pattern = ""
    dag_ids: frozenset[str] = frozenset()
    for term, members in sorted(terms.items()):
        if pattern and len(pattern) + 2 * pattern.count("|") + 3 + len(term) > MAX_PATTERN:
            yield PauseCall(dag_ids=dag_ids, pattern=pattern)
            pattern, dag_ids = "", frozenset()
        pattern = f"{pattern}|{term}" if pattern else term
        dag_ids |= members
    if pattern:
        yield PauseCall(dag_ids=dag_ids, pattern=pattern)
