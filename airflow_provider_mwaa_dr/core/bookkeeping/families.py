"""
Which unfinished runs are the children of other runs, according to all ledgers.

A task of a parent requested the child. If the parent runs again, all its tasks execute again, and the task requests
the child again. So a child that follows its parent (:attr:`Request.is_followed`) is not resumed: otherwise its work
would be done twice. Any other child is resumed, also if its parent runs again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from airflow_provider_mwaa_dr.core.ledger import AUTOMATED, ChildRun, LedgerRun, RegionLedger, RunKey

_BY_A_TASK = {None, "OPERATOR"}
"""What Airflow stores as the requester of a run that a task requested. Airflow 2 stores nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """
    A child, and the parent that requested it.

    :param epoch: of the execution of the parent that requested the child.
    """

    parent: RunKey
    epoch: int
    child: ChildRun

    @property
    def is_followed(self) -> bool:
        """Whether the child follows the parent. A chain of runs that request each other would otherwise become two."""
        return self.child.follows_parent or self.child.dag_id == self.parent[0]


class Families:
    """
    The requests in all ledgers.

    A request concerns a run only if the ledger shows the run under the request's epoch or an earlier one. Otherwise the
    run has begun again since: as a resumed run, or because another parent requested it.
    """

    def __init__(self, ledgers: Collection[RegionLedger]) -> None:
        self._newest: dict[RunKey, LedgerRun] = {}
        self._named: dict[RunKey, list[Request]] = defaultdict(list)
        self._unnamed: dict[str, list[Request]] = defaultdict(list)
        for ledger in ledgers:
            for key, run in ledger.runs.items():
                known = self._newest.get(key)
                if known is None or (run.epoch, run.has_ended) > (known.epoch, known.has_ended):
                    self._newest[key] = run
                for child in run.children:
                    request = Request(key, run.epoch, child)
                    if child.run_id is not None:
                        self._named[child.dag_id, child.run_id].append(request)
                    elif request.is_followed:
                        self._unnamed[child.dag_id].append(request)

    def has_run_again(self, request: Request) -> bool:
        """Whether the parent has been resumed, or has been replaced itself, since it requested the child."""
        newest = self._newest.get(request.parent)
        return newest is not None and newest.epoch > request.epoch

    def followed(self, run: LedgerRun) -> Sequence[Request]:
        """Return the requests with which the unfinished *run* follows a parent. An interval follows none."""
        if run.run_type in AUTOMATED:
            return ()
        return [each for each in self._named.get(run.key, ()) if each.is_followed and run.epoch <= each.epoch]

    def perhaps_followed(self, run: LedgerRun) -> Sequence[Request]:
        """Return the requests that may have requested the unfinished *run*. None if it is known which one did."""
        if run.run_type in AUTOMATED or run.triggered_by not in _BY_A_TASK:
            return ()
        if any(run.epoch <= each.epoch for each in self._named.get(run.key, ())):
            return ()
        unnamed = self._unnamed.get(run.dag_id, ())
        return [each for each in unnamed if run.epoch <= each.epoch and each.parent != run.key]


def following(parents: Mapping[RunKey, Sequence[RunKey]], declined: Set[RunKey]) -> dict[RunKey, list[RunKey]]:
    """
    Return the runs that are not resumed by themselves, each with the parents that request it again.

    :param parents: unfinished runs that follow parents, each with its parents that are unfinished, too.
    :param declined: runs that no region resumes. Such a run begins again only if a parent of its own requests it.
    """
    begins_again: dict[RunKey, bool] = {}
    """Of runs in *parents*: whether a parent requests the run again."""

    def requests(parent: RunKey) -> bool | None:
        """Whether a parent requests its children again; None if it is not known yet."""
        if parent not in parents:
            return parent not in declined
        if parent not in begins_again:
            return None
        return begins_again[parent] or parent not in declined

    while True:
        known = {key: [requests(parent) for parent in of_key] for key, of_key in parents.items()}
        new = {
            key: any(answers)
            for key, answers in known.items()
            if key not in begins_again and (any(answers) or None not in answers)
        }
        if not new:
            # The others request each other, and no other run requests them.
            return {
                key: [each for each in parents[key] if requests(each)] for key, again in begins_again.items() if again
            }
        begins_again |= new


def replaced_by(followers: Mapping[RunKey, Sequence[RunKey]], restarted: Iterable[RunKey]) -> dict[RunKey, RunKey]:
    """Return the runs of *followers* that are requested again because of *restarted*, each with its parent."""
    found: dict[RunKey, RunKey] = {}
    again = set(restarted)
    while True:
        new = {
            key: next(each for each in parents if each in again)
            for key, parents in followers.items()
            if key not in found and any(each in again for each in parents)
        }
        if not new:
            return found
        found |= new
        again |= new.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """
    The unfinished runs that are not simply resumed.

    :param replaced: children whose parent has run again already, with that parent.
    :param parents: children that follow parents that are to run again, each with these parents.
    :param doubtful: runs that one of several parents may have requested, with a text that says which.
    :param perhaps: the same runs, each with these parents.
    """

    replaced: Mapping[RunKey, RunKey]
    parents: Mapping[RunKey, Sequence[RunKey]]
    doubtful: Mapping[RunKey, str]
    perhaps: Mapping[RunKey, Set[RunKey]]

    def doubted(self, runs: Mapping[RunKey, LedgerRun], taken: Set[RunKey]) -> list[LedgerRun]:
        """
        Return the doubtful runs with the doubt in them, as the ledger has to show them when a parent runs again.

        The request disappears from the ledger together with the earlier execution of the parent.
        """
        return [
            replace(runs[key], doubt=why)
            for key, why in self.doubtful.items()
            if runs[key].doubt is None and self.perhaps[key] & taken
        ]


def find_family(families: Families, runs: Mapping[RunKey, LedgerRun], *, declined: Set[RunKey]) -> Family:
    """
    Return which of *runs* are not simply resumed.

    :param runs: the unfinished runs that have not begun in the present role of this region.
    :param declined: those that no region resumes.
    """
    replaced: dict[RunKey, RunKey] = {}
    parents: dict[RunKey, list[RunKey]] = {}
    for key, run in runs.items():
        requests = families.followed(run)
        if again := next((each for each in requests if families.has_run_again(each)), None):
            replaced[key] = again.parent
        elif unfinished := [each.parent for each in requests if each.parent in runs]:
            parents[key] = unfinished
    followers = following(parents, declined)
    perhaps = {
        key: found
        for key, run in runs.items()
        if (
            found := {
                each.parent
                for each in families.perhaps_followed(run)
                if families.has_run_again(each)
                or (each.parent in runs and (each.parent not in declined or each.parent in followers))
            }
        )
    }
    doubtful = {
        key: f"{' '.join(min(found))} may have requested it, and requests it again" for key, found in perhaps.items()
    }
    return Family(replaced=replaced, parents=followers, doubtful=doubtful, perhaps=perhaps)
