"""
One state store over several copies: for a table with eventual consistency, in which the last writer wins.

The condition of a write is checked only in the copy that receives it. So each kind of item is written to one copy only.
The state, sets and records are written to the copy of the region that a plan activates, after a read of every copy that
answers. An item that belongs to a region is written to that region's own copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.item_kind import Home, ItemKind
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    Clock,
    DagSet,
    Observation,
    Registration,
    StateStore,
)
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import (
    StaleStateError,
    StateAccessError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    UnreadableItem,
    UnreadableItemError,
)

log = get_logger(__name__)

T = TypeVar("T")

AVOID_S = 5.0
"""How long reads that can use any copy avoid a copy that failed."""


class EventualStateStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.StateStore` over the copies of one table.

    ``read``, for decisions about the whole set, returns the newest state of all copies that answer. ``observe``, for a
    region's view, returns the state of the region's own copy (:attr:`Eventual.AVAILABLE`), or the newest of all
    copies, which must all answer (:attr:`Eventual.SAFE`). If two copies have different states of the same version, this
    counts as no answer: replication chooses one of them within seconds, and until then it is unknown which one.

    :param copies: a store for each copy, by its region, nearest first.
    :param only_reads: ``observe`` never writes a state again, because the caller only shows what it reads.
    """

    def __init__(
        self, copies: Mapping[str, StateStore], *, mode: Eventual, clock: Clock, only_reads: bool = False
    ) -> None:
        self._copies = dict(copies)
        self._mode = mode
        self._only_reads = only_reads
        self._clock = clock
        self._failures: dict[str, tuple[float, StateError]] = {}
        # The copy for the plan that was read or written last; and, by region, the reconciled epoch and newest state.
        self._home = next(iter(self._copies))
        self._reconciled: dict[str, int | None] = {}
        self._seen: dict[str, DRState] = {}
        self._not_written_back: LogOnChange[tuple[str, int] | None] = LogOnChange(None)

    # The state.

    def observe(self, region: str) -> Observation:
        """
        Return the state and *region*'s reconciled epoch, from its own copy or from all copies; see the class.

        If the state that made *region* active has disappeared from all copies, write it again. It disappears if another
        caller, which could not read it, later wrote an older epoch: the last writer wins.
        """
        observed = self._observe(region)
        seen, state = self._seen.get(region), observed.state
        if state is not None and seen is not None and seen.is_newer_than(state) and not self._only_reads:
            self._bring_back(region, seen)
        elif state is not None:
            self._seen[region] = state
        return observed

    def _bring_back(self, region: str, seen: DRState) -> None:
        """Write *seen* again, if this caller has the right; without it, log once what that means."""
        if seen.active_region != region or seen.problems or region not in self._copies:
            return
        with suppress(StateError):  # the next call tries again
            found = self._states(avoid=False)
            held, newest = found.get(region), _newest(found)
            if len(found) < len(self._copies) or held is None or newest is None or not seen.is_newer_than(newest):
                return
            try:
                self._copies[region].write(seen, expected_version=held.version)
            except StateAccessError as error:
                if self._not_written_back.changes_to((region, seen.epoch)):
                    log.warning(
                        "%s is active, epoch %d, but a caller that had not read this wrote epoch %d, version %d, over "
                        "it. The agent may not write its state again, so %s does not use the answer, and holds all its "
                        "runs after the lease: fail over to the region that shall be active, or deploy with "
                        "--agents-may-write-back. %s", region, seen.epoch, newest.epoch, newest.version, region, error,
                    )  # fmt: skip
                return
            log.warning(
                "%s is active, epoch %d. Its agent wrote this state again over epoch %d, version %d, from a caller "
                "that had not read it.", region, seen.epoch, newest.epoch, newest.version,
            )  # fmt: skip

    def _observe(self, region: str) -> Observation:
        own = region if region in self._copies else next(iter(self._copies))
        if self._mode is Eventual.SAFE:
            found = self._from_all(lambda copy: copy.observe(region))
            if why := self._unread(found):
                raise StateUnreachableError(
                    f"Not every copy of the state table was read: {why}.",
                    advice="With [dr] eventual = safe, a region runs only while all copies can be read.",
                )
            state = _newest({name: each.state for name, each in found.items()})
            return replace(found[own], state=state)
        name, observed = self._from_first(lambda copy: copy.observe(region), first=own)
        if name == own:
            self._reconciled[region] = observed.reconciled_epoch
            return observed
        # This copy may not have the region's last reconciled epoch yet. If the agent reconciled again, it would close
        # the region's own runs.
        epochs = [epoch for epoch in (self._reconciled.get(region), observed.reconciled_epoch) if epoch is not None]
        return replace(observed, reconciled_epoch=max(epochs, default=None))

    def read(self) -> DRState:
        """Return the newest state of all copies that answer. :raises StateNotFoundError: all answer without one."""
        found = self._states(avoid=True)
        state = _newest(found)
        if state is None:
            self._refuse_unread(found)
            raise StateNotFoundError(
                "No copy of the state table has a state item.", advice="Run mwaa-dr init --active REGION."
            )
        self._home = self._home_of(state)
        return state

    def copies(self) -> Mapping[str, DRState | None]:
        """Return the state of each copy that answers, by region."""
        return self._states(avoid=False)

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """
        Write *state* to the copy of the region that it activates, if no copy that answers has a newer state.

        The very first state is written only if every copy answers and none has a state.

        :raises StaleStateError: the newest version is not *expected_version*.
        :raises StateUnreachableError: the copy did not answer; no copy was written.
        """
        found = self._states(avoid=False)
        newest = _newest(found)
        # Two callers may have written different states while the copies were disconnected.
        is_newer = newest is not None and newest.epoch > state.epoch
        if is_newer or (None if newest is None else newest.version) != expected_version:
            raise StaleStateError(expected_version, newest)
        if newest is None:
            self._refuse_unread(found)
        home = self._home_of(state)
        if home not in found:
            raise StateUnreachableError(
                "Nothing was written: the state may be written only to the copy of the region that becomes active, and "
                f"this copy cannot be read: {self._unread(set(self._copies) - {home})}.",
                advice=f"Check the table's status in {home}, then try again.",
            )
        held = found[home]
        try:
            self._copies[home].write(state, expected_version=None if held is None else held.version)
        except StaleStateError as error:
            raise StaleStateError(expected_version, error.found) from error
        self._home = home

    def _states(self, *, avoid: bool) -> dict[str, DRState | None]:
        return self._from_all(_state_of, avoid=avoid)

    def _home_of(self, state: DRState) -> str:
        """Return the copy for *state*; a region without a copy uses the first copy by name, as all callers do."""
        return self._own(state.plan.target if state.plan is not None else state.active_region)

    def _own(self, region: str) -> str:
        return region if region in self._copies else min(self._copies)

    def _unread(self, found: Collection[str]) -> str:
        """Return the copies that are not in *found*, each with the reason; empty if all are."""
        missing = (name for name in self._copies if name not in found)
        return "; ".join(f"{name}: {self._why(name).message.rstrip('.')}" for name in missing)

    def _refuse_unread(self, found: Collection[str]) -> None:
        if why := self._unread(found):
            raise StateUnreachableError(
                f"It is unknown whether the state table has a state item: {why}.",
                advice="Try again when every copy of the table can be read.",
            )

    # What belongs to a region.

    def overwrite(self, state: DRState) -> None:
        """Write *state* without a condition to the copy of the region that it activates."""
        self._ask(self._home_of(state), lambda copy: copy.overwrite(state))

    def register(self, registration: Registration) -> None:
        """Register the name of an environment in its region's copy."""
        self._from_first(lambda copy: copy.register(registration), first=registration.region)

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the registered environments by region, each from its own region's copy if that answers."""
        found = self._from_all(lambda copy: copy.registrations(regions), avoid=True)
        merged = {region: one for each in found.values() for region, one in each.items()}
        own = {region: found[region][region] for region in merged if region in found.get(region, {})}
        return dict(sorted({**merged, **own}.items()))

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """Return the registered regions in all copies that answer: of *among*, or all regions if that is empty."""
        found = self._from_all(lambda copy: copy.regions(among), avoid=True)
        return frozenset().union(*found.values())

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """Replace the list of registered regions in *region*'s own item, in its own copy."""
        self._from_first(lambda copy: copy.put_regions(region, regions), first=region)

    def put_agent(self, status: AgentStatus) -> None:
        """Write a heartbeat to the region's copy."""
        self._from_first(lambda copy: copy.put_agent(status), first=status.region)
        if status.reconciled_epoch is not None:
            self._reconciled[status.region] = status.reconciled_epoch

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeats, from the region's own copy if it answers."""
        return self._from_first(lambda copy: copy.agents(region), first=region)[1]

    def forget_agent(self, region: str, job: str) -> None:
        """Delete the heartbeat of a scheduler that has ended."""
        self._from_first(lambda copy: copy.forget_agent(region, job), first=region)

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Store in *region*'s own copy which environments claim it."""
        self._from_first(lambda copy: copy.put_dispute(region, environments), first=region)

    def request_heartbeats(self, region: str, request_id: str) -> None:
        """Write the request into *region*'s own copy, which its agents read first."""
        self._from_first(lambda copy: copy.request_heartbeats(region, request_id), first=region)

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Store in the region's own copy that a user acknowledged the event."""
        return self._from_first(lambda copy: copy.acknowledge_unpublished(region, unpublished_id, at), first=region)[1]

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of a region's last inventory, from its own copy if possible."""
        return self._first_that_has(lambda copy: copy.inventory_key(region), first=region)

    def newest_wanted_set(self) -> DagSet | None:
        """Return the set of unpaused DAGs that was recorded last, in all copies that answer."""
        found = self._from_all(lambda copy: copy.newest_wanted_set(), avoid=True)
        sets = [dag_set for dag_set in found.values() if dag_set is not None]
        return max(sets, key=lambda dag_set: (dag_set.recorded_at, dag_set.id), default=None)

    # Items of all kinds.

    def put(self, kind: ItemKind[T], item: T) -> None:
        """
        Write an item to its home.

        An item of a plan is written only if no copy that answers has an item that its kind keeps.

        :raises StateError: the home is the only copy for items of this kind, and could not be written.
        """
        if kind.home is Home.REGION_ONLY:
            own = self._own(kind.region(item))
            try:
                self._ask(own, lambda copy: copy.put(kind, item))
            except StateError as error:
                raise _only_copy(kind, kind.region(item), own, "written", error) from error
            return
        if kind.home is Home.PLAN:
            known = self.get(kind, kind.id_of(item))
            if known is not None and kind.keeps(known, item):
                return
        self._from_first(lambda copy: copy.put(kind, item), first=self._home_of_kind(kind, kind.region(item)))

    def get(self, kind: ItemKind[T], item_id: str) -> T | None:
        """
        Return an item: the one with the highest rank in all copies that answer, or the one in its home, if possible.

        :raises StateError: the home is the only copy for items of this kind, and did not answer. So it is unknown
            whether the item exists.
        """
        if kind.home is Home.REGION_ONLY:
            return self._get_from_only(kind, item_id)
        if kind.rank is not None:
            found = self._from_all(lambda copy: copy.get(kind, item_id), avoid=True)
            return max((each for each in found.values() if each is not None), key=kind.rank, default=None)
        return self._first_that_has(lambda copy: copy.get(kind, item_id), first=self._home_of_kind(kind, item_id))

    def _get_from_only(self, kind: ItemKind[T], region: str) -> T | None:
        own = self._own(region)
        try:
            held = self._ask(own, lambda copy: copy.get(kind, region))
        except UnreadableItemError:
            raise
        except StateError as error:
            raise _only_copy(kind, region, own, "read", error) from error
        found = [held]
        for name in self._copies:
            if kind.rank is not None and name != own:
                with suppress(StateError):
                    found.append(self._ask(name, lambda copy: copy.get(kind, region)))
        return max((each for each in found if each is not None), key=kind.rank or kind.id_of, default=None)

    def find_all(self, kind: ItemKind[T], region: str = "") -> Sequence[T]:
        """Return the items of a region, from its own copy if that answers; or those of all plans, from all copies."""
        if kind.home is not Home.PLAN:
            return self._from_first(lambda copy: copy.find_all(kind, region), first=region)[1]
        best: dict[str, T] = {}
        for items in self._from_all(lambda copy: copy.find_all(kind), avoid=True).values():
            for item in items:
                known = best.get(kind.id_of(item), item)
                best[kind.id_of(item)] = known if kind.rank is None else max(known, item, key=kind.rank)
        return kind.ordered(best.values())

    def delete(self, kind: ItemKind[T], item: T) -> None:
        """Delete an item in its home."""
        self._from_first(lambda copy: copy.delete(kind, item), first=self._home_of_kind(kind, kind.region(item)))

    def _home_of_kind(self, kind: ItemKind[T], region: str) -> str:
        return self._home if kind.home is Home.PLAN else region

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:
        """Return the items that cannot be read in at least one copy, each from the first such copy."""
        merged: dict[str, UnreadableItem] = {}
        for found in self._from_all(lambda copy: copy.unreadable(regions), avoid=True).values():
            merged = {**{item.key: item for item in found}, **merged}
        return [merged[key] for key in sorted(merged)]

    # Requests.

    def _from_all(self, call: Callable[[StateStore], T], *, avoid: bool = False) -> dict[str, T]:
        """
        Return the result of *call* from each copy that answers, nearest first.

        :param avoid: do not call copies that failed recently, if others answer.
        :raises StateError: no copy answers.
        """
        answers: dict[str, T] = {}
        names = list(self._copies)
        usual = [name for name in names if not (avoid and self._failed_recently(name))]
        for batch in (usual, [name for name in names if name not in usual]):
            if answers:
                break
            for name in batch:
                with suppress(StateError):
                    answers[name] = self._ask(name, call)
        if not answers:
            raise self._failure()
        return answers

    def _from_first(self, call: Callable[[StateStore], T], *, first: str) -> tuple[str, T]:
        """Return a copy's name and result: of *first*, or else the nearest; copies that failed recently come last."""
        order = sorted(self._copies, key=lambda name: name != first)
        if self._failures:
            order.sort(key=self._failed_recently)
        unreadable: UnreadableItemError | None = None
        for name in order:
            try:
                return name, self._ask(name, call)
            except UnreadableItemError as error:  # noqa: PERF203  (there are two or three)
                # Another copy may have an older, readable item, or all its pages.
                unreadable = unreadable or error
            except StateError:
                continue
        raise unreadable or self._failure()

    def _first_that_has(self, call: Callable[[StateStore], T | None], *, first: str) -> T | None:
        name, found = self._from_first(call, first=first)
        if found is not None:
            return found
        others = self._from_all(call, avoid=True)
        return next((found for other, found in others.items() if other != name and found is not None), None)

    def _ask(self, name: str, call: Callable[[StateStore], T]) -> T:
        try:
            answer = call(self._copies[name])
        except UnreadableItemError:
            raise  # the copy answers
        except StateError as error:
            self._failures[name] = self._clock.monotonic(), error
            raise
        self._failures.pop(name, None)
        return answer

    def _failed_recently(self, name: str) -> bool:
        return name in self._failures and self._clock.monotonic() < self._failures[name][0] + AVOID_S

    def _why(self, name: str) -> StateError:
        # Another thread may have called the copy successfully in the meantime.
        failed = self._failures.get(name)
        return failed[1] if failed is not None else StateUnreachableError("It did not answer.", advice="Try again.")

    def _failure(self) -> StateError:
        """Return why no copy answers; first an error that a retry may resolve."""
        errors = [self._why(name) for name in self._copies]
        return next((error for error in errors if isinstance(error, StateUnreachableError)), errors[0])


def _state_of(copy: StateStore) -> DRState | None:
    try:
        return copy.read()
    except StateNotFoundError:
        return None


def _only_copy(kind: ItemKind[Any], region: str, copy: str, done: str, error: StateError) -> StateError:
    return type(error)(
        f"The {kind.name} of {region} cannot be {done} in the copy of the state table in {copy}, the only copy for it: "
        f"{error.message.rstrip('.')}.",
        advice=f"Repeat the command when the copy in {copy} can be used. {error.advice}".rstrip(),
    )


def _newest(states: Mapping[str, DRState | None]) -> DRState | None:
    """Return the newest state. :raises StateUnreachableError: two copies contradict each other."""
    newest: DRState | None = None
    for state in states.values():
        if state is None:
            continue
        if newest is None or state.is_newer_than(newest):
            newest = state
        elif state != newest and not newest.is_newer_than(state):
            raise StateUnreachableError(
                f"The copies of the state table contradict each other (epoch {state.epoch}, version {state.version}).",
                advice="Two callers wrote at the same time; replication chooses one state within seconds. Try again.",
            )
    return newest
