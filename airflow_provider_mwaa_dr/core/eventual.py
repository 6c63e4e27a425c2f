"""
One state store made of several: a table whose copies follow each other later, and where the last writer wins.

A condition holds only against the copy that it was sent to. So each kind of item is written in one place: the state,
sets and records in the copy of the region that a plan activates, after every copy that answers has been read; what
belongs to a region, in that region's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.inventory import Inventory
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    Claim,
    Clock,
    DagSet,
    FailoverRecord,
    Observation,
    Registration,
    StateStore,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import (
    StaleStateError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    UnreadableItem,
    UnreadableItemError,
)

log = get_logger(__name__)

T = TypeVar("T")

AVOID_S = 5.0
"""How long a copy that failed is left out, where it is not asked for by name."""


class EventualStateStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.StateStore` over the copies of one table.

    Whoever decides for the whole set (``read``) is given the newest state of all copies that answer. A region's view
    (``observe``) is that of its own copy (:attr:`Eventual.AVAILABLE`), or the newest of all of them, every one of which
    has to answer (:attr:`Eventual.SAFE`). Two copies that hold different states of the same version count as no answer:
    replication settles that within seconds, and until then nobody can know which one stays.

    :param copies: a store for each copy, by its region, nearest first.
    """

    def __init__(self, copies: Mapping[str, StateStore], *, mode: Eventual, clock: Clock) -> None:
        self._copies = dict(copies)
        self._mode = mode
        self._clock = clock
        self._failures: dict[str, tuple[float, StateError]] = {}
        # Where the plan that was read or written last belongs; of each region, its reconciled epoch and newest state.
        self._home = next(iter(self._copies))
        self._reconciled: dict[str, int | None] = {}
        self._seen: dict[str, DRState] = {}

    # The state.

    def observe(self, region: str) -> Observation:
        """
        Return state and *region*'s reconciled epoch, by its own copy or by all; see the class.

        Where no copy holds any more what made *region* active, it is written back: somebody who could not see it wrote
        an older epoch later, and the last writer has won.
        """
        observed = self._observe(region)
        seen, state = self._seen.get(region), observed.state
        if state is not None and seen is not None and seen.is_newer_than(state):
            self._bring_back(region, seen)
        elif state is not None:
            self._seen[region] = state
        return observed

    def _bring_back(self, region: str, seen: DRState) -> None:
        if seen.active_region != region or seen.problems or region not in self._copies:
            return
        with suppress(StateError):  # the next look tries again
            found = self._states(avoid=False)
            held, newest = found.get(region), _newest(found)
            if len(found) < len(self._copies) or held is None or newest is None or not seen.is_newer_than(newest):
                return
            self._copies[region].write(seen, expected_version=held.version)
            log.warning(
                "%s is active, epoch %d: written back over epoch %d, version %d, which was written by somebody who did "
                "not know.", region, seen.epoch, newest.epoch, newest.version,
            )  # fmt: skip

    def _observe(self, region: str) -> Observation:
        own = region if region in self._copies else next(iter(self._copies))
        if self._mode is Eventual.SAFE:
            found = self._from_all(lambda copy: copy.observe(region))
            if why := self._unread(found):
                raise StateUnreachableError(
                    f"Not every copy of the state table was read: {why}.",
                    advice="With [dr] eventual = safe a region runs only while all copies can be read.",
                )
            state = _newest({name: each.state for name, each in found.items()})
            return replace(found[own], state=state)
        name, observed = self._from_first(lambda copy: copy.observe(region), first=own)
        if name == own:
            self._reconciled[region] = observed.reconciled_epoch
            return observed
        # What this region has settled may not have got there yet; settled again, its runs would be closed.
        epochs = [epoch for epoch in (self._reconciled.get(region), observed.reconciled_epoch) if epoch is not None]
        return replace(observed, reconciled_epoch=max(epochs, default=None))

    def read(self) -> DRState:
        """Return the newest state of all copies that answer. :raises StateNotFoundError: they all do, and none has."""
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
        """Return the state that each copy holds, of those that answer."""
        return self._states(avoid=False)

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """
        Write *state* into the copy of the region that it activates, if no copy that answers holds a newer one.

        The first state of all is written only once every copy was seen to hold none.

        :raises StaleStateError: the newest version is not *expected_version*.
        :raises StateUnreachableError: the copy did not answer; nothing was written to any other.
        """
        found = self._states(avoid=False)
        newest = _newest(found)
        is_newer = newest is not None and newest.epoch > state.epoch  # two branches, written while copies were apart
        if is_newer or (None if newest is None else newest.version) != expected_version:
            raise StaleStateError(expected_version, newest)
        if newest is None:
            self._refuse_unread(found)
        home = self._home_of(state)
        if home not in found:
            raise StateUnreachableError(
                "Nothing was written: the state goes only to the copy of the region being activated, and that cannot "
                f"be read: {self._unread(set(self._copies) - {home})}.",
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
        """Return the copy that *state* belongs into; a region without one uses the nearest that others use, too."""
        return self._own(state.plan.target if state.plan is not None else state.active_region)

    def _own(self, region: str) -> str:
        return region if region in self._copies else min(self._copies)

    def _unread(self, found: Collection[str]) -> str:
        """Return the copies that are not among *found*, each with the reason; empty when there are none."""
        missing = (name for name in self._copies if name not in found)
        return "; ".join(f"{name}: {self._why(name).message.rstrip('.')}" for name in missing)

    def _refuse_unread(self, found: Collection[str]) -> None:
        if why := self._unread(found):
            raise StateUnreachableError(
                f"Whether the state table has a state item is not known: {why}.",
                advice="Try again once every copy of the table can be read.",
            )

    # What belongs to a region.

    def overwrite(self, state: DRState) -> None:
        """Write *state*, whatever is stored, into the copy of the region that it activates."""
        self._ask(self._home_of(state), lambda copy: copy.overwrite(state))

    def register(self, registration: Registration) -> None:
        """Name an environment of the set, in its region's copy."""
        self._from_first(lambda copy: copy.register(registration), first=registration.region)

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the named environments by region, each as its own region's copy has it, if that answers."""
        found = self._from_all(lambda copy: copy.registrations(regions), avoid=True)
        merged = {region: one for each in found.values() for region, one in each.items()}
        own = {region: found[region][region] for region in merged if region in found.get(region, {})}
        return dict(sorted({**merged, **own}.items()))

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """Return the registered regions, by all copies that answer: of *among*, or all when empty."""
        found = self._from_all(lambda copy: copy.regions(among), avoid=True)
        return frozenset().union(*found.values())

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """Replace the list of registered regions in *region*'s own item, in its own copy."""
        self._from_first(lambda copy: copy.put_regions(region, regions), first=region)

    def put_agent(self, status: AgentStatus) -> None:
        """Write a heartbeat into the region's copy."""
        self._from_first(lambda copy: copy.put_agent(status), first=status.region)
        if status.reconciled_epoch is not None:
            self._reconciled[status.region] = status.reconciled_epoch

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeats, from the region's own copy if it answers."""
        return self._from_first(lambda copy: copy.agents(region), first=region)[1]

    def forget_agent(self, region: str, job: str) -> None:
        """Drop the heartbeat of a scheduler that is gone for good."""
        self._from_first(lambda copy: copy.forget_agent(region, job), first=region)

    def put_claim(self, claim: Claim) -> None:
        """Write the heartbeat of an agent that claims a region which is not its own, where its environment runs."""
        self._from_first(lambda copy: copy.put_claim(claim), first=claim.place)

    def claims(self, place: str) -> Sequence[Claim]:
        """Return the last heartbeats of such agents, from the copy of *place* if it answers."""
        return self._from_first(lambda copy: copy.claims(place), first=place)[1]

    def forget_claim(self, claim: Claim) -> None:
        """Drop a claim's heartbeat."""
        self._from_first(lambda copy: copy.forget_claim(claim), first=claim.place)

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Note which environments claim *region*, in its own copy."""
        self._from_first(lambda copy: copy.put_dispute(region, environments), first=region)

    def put_fence(self, region: str, at: datetime) -> None:
        """Note that a worker of *region* loaded the fence."""
        self._from_first(lambda copy: copy.put_fence(region, at), first=region)

    def fence(self, region: str) -> datetime | None:
        """Return when a worker of *region* last noted its fence."""
        return self._from_first(lambda copy: copy.fence(region), first=region)[1]

    def put_unpublished(self, unpublished: Unpublished) -> None:
        """Replace what is stored of a region, in its own copy."""
        self._from_first(lambda copy: copy.put_unpublished(unpublished), first=unpublished.region)

    def unpublished(self, region: str) -> Unpublished | None:
        """Return what a region could not take over, from its own copy if that has it and answers."""
        return self._first_that_has(lambda copy: copy.unpublished(region), first=region)

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Note that a person has seen it, in the region's own copy."""
        return self._from_first(lambda copy: copy.acknowledge_unpublished(region, unpublished_id, at), first=region)[1]

    def put_snapshot(self, dag_set: DagSet) -> None:
        """Replace a region's snapshot, in its own copy."""
        self._from_first(lambda copy: copy.put_snapshot(dag_set), first=dag_set.region)

    def get_snapshot(self, region: str) -> DagSet | None:
        """Return a region's last snapshot, from its own copy if that has one and answers."""
        return self._first_that_has(lambda copy: copy.get_snapshot(region), first=region)

    def put_paused(self, dag_set: DagSet) -> None:
        """
        Replace the set that pausing by hand took in a region: in the region's own copy, and in no other.

        :raises StateError: that copy did not take it.
        """
        own = self._own(dag_set.region)
        try:
            self._ask(own, lambda copy: copy.put_paused(dag_set))
        except StateError as error:
            raise _no_paused_set(dag_set.region, own, "written", error) from error

    def get_paused(self, region: str) -> DagSet | None:
        """
        Return the set that pausing by hand took in a region.

        The newest of all copies counts: the first version wrote it into whichever copy was nearest to the caller.

        :raises StateError: the region's own copy did not answer, so whether there is a set is not known.
        """
        own = self._own(region)
        try:
            held = self._ask(own, lambda copy: copy.get_paused(region))
        except UnreadableItemError:
            raise
        except StateError as error:
            raise _no_paused_set(region, own, "read", error) from error
        found = [held]
        for name in self._copies:
            if name != own:
                with suppress(StateError):
                    found.append(self._ask(name, lambda copy: copy.get_paused(region)))
        return max((each for each in found if each is not None), key=lambda each: each.recorded_at, default=None)

    def put_inventory(self, inventory: Inventory) -> None:
        """Replace a region's inventory, in its own copy."""
        self._from_first(lambda copy: copy.put_inventory(inventory), first=inventory.region)

    def get_inventory(self, region: str) -> Inventory | None:
        """Return a region's last inventory, from its own copy if that has one and answers."""
        return self._first_that_has(lambda copy: copy.get_inventory(region), first=region)

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of a region's last inventory, from its own copy if that has one and answers."""
        return self._first_that_has(lambda copy: copy.inventory_key(region), first=region)

    # What belongs to a plan.

    def put_set(self, dag_set: DagSet) -> DagSet:
        """Record a set where the plan is; one that any copy has is returned."""
        known = self.get_set(dag_set.id)
        if known is not None:
            return known
        return self._from_first(lambda copy: copy.put_set(dag_set), first=self._home)[1]

    def newest_wanted_set(self) -> DagSet | None:
        """Return the wanted set that was recorded last, of all copies that answer."""
        found = self._from_all(lambda copy: copy.newest_wanted_set(), avoid=True)
        sets = [dag_set for dag_set in found.values() if dag_set is not None]
        return max(sets, key=lambda dag_set: (dag_set.recorded_at, dag_set.id), default=None)

    def get_set(self, set_id: str) -> DagSet | None:
        """Return a recorded set, from whichever copy has it."""
        return self._first_that_has(lambda copy: copy.get_set(set_id), first=self._home)

    def put_record(self, record: FailoverRecord) -> None:
        """Write what a failover has done so far, unless a copy knows that it has gone further."""
        known = self.get_record(record.id)
        if known is None or record.progress >= known.progress:
            self._from_first(lambda copy: copy.put_record(record), first=self._home)

    def get_record(self, record_id: str) -> FailoverRecord | None:
        """Return one record, as the copy has it that knows most."""
        found = self._from_all(lambda copy: copy.get_record(record_id), avoid=True)
        return max((record for record in found.values() if record is not None), key=_progress, default=None)

    def records(self) -> Sequence[FailoverRecord]:
        """Return all records, newest first, each as the copy has it that knows most."""
        merged: dict[str, FailoverRecord] = {}
        for records in self._from_all(lambda copy: copy.records(), avoid=True).values():
            for record in records:
                merged[record.id] = max(merged.get(record.id, record), record, key=_progress)
        return sorted(merged.values(), key=lambda record: (record.started_at, record.id), reverse=True)

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:
        """Return the items that cannot be read in one copy or another, each as the first copy has it."""
        merged: dict[str, UnreadableItem] = {}
        for found in self._from_all(lambda copy: copy.unreadable(regions), avoid=True).values():
            merged = {**{item.key: item for item in found}, **merged}
        return [merged[key] for key in sorted(merged)]

    # Requests.

    def _from_all(self, call: Callable[[StateStore], T], *, avoid: bool = False) -> dict[str, T]:
        """
        Return what *call* returns from each copy that answers, nearest first.

        :param avoid: leave those out that failed a moment ago, if others answer.
        :raises StateError: none answers.
        """
        answers: dict[str, T] = {}
        names = list(self._copies)
        usual = [name for name in names if not (avoid and self._failed_lately(name))]
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
        """Return what *call* returns, and from where: *first*, else the nearest; those that failed lately come last."""
        order = sorted(self._copies, key=lambda name: (self._failed_lately(name), name != first))
        unreadable: UnreadableItemError | None = None
        for name in order:
            try:
                return name, self._ask(name, call)
            except UnreadableItemError as error:  # noqa: PERF203  (there are two or three)
                # Another copy may have the item as it was, or whole.
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

    def _failed_lately(self, name: str) -> bool:
        return name in self._failures and self._clock.monotonic() < self._failures[name][0] + AVOID_S

    def _why(self, name: str) -> StateError:
        # Another thread may have reached the copy in between.
        failed = self._failures.get(name)
        return failed[1] if failed is not None else StateUnreachableError("It did not answer.", advice="Try again.")

    def _failure(self) -> StateError:
        """Return why no copy answers; that one of them may do so later weighs most."""
        errors = [self._why(name) for name in self._copies]
        return next((error for error in errors if isinstance(error, StateUnreachableError)), errors[0])


def _state_of(copy: StateStore) -> DRState | None:
    try:
        return copy.read()
    except StateNotFoundError:
        return None


def _no_paused_set(region: str, copy: str, done: str, error: StateError) -> StateError:
    return type(error)(
        f"The set of DAGs that were paused in {region} belongs into the copy of the state table in {copy}, and cannot "
        f"be {done} there: {error.message.rstrip('.')}.",
        advice=f"Repeat the command once the copy in {copy} can be used. {error.advice}".rstrip(),
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
                advice="Two callers wrote at once; replication settles it within seconds. Try again.",
            )
    return newest


def _progress(record: FailoverRecord) -> tuple[int, int]:
    return record.progress, len(record.steps)
