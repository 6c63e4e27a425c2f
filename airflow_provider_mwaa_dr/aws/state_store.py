"""The state table in DynamoDB."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws import items
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.contents import (
    AGENT,
    BINARY_PAGE,
    CLAIMS,
    ENVIRONMENT,
    INVENTORY_CONTENTS,
    MOST_INVENTORY_BYTES,
    SET_PAGE,
    Problem,
    Schema,
    problem_of,
    unpacked,
    unreadable,
    valid,
)
from airflow_provider_mwaa_dr.aws.replicas import BACKOFF_S, Failure, Replicas
from airflow_provider_mwaa_dr.aws.session import DYNAMODB_TIMEOUT_S, AwsFault, brief, throttled
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.inventory import Inventory, contents_from_values, contents_to_text
from airflow_provider_mwaa_dr.core.ports import (
    AgentStatus,
    Claim,
    Clock,
    DagSet,
    FailoverRecord,
    Observation,
    Registration,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import STATE_ID, DRState, is_wanted_set
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteItemError,
    StaleStateError,
    StateError,
    StateNotFoundError,
    StateUnreachableError,
    UnreadableItem,
    UnreadableItemError,
)

if TYPE_CHECKING:
    import boto3

log = get_logger(__name__)

PAGE_BYTES = 200_000
"""Of DAG ids, or of an inventory, in one item: half of the 400 KB that an item may have, and quickly sent."""
BATCH = 100
"""Keys that BatchGetItem takes."""
_ATTEMPTS = 3
"""To replace what other writers replace at the same time."""
_WRITER_S = 600.0
"""A writer has ended by then."""
_MOST_PAGES = 9_999
"""Of one generation: more than any set or inventory has."""
_ANNOUNCEMENT = re.compile(r"([0-9a-f]{1,40})/(\d{1,9})/(\d{1,12})")


class DynamoDBStateStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.StateStore` in a DynamoDB table with key ``state_id``.

    Every read is a consistent read. Each call goes to the first replica of *replicas* and, when that fails, to the
    next; an attempt is bounded at about a second, and a replica that failed is tried last for a while. boto3 is
    imported and clients are made at the first call, one for each process: a fork shares no connection, and no lock is
    held that it could inherit. Safe to use from several threads.

    A single-region table and a global table with strong consistency (MRSC) keep every promise of the port. In one with
    eventual consistency a condition holds only against the copy it was sent to: there each copy is a store of its own,
    and :class:`~airflow_provider_mwaa_dr.core.eventual.EventualStateStore` is made of them.

    :param replicas: regions of the table's copies, nearest first.
    :param session: a boto3 session with credentials; None for boto3's own search.
    :param timeout_s: bounds one attempt against one replica.
    :param default_lease_s: the lease of an item without one, such as an item of the AWS sample.
    :param spare_s: how long pages are spared that a writer has announced and no manifest names: 0 where a condition
        holds for all copies.
    """

    def __init__(
        self,
        table: str,
        replicas: Sequence[str],
        *,
        clock: Clock | None = None,
        session: boto3.session.Session | None = None,
        timeout_s: float = DYNAMODB_TIMEOUT_S,
        default_lease_s: float = 60.0,
        spare_s: float = 0.0,
    ) -> None:
        self.table = table
        self._spare_s = spare_s
        self.replicas = tuple(replicas)
        self._clock = clock or SystemClock()
        self._default_lease_s = default_lease_s
        self._replicas = Replicas(
            table,
            self.replicas,
            clock=self._clock,
            session=session,
            timeout_s=timeout_s,
            rights="GetItem, BatchGetItem, PutItem, UpdateItem, DeleteItem and Scan",
            key="state_id (S)",
            setting="[dr] state_table",
        )
        # What observe() last saw of a region's own item, and what put_agent() has written into it since.
        self._observed: dict[str, items.OwnItem] = {}

    # The state.

    def observe(self, region: str) -> Observation:
        """Return state, and *region*'s reconciled epoch and list of regions: one BatchGetItem."""
        environment_key = f"ENVIRONMENT#{region}"
        found = self._replicas.ask(lambda client: self._batch(client, (STATE_ID, environment_key)), "read the state")
        own = items.own_item(found.get(environment_key), region=region, table=self.table)
        self._observed[region] = own
        return Observation(
            state=self._to_state(found.get(STATE_ID)),
            reconciled_epoch=own.reconciled_epoch,
            environment=own.environment,
            disputed=own.disputed,
            registered=own.registered,
            problems=own.problems,
        )

    def read(self) -> DRState:
        """Return the state. :raises StateNotFoundError: the table has no state item."""
        state = self._to_state(self._get(STATE_ID))
        if state is None:
            raise StateNotFoundError(
                f"Table {self.table} has no item {STATE_ID}.", advice="Run mwaa-dr init --active REGION."
            )
        return state

    def copies(self) -> Mapping[str, DRState | None]:
        """Return nothing: the copies are one table. core/eventual.py is for those that are not."""
        return {}

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """
        Write *state* on the condition that the stored version is *expected_version*.

        A replica that could not be connected to, or turned the write away, has not written: the next one is asked.
        When an answer is lost the item is read again. It carries this write's token: done. It carries another version:
        StaleStateError. It is unchanged: StateUnreachableError, and the write may still land later; whoever decides
        again does so on a fresh read and the same condition, so of the two only one can ever count.

        ``ReplicatedWriteConflictException`` (MRSC: another region wrote at the same moment) wrote nothing; the item is
        read again, and the write repeated only if nothing changed: its condition decides.

        :raises StaleStateError: the condition failed; carries what was found.
        """
        token = uuid.uuid4().hex
        put = {
            "TableName": self.table,
            "Item": items.state_to_item(state, write_token=token),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **_version_condition(expected_version),
        }
        for wait_s in (*BACKOFF_S, None):
            failures: dict[str, Failure] = {}
            for region in self._replicas.order():
                failure = self._replicas.attempt(region, lambda client: client.put_item(**put))
                if not isinstance(failure, Failure):
                    return
                failures[region] = failure
                if failure.fault is AwsFault.CONDITION:
                    found = getattr(failure.error, "response", {}).get("Item")
                    if _token(found) == token:
                        return
                    raise StaleStateError(expected_version, self._to_state(found)) from failure.error
                if failure.fault is AwsFault.LOST:
                    self._settle_lost_write(token, expected_version, lost=region, error=failure.error)
                    return
                if failure.fault is AwsFault.CONFLICT:
                    self._raise_if_moved(expected_version, self._get(STATE_ID))
            self._replicas.pause_or_raise(wait_s, failures, "write the state")

    def overwrite(self, state: DRState) -> None:
        """Write *state* whatever is stored: only for an item whose version cannot be understood."""
        self._put(items.state_to_item(state, write_token=uuid.uuid4().hex), "write the state")

    def _settle_lost_write(self, token: str, expected_version: int | None, *, lost: str, error: Exception) -> None:
        """Return if the write with *token* landed; else raise what its caller has to know."""
        item = self._get(STATE_ID)
        if _token(item) == token:
            log.warning("The answer of a write to %s in %s was lost; it has landed.", self.table, lost)
            return
        self._raise_if_moved(expected_version, item)
        raise StateUnreachableError(
            f"No answer to a write to table {self.table} in {lost}; it has not landed so far ({brief(error)}).",
            advice="Read the state again and decide again.",
        ) from error

    def _raise_if_moved(self, expected_version: int | None, item: items.Item | None) -> None:
        """Raise StaleStateError if the version in *item* is not *expected_version*."""
        found = self._to_state(item)
        if (None if found is None else found.version) != expected_version:
            raise StaleStateError(expected_version, found)

    def _to_state(self, item: items.Item | None) -> DRState | None:
        if item is None:
            return None
        return items.state_from_item(item, default_lease_s=self._default_lease_s, table=self.table)

    # Environments and agents.

    def register(self, registration: Registration) -> None:
        """Name an environment of the set; keeps what agents wrote into the same item."""
        values = {"environment": registration.environment, "account": registration.account}
        self._update(
            f"ENVIRONMENT#{registration.region}",
            "SET environment = :environment, account = :account",
            {f":{name}": items.to_attribute(value) for name, value in values.items()},
        )

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the named environments by region: of *regions*, or of all when empty."""
        if regions:
            found = list(self._get_many([f"ENVIRONMENT#{region}" for region in regions]).values())
        else:
            found = self._scan("ENVIRONMENT#")
        named = [registration for registration in map(items.registration_from_item, found) if registration is not None]
        return {registration.region: registration for registration in sorted(named, key=lambda one: one.region)}

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """Return the regions that have an item of their own: of *among*, or all when empty."""
        if among:
            keys = list(self._get_many([f"ENVIRONMENT#{region}" for region in among]))
        else:
            keys = list(map(items.key_of, self._scan("ENVIRONMENT#")))
        return frozenset(key.partition("#")[2] for key in keys) - {""}

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """Replace the list of registered regions in *region*'s own item, which keeps everything else."""
        listed = sorted({region, *regions})
        self._update(f"ENVIRONMENT#{region}", "SET regions = :regions", {":regions": {"SS": listed}})

    def put_agent(self, status: AgentStatus) -> None:
        """
        Write a heartbeat, and the region's reconciled epoch when the status carries one.

        The epoch goes into ``ENVIRONMENT#region`` when it differs from the one that this store last observed there,
        on the condition that it still is that one: an agent with an old view cannot take back what another one of its
        region has settled since. It is compared with what was seen and not with "higher", so that it can go down when
        a set is initialised anew and its epochs start again.
        """
        self._put(items.agent_to_item(status), "write a heartbeat")
        own = self._observed.get(status.region)
        if own is None or own.jobs is None or status.job not in own.jobs:
            # DynamoDB adds to a set only. The region's other agents join the new list.
            action = "SET agents =" if own is not None and own.jobs is None else "ADD agents"
            self._update(f"ENVIRONMENT#{status.region}", f"{action} :job", {":job": {"SS": [status.job]}})
        if own is not None:
            own = replace(own, jobs=(own.jobs or frozenset()) | {status.job})
        settled = status.reconciled_epoch
        # A value that cannot be used stays for a person to correct: of what is open, nobody knows the epoch.
        is_unusable = own is not None and own.reconciled is not None and own.reconciled_epoch is None
        if settled is not None and not is_unusable and (own is None or settled != own.reconciled_epoch):
            landed = self._put_reconciled(status.region, settled, own)
            if landed and own is not None:
                own = replace(own, reconciled=items.to_attribute(settled), reconciled_epoch=settled)
        if own is not None:
            self._observed[status.region] = own

    def _put_reconciled(self, region: str, epoch: int, seen: items.OwnItem | None) -> bool:
        condition: dict[str, Any] = {}
        values = {":epoch": items.to_attribute(epoch)}
        if seen is not None and seen.reconciled is not None:
            condition = {"ConditionExpression": "reconciled_epoch = :seen"}
            values[":seen"] = dict(seen.reconciled)
        elif seen is not None:
            condition = {"ConditionExpression": "attribute_not_exists(reconciled_epoch)"}
        landed = self._update(f"ENVIRONMENT#{region}", "SET reconciled_epoch = :epoch", values, **condition)
        if not landed:
            was = seen.reconciled_epoch if seen is not None else None
            log.info("Region %s: epoch %d not noted as settled, another agent moved on from %s.", region, epoch, was)
        return landed

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeat of each scheduler in the region's list, sorted by job."""
        environment = items.from_item(self._get(f"ENVIRONMENT#{region}") or {})
        jobs = valid(environment, ENVIRONMENT.schema).get("agents")
        if jobs is None and environment.get("agents") is not None:
            # The list cannot be read; what is in it can be found.
            scanned = self._scan(items.agent_key(region, ""))
            found = {key: item for item in scanned if items.kind_of(key := items.key_of(item)) is AGENT}
        else:
            found = self._get_many([items.agent_key(region, job) for job in jobs or ()])
        statuses = [items.agent_from_item(item, table=self.table) for item in found.values()]
        return sorted(statuses, key=lambda status: status.job)

    def forget_agent(self, region: str, job: str) -> None:
        """Drop the heartbeat of a scheduler that is gone for good."""
        self._update(f"ENVIRONMENT#{region}", "DELETE agents :job", {":job": {"SS": [job]}})
        self._delete([items.agent_key(region, job)])

    def put_claim(self, claim: Claim) -> None:
        """Write the heartbeat of an agent whose environment is not the one of the region that it claims."""
        self._put(items.claim_to_item(claim), "write a heartbeat")
        # Each time: the agent that leads the region forgets a claim that stood still, and this one may go on.
        ids = {":claim": {"SS": [items.claim_id(claim)]}}
        self._update(items.claims_key(claim.place), "ADD claims :claim", ids)

    def claims(self, place: str) -> Sequence[Claim]:
        """Return the last heartbeats of those who claim a region that is not theirs, sorted."""
        listed = self._get(items.claims_key(place))
        ids = valid(items.from_item(listed or {}), CLAIMS.schema).get("claims", ())
        found = map(items.claim_from_item, self._get_many([items.claim_key(place, each) for each in ids]).values())
        return sorted((claim for claim in found if claim is not None), key=items.claim_id)

    def forget_claim(self, claim: Claim) -> None:
        """Drop a claim's heartbeat."""
        claim_id = items.claim_id(claim)
        self._update(items.claims_key(claim.place), "DELETE claims :claim", {":claim": {"SS": [claim_id]}})
        self._delete([items.claim_key(claim.place, claim_id)])

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Note which environments claim *region* while no name is registered; none of them ends the dispute."""
        names = {":names": items.to_attribute(list(environments))}
        self._update(f"ENVIRONMENT#{region}", "SET disputed = :names", names)

    def put_fence(self, region: str, at: datetime) -> None:
        """Note that a worker of *region* loaded the fence."""
        self._put(items.to_item(f"FENCE#{region}", {"at": at}), "note the fence")

    def fence(self, region: str) -> datetime | None:
        """Return when a worker of *region* last noted its fence."""
        item = self._get(f"FENCE#{region}")
        return None if item is None else items.to_time(items.values_of(item, table=self.table)["at"])

    # What a region could not take over.

    def put_unpublished(self, unpublished: Unpublished) -> None:
        """Replace what is stored of the region."""
        self._put(items.unpublished_to_item(unpublished), "list what could not be taken over")

    def unpublished(self, region: str) -> Unpublished | None:
        """Return what *region* could not take over."""
        item = self._get(items.unpublished_key(region))
        return None if item is None else items.unpublished_from_item(item, table=self.table)

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Note that a person has seen it; False when another one, or none, is stored."""
        return self._update(
            items.unpublished_key(region),
            "SET acknowledged_at = :at",
            {":at": items.to_attribute(at), ":id": items.to_attribute(unpublished_id)},
            ConditionExpression="id = :id",
        )

    # Sets of DAGs.

    def put_set(self, dag_set: DagSet) -> DagSet:
        """
        Record a wanted set once: pages first, manifest last, on the condition that there is none.

        Pages carry a key of this very call, so that of two callers who record at once neither touches the other's; the
        one whose manifest came second is handed the first one's set.
        """
        key = f"PAUSED#{dag_set.id}"
        is_damaged, before = False, self._get(key)
        try:
            there = self.get_set(dag_set.id)
        except IncompleteItemError:
            raise
        except UnreadableItemError as error:
            log.warning("%s Region %s records the set again.", error.message, dag_set.region)
            there, is_damaged = None, True
        if there is not None:
            self._collect_all(key)
            return there
        pages, manifest = _set_to_items(key, dag_set)
        generation = _generation_of(manifest)
        self._announce(key, generation, len(pages))
        for page in pages:
            self._put(page, "record a set of DAGs")
        with contextlib.suppress(StateUnreachableError):
            # The answer may have been lost; what is stored now is the answer.
            self._put_after(before if is_damaged else None, manifest, "record a set of DAGs")
        recorded = self.get_set(dag_set.id)
        if recorded is None:
            raise StateUnreachableError(
                f"The set {dag_set.id} could not be recorded in table {self.table}.", advice="Record it again."
            )
        self._collect_all(key, surely=generation)
        return recorded

    def newest_wanted_set(self) -> DagSet | None:
        """Return the wanted set that was recorded last: one scan for the manifests, then the pages of one."""
        # Pages, and what announces them, are left out; a damaged manifest is no candidate.
        manifests = self._scan_where(
            "begins_with(state_id, :prefix) AND attribute_exists(pages)",
            {":prefix": {"S": "PAUSED#"}},
            "list the recorded sets",
        )
        readable = [items.from_item(item) for item in manifests if items.fault_of(item, table=self.table) is None]
        wanted = [values for values in readable if is_wanted_set(values["id"])]
        newest = max(wanted, key=lambda values: (items.to_time(values["recorded_at"]), values["id"]), default=None)
        return None if newest is None else self.get_set(newest["id"])

    def get_set(self, set_id: str) -> DagSet | None:
        """Return a complete recorded set; None when its manifest is not there."""
        return self._get_set(f"PAUSED#{set_id}")

    def put_snapshot(self, dag_set: DagSet) -> None:
        """Replace the region's snapshot: pages of a new generation, the manifest, then the old pages go."""
        self._replace_set(f"SNAPSHOT#{dag_set.region}", dag_set)

    def get_snapshot(self, region: str) -> DagSet | None:
        """Return the region's last snapshot."""
        return self._get_set(f"SNAPSHOT#{region}")

    def put_paused(self, dag_set: DagSet) -> None:
        """Replace the set that pausing by hand took in a region."""
        self._replace_set(_paused_key(dag_set.region), dag_set)

    def get_paused(self, region: str) -> DagSet | None:
        """Return the set that pausing by hand took in a region, and has not given back."""
        return self._get_set(_paused_key(region))

    def _replace_set(self, key: str, dag_set: DagSet) -> None:
        self._replace(key, lambda: _set_to_items(key, dag_set), "write a snapshot")

    def _get_set(self, key: str) -> DagSet | None:
        values, pages = self._get_pages(key, SET_PAGE)
        if values is None:
            return None
        return DagSet(
            id=values["id"],
            region=values["region"],
            recorded_at=items.to_time(values["recorded_at"]),
            dag_ids=tuple(dag_id for page in pages for dag_id in page["dag_ids"].split("\n") if dag_id),
        )

    def _get_pages(self, key: str, schema: Schema) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """
        Return the values of a manifest and of all its pages; None and nothing when it is not there.

        :raises UnreadableItemError: one of them does not have its required content.
        :raises IncompleteItemError: a page is missing.
        """
        # It may be replaced between manifest and pages; its next generation is whole.
        for _ in range(3):
            manifest = self._get(key)
            if manifest is None:
                return None, []
            values = items.values_of(manifest, table=self.table)
            pages: list[dict[str, Any]] = []
            # One by one: each is as much as an attempt's second should carry across regions.
            for page_key in _page_keys(key, values):
                page = self._get(page_key)
                if page is None:
                    break
                pages.append(items.from_item(page))
                problem = problem_of(pages[-1], schema)
                if problem is not None:
                    raise self._unreadable(page_key, problem)
            if len(pages) == values["pages"]:
                return values, pages
        fault = self._unreadable(
            key, Problem("pages", f"{len(pages)} that are there", f"{values['pages']}, as many as it names")
        ).item
        raise IncompleteItemError(fault)

    def _unreadable(self, key: str, problem: Problem) -> UnreadableItemError:
        kind = items.kind_of(key)
        assert kind is not None  # noqa: S101  (called with our own keys)
        return UnreadableItemError(unreadable(problem, table=self.table, key=key, advice=kind.advice))

    # Pages. A writer that is cut off, or ends, leaves pages behind that no manifest names. So each generation of pages
    # is announced, in an item beside the manifest, before the first of its pages is written. A manifest is written on
    # the condition that it still is the one that the writer has read before that: once another one has landed, no
    # writer that announced its pages earlier can land any more, however late it goes on, and its pages can go.

    def _replace(self, key: str, make: Callable[[], tuple[list[dict[str, Any]], dict[str, Any]]], doing: str) -> None:
        """Replace manifest and pages: readers see the old ones or the new ones, whole; what is left over is deleted."""
        for _ in range(_ATTEMPTS):
            pages, manifest = make()
            generation, before = _generation_of(manifest), self._get(key)
            replaced = None if before is None else _announced_of(before)
            announced = self._announce(key, generation, len(pages))
            if replaced is not None and replaced.generation not in {each.generation for each in announced}:
                announced = self._announce(key, replaced.generation, replaced.pages)  # the version before wrote it
            for page in pages:
                self._put(page, doing)
            if self._put_after(before, manifest, doing):
                self._collect(
                    key,
                    [each for each in announced if each.generation != generation],
                    surely=replaced.generation if replaced is not None else None,
                )
                return
            log.info("%s in table %s has been replaced by another writer meanwhile.", key, self.table)
            # That writer may have collected the announcement before the last page was written.
            mine = _Announced(generation=generation, pages=len(pages), at=self._clock.now().timestamp())
            self._collect(key, [mine], surely=generation)
        raise StateUnreachableError(
            f"Could not {doing}: other writers replaced {key} in table {self.table} {_ATTEMPTS} times meanwhile.",
            advice="Try again.",
        )

    def _put_after(self, before: items.Item | None, manifest: Mapping[str, Any], doing: str) -> bool:
        """Write a manifest if the stored one still is *before*; return whether it is stored now."""
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(generation)"}
        if before is not None and "generation" in before:
            condition = {
                "ConditionExpression": "generation = :before",
                "ExpressionAttributeValues": {":before": before["generation"]},
            }
        return self._replicas.put_if(
            lambda client: client.put_item(
                TableName=self.table,
                Item=manifest,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            ),
            doing,
            is_mine=lambda found: found.get("generation") == manifest["generation"],
        )

    def _announce(self, key: str, generation: str, pages: int) -> list[_Announced]:
        """Note that pages may be there, whatever becomes of their writer; return all that are noted by now."""
        mine = _Announced(generation=generation, pages=pages, at=self._clock.now().timestamp())
        answer = self._replicas.ask(
            lambda client: client.update_item(
                TableName=self.table,
                Key=_key(_generations_key(key)),
                UpdateExpression="ADD generations :one",
                ExpressionAttributeValues={":one": {"SS": [mine.text]}},
                ReturnValues="ALL_NEW",
            ),
            f"announce pages of {key}",
        )
        return _announced(answer.get("Attributes"))

    def _collect(self, key: str, announced: Sequence[_Announced], *, surely: str | None) -> None:
        """
        Delete pages of generations that no manifest will name any more; what cannot be deleted now is deleted later.

        :param surely: the generation that has no writer any more, and of which that is known in a table with eventual
            consistency, too: there, another generation than the one that is read here may remain.
        """
        now = self._clock.now().timestamp()
        gone = [each for each in announced if each.generation == surely or now - each.at >= self._spare_s]
        if not gone:
            return
        try:
            for each in gone:
                self._delete(each.page_keys(key))
            # Until its writer has ended or has noticed, there may be more of its pages.
            over = [each.text for each in gone if each.generation == surely or now - each.at >= _WRITER_S]
            if over:
                self._update(_generations_key(key), "DELETE generations :over", {":over": {"SS": over}})
        except StateError as error:
            log.warning("Pages of %s in table %s are left over until its next write: %s", key, self.table, error)

    def _collect_all(self, key: str, *, surely: str | None = None) -> None:
        """
        Delete what is left over of a set that is recorded, and stays.

        :param surely: the caller's own generation, whether it is the recorded one or not.
        """
        try:
            manifest, found = self._get(key), self._get(_generations_key(key))
        except StateError as error:
            log.warning("Pages of %s in table %s may be left over: %s", key, self.table, error)
            return
        recorded = None if manifest is None else _announced_of(manifest)
        if recorded is not None:
            others = [each for each in _announced(found) if each.generation != recorded.generation]
            self._collect(key, others, surely=surely)

    # Inventories.

    def put_inventory(self, inventory: Inventory) -> None:
        """Replace the region's inventory: pages of a new generation, the manifest, then the old pages go."""
        key = f"INVENTORY#{inventory.region}"
        self._replace(key, lambda: _inventory_to_items(key, inventory), "write an inventory")

    def get_inventory(self, region: str) -> Inventory | None:
        """Return the region's last inventory."""
        key = f"INVENTORY#{region}"
        values, pages = self._get_pages(key, BINARY_PAGE)
        if values is None:
            return None
        try:
            contents = json.loads(
                unpacked(b"".join(page["body"] for page in pages), most=MOST_INVENTORY_BYTES).decode()
            )
        except (ValueError, RecursionError) as error:
            raise self._unreadable(key, Problem("body", brief(error), "packed JSON")) from error
        problem = problem_of(contents, INVENTORY_CONTENTS)
        if problem is not None:
            raise self._unreadable(key, problem)
        return contents_from_values(
            contents, region=region, taken_at=items.to_time(values["taken_at"]), public_key=values["public_key"]
        )

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of the region's last inventory."""
        manifest = self._get(f"INVENTORY#{region}")
        return None if manifest is None else str(items.values_of(manifest, table=self.table)["public_key"])

    # Records.

    def put_record(self, record: FailoverRecord) -> None:
        """Write what a failover has done so far; one that has ended stays ended, whatever arrives late."""
        item = items.record_to_item(record)
        if record.outcome == "completed":
            self._put(item, "write a failover's record")
            return
        replaceable, value = ("= :it", "open") if record.outcome == "open" else ("<> :it", "completed")
        self._replicas.ask_on_condition(
            lambda client: client.put_item(
                TableName=self.table,
                Item=item,
                ConditionExpression=f"attribute_not_exists(outcome) OR outcome {replaceable}",
                ExpressionAttributeValues={":it": {"S": value}},
            ),
            "write a failover's record",
        )

    def get_record(self, record_id: str) -> FailoverRecord | None:
        """Return one record."""
        item = self._get(f"FAILOVER#{record_id}")
        return None if item is None else items.record_from_item(item, table=self.table)

    def records(self) -> Sequence[FailoverRecord]:
        """Return all records, newest first."""
        found = [items.record_from_item(item, table=self.table) for item in self._scan("FAILOVER#")]
        return sorted(found, key=lambda record: (record.started_at, record.id), reverse=True)

    # What cannot be read.

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:
        """Return the items that cannot be read, by key: one scan, and the pages of what *regions* have written last."""
        # Pages have no kind of their own; their content is looked at with their manifest.
        scanned = self._scan_where("attribute_not_exists(dag_ids) AND attribute_not_exists(body)", {}, "list all items")
        faults = [items.fault_of(item, table=self.table) for item in scanned if "#" in items.key_of(item)]
        faults += [_fault(partial(self.get_snapshot, region)) for region in regions]
        faults += [_fault(partial(self.get_paused, region)) for region in regions]
        faults += [_fault(partial(self.get_inventory, region)) for region in regions]
        found = {fault.key: fault for fault in faults if fault is not None}
        return [found[key] for key in sorted(found)]

    # Requests.

    def _get(self, key: str) -> items.Item | None:
        answer = self._replicas.ask(
            lambda client: client.get_item(TableName=self.table, Key=_key(key), ConsistentRead=True), f"read {key}"
        )
        item: items.Item | None = answer.get("Item")
        return item

    def _get_many(self, keys: Sequence[str]) -> dict[str, items.Item]:
        found: dict[str, items.Item] = {}
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            found |= self._replicas.ask(partial(self._batch, keys=batch), f"read {batch[0]}")
        return found

    def _batch(self, client: Any, keys: Sequence[str]) -> dict[str, items.Item]:
        """Return those of at most 100 items that exist, by key; asks again for what DynamoDB left unprocessed."""
        found: dict[str, items.Item] = {}
        request: dict[str, Any] = {self.table: {"Keys": [_key(key) for key in keys], "ConsistentRead": True}}
        for wait_s in (*BACKOFF_S, None):
            answer = client.batch_get_item(RequestItems=request)
            for item in answer.get("Responses", {}).get(self.table, ()):
                found[items.key_of(item)] = item
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                return found
            if wait_s is not None:
                self._clock.sleep(wait_s)
        raise throttled("BatchGetItem went on leaving keys unprocessed")

    def _scan(self, prefix: str) -> list[items.Item]:
        return self._scan_where("begins_with(state_id, :prefix)", {":prefix": {"S": prefix}}, f"list {prefix} items")

    def _scan_where(self, condition: str, values: Mapping[str, Any], doing: str) -> list[items.Item]:
        return self._replicas.ask(lambda client: list(self._scan_pages(client, condition, values)), doing)

    def _scan_pages(self, client: Any, condition: str, values: Mapping[str, Any]) -> Iterable[items.Item]:
        request: dict[str, Any] = {"TableName": self.table, "ConsistentRead": True, "FilterExpression": condition}
        if values:
            request["ExpressionAttributeValues"] = values
        while True:
            answer = client.scan(**request)
            yield from answer.get("Items", ())
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _put(self, item: Mapping[str, Any], doing: str) -> items.Item | None:
        """Write an item whatever is stored, and return what was stored before; harmless to repeat."""
        answer = self._replicas.ask(
            lambda client: client.put_item(TableName=self.table, Item=item, ReturnValues="ALL_OLD"), doing
        )
        old: items.Item | None = answer.get("Attributes")
        return old

    def _update(self, key: str, expression: str, values: Mapping[str, Any], **condition: Any) -> bool:
        """Change an item; False when the condition failed. The changes used here are harmless to repeat."""
        return self._replicas.ask_on_condition(
            lambda client: client.update_item(
                TableName=self.table,
                Key=_key(key),
                UpdateExpression=expression,
                ExpressionAttributeValues=values,
                **condition,
            ),
            f"update {key}",
        )

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._replicas.ask(partial(self._delete_one, key=key), f"delete {key}")

    def _delete_one(self, client: Any, key: str) -> None:
        client.delete_item(TableName=self.table, Key=_key(key))


def _fault(read: Callable[[], object]) -> UnreadableItem | None:
    """Return what is wrong with the item that *read* reads."""
    try:
        read()
    except UnreadableItemError as error:
        return error.item
    return None


def _key(key: str) -> dict[str, Any]:
    return {items.KEY: {"S": key}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Announced:
    """Pages that may be there: their generation, how many there are at most, and when they were announced."""

    generation: str
    pages: int
    at: float

    @property
    def text(self) -> str:
        """The announcement as an element of the set of them."""
        return f"{self.generation}/{self.pages}/{self.at:.0f}"

    def page_keys(self, key: str) -> list[str]:
        """Return the keys of the pages."""
        return [f"{key}#{self.generation}#{number:04}" for number in range(self.pages)]


def _generation_of(manifest: items.Item) -> str:
    return str(manifest["generation"]["S"])


def _generations_key(key: str) -> str:
    return f"{key}#generations"


def _announced_of(manifest: items.Item) -> _Announced | None:
    """Return the pages that a manifest names; None: it cannot be understood."""
    try:
        return _Announced(
            generation=str(manifest["generation"]["S"]), pages=min(int(manifest["pages"]["N"]), _MOST_PAGES), at=0.0
        )
    except (KeyError, TypeError, ValueError):
        return None


def _announced(item: items.Item | None) -> list[_Announced]:
    """Return what is announced; what cannot be understood is passed over."""
    found = []
    for text in (item or {}).get("generations", {}).get("SS", ()):
        if (match := _ANNOUNCEMENT.fullmatch(text)) is not None:
            generation, pages, at = match.groups()
            found.append(_Announced(generation=generation, pages=min(int(pages), _MOST_PAGES), at=float(at)))
    return found


def _paused_key(region: str) -> str:
    # A snapshot under the name of no region, as the first version had it.
    return f"SNAPSHOT#{region}/paused"


def _token(item: items.Item | None) -> str | None:
    token = (item or {}).get("write_token", {}).get("S")
    return None if token is None else str(token)


def _version_condition(expected_version: int | None) -> dict[str, Any]:
    """Return the condition of a write. In an item of the AWS sample the version may be a string, or missing."""
    if expected_version is None:
        return {"ConditionExpression": "attribute_not_exists(state_id)"}
    condition = "(version = :number OR version = :text)"
    if expected_version == 0:
        condition = f"attribute_exists(state_id) AND (attribute_not_exists(version) OR {condition})"
    return {
        "ConditionExpression": condition,
        "ExpressionAttributeValues": {":number": {"N": str(expected_version)}, ":text": {"S": str(expected_version)}},
    }


def _set_to_items(key: str, dag_set: DagSet) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a set's pages, each with a key that no other write shares, and its manifest."""
    generation = uuid.uuid4().hex[:12]
    dag_ids = tuple(sorted(set(dag_set.dag_ids)))
    pages = items.paged(dag_ids, page_bytes=PAGE_BYTES)
    manifest = items.to_item(
        key,
        {
            "id": dag_set.id,
            "region": dag_set.region,
            "recorded_at": dag_set.recorded_at,
            "generation": generation,
            "pages": len(pages),
            "dags": len(dag_ids),
        },
    )
    page_items = [
        # One text, an id a line: a list of thousands of attributes takes DynamoDB and boto3 many times as long.
        items.to_item(page_key, {"dag_ids": "\n".join(page)})
        for page_key, page in zip(_page_keys(key, items.from_item(manifest)), pages, strict=True)
    ]
    return page_items, manifest


def _inventory_to_items(key: str, inventory: Inventory) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return an inventory's pages, compressed, each with a key that no other write shares, and its manifest."""
    contents = contents_to_text(inventory).encode()
    if len(contents) > MOST_INVENTORY_BYTES:
        raise StateError(
            f"The inventory of {inventory.region} has {len(contents)} bytes, and readers take {MOST_INVENTORY_BYTES}.",
            advice="mwaa-dr check compares the regions without it.",
        )
    body = zlib.compress(contents, 9)
    parts = [body[start : start + PAGE_BYTES] for start in range(0, len(body), PAGE_BYTES)]
    manifest = items.to_item(
        key,
        {
            "taken_at": inventory.taken_at,
            "public_key": inventory.public_key,
            "generation": uuid.uuid4().hex[:12],
            "pages": len(parts),
        },
    )
    keys = _page_keys(key, items.from_item(manifest))
    return [{**_key(page_key), "body": {"B": part}} for page_key, part in zip(keys, parts, strict=True)], manifest


def _page_keys(key: str, manifest: Mapping[str, Any]) -> list[str]:
    """Return the keys of the pages that the values of a manifest name."""
    return [f"{key}#{manifest['generation']}#{number:04}" for number in range(manifest["pages"])]
