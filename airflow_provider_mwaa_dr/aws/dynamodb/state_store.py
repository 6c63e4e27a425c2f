"""The state table in DynamoDB."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb import items
from airflow_provider_mwaa_dr.aws.dynamodb.contents import (
    AGENT,
    ENVIRONMENT,
    Problem,
    problem_of,
    unreadable,
    valid,
)
from airflow_provider_mwaa_dr.aws.dynamodb.item_forms import (
    FORMS,
    Index,
    PagedForm,
    SingleForm,
    form_of,
    single_form_of,
)
from airflow_provider_mwaa_dr.aws.dynamodb.paged_item import AnnouncementSet, PagedContent, PagedItem, state_keys
from airflow_provider_mwaa_dr.aws.dynamodb.replicas import BACKOFF_S, Failure, Replicas
from airflow_provider_mwaa_dr.aws.session import DYNAMODB_TIMEOUT_S, AwsFault, brief, throttled
from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.item_kind import Home, ItemKind
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    INVENTORIES,
    UNPUBLISHED_EVENTS,
    AgentStatus,
    Clock,
    DagSet,
    Observation,
    Registration,
)
from airflow_provider_mwaa_dr.core.state import LONGEST_LEASE_S, STATE_ID, DRState, is_wanted_set
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

T = TypeVar("T")

BATCH = 100
"""Maximum number of keys in one BatchGetItem."""


class DynamoDBStateStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.StateStore` in a DynamoDB table with key ``state_id``.

    Thread-safe. Every read is a consistent read. Each call goes to the first replica of *replicas* and, if that fails,
    to the next one. :class:`~airflow_provider_mwaa_dr.aws.dynamodb.replicas.Replicas` has the timeouts and the rules
    for forks.

    A single-region table and a global table with strong consistency (MRSC) keep every promise of the port. In a table
    with eventual consistency, a condition holds only in the replica that receives the request. There, each replica is
    one store, and :class:`~airflow_provider_mwaa_dr.core.eventual.EventualStateStore` combines these stores.

    :param replicas: regions of the table's replicas, nearest first.
    :param session: a boto3 session with credentials; None: boto3 searches for credentials itself.
    :param timeout_s: timeout of one attempt at one replica.
    :param default_lease_s: lease for an item without one, such as an item of the AWS sample.
    :param spare_s: how long announced pages are kept if no manifest names them; 0 if a condition holds for all
        replicas.
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
        # The state item as this store last read or wrote it: a write sends only what changes. It is replaced, never
        # changed, because threads share it.
        self._held: items.Item | None = None
        # A region's own item as observe() last read it, with the later changes of put_agent().
        self._observed: dict[str, items.OwnItem] = {}
        self._attempts = itertools.count(1)

    # The state.

    def observe(self, region: str) -> Observation:
        """Return the state, and *region*'s reconciled epoch and list of regions, with one BatchGetItem."""
        environment_key = f"ENVIRONMENT#{region}"
        found = self._replicas.ask(lambda client: self._batch(client, (STATE_ID, environment_key)), "read the state")
        own = items.own_item(found.get(environment_key), region=region, table=self.table)
        self._observed[region] = own
        self._held = item = found.get(STATE_ID)
        return Observation(
            state=self._to_state(item),
            reconciled_epoch=own.reconciled_epoch,
            environment=own.environment,
            environment_region=own.environment_region,
            disputed=own.disputed,
            registered=own.registered,
            problems=own.problems,
            agents=own.jobs or frozenset(),
            heartbeat_request=own.heartbeat_request,
        )

    def read(self) -> DRState:
        """Return the state. :raises StateNotFoundError: the table has no state item."""
        self._held = item = self._get(STATE_ID)
        state = self._to_state(item)
        if state is None:
            raise StateNotFoundError(
                f"Table {self.table} has no item {STATE_ID}.", advice="Run mwaa-dr init --active REGION."
            )
        return state

    def copies(self) -> Mapping[str, DRState | None]:
        """Return nothing: all replicas count as one table. core/eventual.py is for eventual consistency."""
        return {}

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        """
        Write *state* on the condition that the stored version is *expected_version*.

        If the last read of this store had that version, the write changes only the attributes that differ, on the
        further condition that no other write has replaced the item meanwhile. Otherwise it sets every attribute. So an
        execution role can finish a failover without the right to change the active region.

        A replica that refuses the connection, or throttles the write, has written nothing: the next replica is tried.
        If an answer is lost, the item is read again:

        - It has the token of this write: the write succeeded.
        - It has another version: StaleStateError.
        - It is unchanged: StateUnreachableError. The write may still take effect later. A caller that decides again
          reads the state and uses the same condition, so only one of the two writes can succeed.

        After ``ReplicatedWriteConflictException`` (MRSC: another region wrote at the same time) nothing is written. The
        item is read again, and the write is repeated only if the item is unchanged.

        :raises StaleStateError: the condition failed; has the stored state.
        """
        token = uuid.uuid4().hex
        item = items.state_to_item(state, write_token=token)
        call = self._put_first(item) if expected_version is None else self._change(state, expected_version, token)
        for wait_s in (*BACKOFF_S, None):
            failures: dict[str, Failure] = {}
            for region in self._replicas.order():
                failure = self._replicas.attempt(region, call)
                if not isinstance(failure, Failure):
                    self._held = item
                    return
                failures[region] = failure
                if failure.fault is AwsFault.CONDITION:
                    found = getattr(failure.error, "response", {}).get("Item")
                    if _token(found) == token:
                        return
                    raise StaleStateError(expected_version, self._to_state(found)) from failure.error
                if failure.fault is AwsFault.LOST:
                    self._resolve_lost_write(token, expected_version, lost=region, error=failure.error)
                    return
                if failure.fault is AwsFault.CONFLICT:
                    self._raise_if_moved(expected_version, self._get(STATE_ID))
            self._replicas.pause_or_raise(wait_s, failures, "write the state")

    def _put_first(self, item: items.Item) -> Callable[[Any], object]:
        """Return the request that writes the state item if there is none."""
        return lambda client: client.put_item(
            TableName=self.table,
            Item=item,
            ConditionExpression="attribute_not_exists(state_id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    def _change(self, state: DRState, expected_version: int, token: str) -> Callable[[Any], object]:
        """Return the request that changes the state item of *expected_version* to *state*."""
        held = self._held
        if _version(held) != expected_version:
            held = None
        changes = items.state_changes(held, state, write_token=token)
        condition, values = _version_condition(expected_version)
        if held is not None:
            # In a table with eventual consistency, replication can replace the item by another one of this version.
            condition = f"{condition} AND {_token_condition(held, values)}"
        sets = {name: attribute for name, attribute in changes.items() if attribute is not None}
        removes = [name for name in changes if name not in sets]
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in sets)
        if removes:
            expression += " REMOVE " + ", ".join(f"#{name}" for name in removes)
        return lambda client: client.update_item(
            TableName=self.table,
            Key=_key(STATE_ID),
            UpdateExpression=expression,
            ConditionExpression=condition,
            # Some of the names are reserved words of DynamoDB.
            ExpressionAttributeNames={f"#{name}": name for name in changes},
            ExpressionAttributeValues={**{f":{name}": attribute for name, attribute in sets.items()}, **values},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    def overwrite(self, state: DRState) -> None:
        """Write *state* without a condition. Only for an item whose version cannot be read."""
        self._replicas.put(items.state_to_item(state, write_token=uuid.uuid4().hex), "write the state")

    def _resolve_lost_write(self, token: str, expected_version: int | None, *, lost: str, error: Exception) -> None:
        """Return if the write with *token* succeeded; else raise the error for its caller."""
        item = self._get(STATE_ID)
        if _token(item) == token:
            log.warning("The answer to a write to %s in %s was lost. The write succeeded.", self.table, lost)
            return
        self._raise_if_moved(expected_version, item)
        raise StateUnreachableError(
            f"No answer to a write to table {self.table} in {lost}. So far, the write has not taken effect "
            f"({brief(error)}).",
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
        """Register an environment. Keeps the attributes that agents wrote into the same item."""
        values = {"environment": registration.environment, "account": registration.account}
        if registration.aws_region is not None:
            values["aws_region"] = registration.aws_region
        self._update(
            f"ENVIRONMENT#{registration.region}",
            f"SET {', '.join(f'{name} = :{name}' for name in values)}",
            {f":{name}": items.to_attribute(value) for name, value in values.items()},
        )

    def registrations(self, regions: Collection[str] = ()) -> Mapping[str, Registration]:
        """Return the registered environments by region: of *regions*, or of all regions if empty."""
        if regions:
            found = list(self._get_many([f"ENVIRONMENT#{region}" for region in regions]).values())
        else:
            found = self._scan("ENVIRONMENT#")
        named = [registration for registration in map(items.registration_from_item, found) if registration is not None]
        return {registration.region: registration for registration in sorted(named, key=lambda one: one.region)}

    def regions(self, among: Collection[str] = ()) -> frozenset[str]:
        """Return the regions that have their own item: those of *among*, or all if empty."""
        if among:
            keys = list(self._get_many([f"ENVIRONMENT#{region}" for region in among]))
        else:
            keys = list(map(items.key_of, self._scan("ENVIRONMENT#")))
        return frozenset(key.partition("#")[2] for key in keys) - {""}

    def put_regions(self, region: str, regions: Collection[str]) -> None:
        """Replace the list of registered regions in *region*'s own item. Keeps its other attributes."""
        listed = sorted({region, *regions})
        self._update(f"ENVIRONMENT#{region}", "SET regions = :regions", {":regions": {"SS": listed}})

    def put_agent(self, status: AgentStatus) -> None:
        """
        Write a heartbeat, and the region's reconciled epoch if the status has one.

        The epoch is written to ``ENVIRONMENT#region`` if it differs from the epoch that this store last read there, on
        the condition that the stored epoch has not changed since. So an agent with a stale view cannot undo what
        another agent of its region has reconciled since. A lower epoch is allowed, because a DR set that is initialised
        again starts at a low epoch.
        """

        def put(client: Any) -> object:
            # Each request has its own number: a copy of an earlier request may arrive later than the request that
            # repeated it, and must not look like that one.
            item = items.agent_to_item(replace(status, attempt=next(self._attempts)))
            return client.put_item(TableName=self.table, Item=item)

        self._replicas.ask(put, "write a heartbeat")
        own = self._observed.get(status.region)
        if own is None or own.jobs is None or status.job not in own.jobs:
            # DynamoDB's ADD works only on a set. The region's other agents add themselves to the new list.
            action = "SET agents =" if own is not None and own.jobs is None else "ADD agents"
            self._update(f"ENVIRONMENT#{status.region}", f"{action} :job", {":job": {"SS": [status.job]}})
        if own is not None:
            own = replace(own, jobs=(own.jobs or frozenset()) | {status.job})
        reconciled = status.reconciled_epoch
        # A value that cannot be used stays, and the user corrects it: the epoch of the open runs is unknown.
        is_unusable = own is not None and own.reconciled is not None and own.reconciled_epoch is None
        if reconciled is not None and not is_unusable and (own is None or reconciled != own.reconciled_epoch):
            landed = self._put_reconciled(status.region, reconciled, own)
            if landed and own is not None:
                own = replace(own, reconciled=items.to_attribute(reconciled), reconciled_epoch=reconciled)
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
            log.info(
                "Region %s: epoch %d is not stored as reconciled: another agent has replaced epoch %s.",
                region,
                epoch,
                was,
            )
        return landed

    def agents(self, region: str) -> Sequence[AgentStatus]:
        """Return the last heartbeat of each scheduler in the region's list, sorted by job."""
        environment = items.from_item(self._get(f"ENVIRONMENT#{region}") or {})
        jobs = valid(environment, ENVIRONMENT.schema).get("agents")
        if jobs is None and environment.get("agents") is not None:
            # The list cannot be read, so find its agents with a scan.
            scanned = self._scan(items.agent_key(region, ""))
            found = {key: item for item in scanned if items.schema_of(key := items.key_of(item)) is AGENT}
        else:
            found = self._get_many([items.agent_key(region, job) for job in jobs or ()])
        statuses = [items.agent_from_item(item, table=self.table) for item in found.values()]
        return sorted(statuses, key=lambda status: status.job)

    def forget_agent(self, region: str, job: str) -> None:
        """Delete the heartbeat of a scheduler that will not run again."""
        self._update(f"ENVIRONMENT#{region}", "DELETE agents :job", {":job": {"SS": [job]}})
        self._delete(items.agent_key(region, job))

    def put_dispute(self, region: str, environments: Sequence[str]) -> None:
        """Record the environments that claim *region* while none is registered. An empty list ends the dispute."""
        names = {":names": items.to_attribute(list(environments))}
        self._update(f"ENVIRONMENT#{region}", "SET disputed = :names", names)

    def request_heartbeats(self, region: str, request_id: str) -> None:
        """Let each agent of *region* send a heartbeat when it next reads the state. Registers no region."""
        self._update(
            f"ENVIRONMENT#{region}",
            "SET heartbeat_request = :request",
            {":request": items.to_attribute(request_id)},
            ConditionExpression=f"attribute_exists({items.KEY})",
        )

    def acknowledge_unpublished(self, region: str, unpublished_id: str, at: datetime) -> bool:
        """Record that a user has acknowledged the list; False if another list, or none, is stored."""
        return self._update(
            UNPUBLISHED_EVENTS.key.format(region),
            "SET acknowledged_at = :at",
            {":at": items.to_attribute(at), ":id": items.to_attribute(unpublished_id)},
            ConditionExpression="id = :id",
        )

    # Items of all kinds.

    def put(self, kind: ItemKind[T], item: T) -> None:
        """Write an item: one item with a condition, or pages and then a manifest."""
        form, key = form_of(kind), kind.key_of(item)
        if isinstance(form, SingleForm):
            self._put_single(key, form, item)
        elif kind.is_final:
            self._put_pages_once(kind, form, item)
        else:
            content, is_kept = form.to_content(item), False

            def make(stored: items.Item | None) -> PagedContent | None:
                nonlocal is_kept
                is_kept = stored is not None and self._keeps(kind, form, stored, item)
                return None if is_kept else content

            if not self._paged(key).replace(make, f"write {key}") and not is_kept:
                raise StateUnreachableError(
                    f"Could not write {key}: other writers replaced it in table {self.table} again and again.",
                    advice="Try again.",
                )

    def _keeps(self, kind: ItemKind[T], form: PagedForm[T], stored: items.Item, item: T) -> bool:
        """Whether the stored manifest stays, because *item* has less progress; one that is unreadable does not."""
        if kind.progress is None or form.progress_of is None:
            return False
        with suppress(UnreadableItemError):
            return kind.progress(item) < form.progress_of(items.values_of(stored, table=self.table))
        return False

    def _put_single(self, key: str, form: SingleForm[T], item: T) -> None:
        put = {
            "TableName": self.table,
            "Item": form.to_item(item),
            **(form.condition(item) if form.condition is not None else {}),
        }
        self._replicas.ask_on_condition(lambda client: client.put_item(**put), f"write {key}")
        if form.index is not None:
            # Each time, because another caller may have deleted the item in the meantime.
            self._change_index(form.index, "ADD", item)

    def _change_index(self, index: Index[T], action: str, item: T) -> None:
        texts = {":texts": {"SS": [index.entry_of(item)]}}
        self._update(index.key_of(item), f"{action} {index.attribute} :texts", texts)

    def _put_pages_once(self, kind: ItemKind[T], form: PagedForm[T], item: T) -> None:
        """
        Write pages first, then the manifest, on the condition that there is none.

        The keys of the pages are unique for each call, so two callers can write at the same time. The item of the
        caller whose manifest comes first stays.
        """
        item_id, key = kind.id_of(item), kind.key_of(item)
        paged = self._paged(key)
        instead_of, before = None, paged.manifest()
        try:
            there = self.get(kind, item_id)
        except IncompleteItemError:
            raise
        except UnreadableItemError as error:
            log.warning("%s It is written again.", error.message)
            there, instead_of = None, before
        if there is not None:
            paged.delete_unused_pages()
            return
        generation = paged.write_once(form.to_content(item), f"write {key}", instead_of=instead_of)
        if self.get(kind, item_id) is None:
            raise StateUnreachableError(f"{key} could not be written to table {self.table}.", advice="Try again.")
        paged.delete_unused_pages(surely=generation)

    def get(self, kind: ItemKind[T], item_id: str) -> T | None:
        """Return an item with all its pages; None if it, or its manifest, does not exist."""
        form, key = form_of(kind), kind.key.format(item_id)
        if isinstance(form, PagedForm):
            return self._get_paged(key, item_id, form)
        item = self._get(key)
        return None if item is None else form.from_item(item, self.table)

    def _get_paged(self, key: str, item_id: str, form: PagedForm[T]) -> T | None:
        stored = self._paged(key).read(partial(items.values_of, table=self.table))
        if stored is None:
            return None
        pages = list(map(items.from_item, stored.pages))
        for page in pages:
            if (problem := problem_of(page, form.page)) is not None:
                raise self._unreadable(page[items.KEY], problem)
        if stored.problem is not None:
            raise IncompleteItemError(self._unreadable(key, stored.problem).item)
        found = form.from_pages(item_id, stored.values, pages)
        if isinstance(found, Problem):
            raise self._unreadable(key, found)
        return found

    def find_all(self, kind: ItemKind[T], region: str = "") -> Sequence[T]:
        """Return the items of a kind, from a scan or from their index; without those that cannot be read."""
        form = single_form_of(kind)
        found = self._scan(kind.prefix) if form.index is None else self._indexed(form.index, region)
        values = []
        for item in found:
            with suppress(UnreadableItemError):
                values.append(form.from_item(item, self.table))
        return kind.ordered(value for value in values if not region or kind.region(value) == region)

    def _indexed(self, index: Index[T], region: str) -> Iterable[items.Item]:
        listed = items.from_item(self._get(index.key(region)) or {})
        entries = valid(listed, index.schema).get(index.attribute, ())
        return self._get_many([index.item_key(region, entry) for entry in entries]).values()

    def delete(self, kind: ItemKind[T], item: T) -> None:
        """Delete an item, first from its index."""
        form = single_form_of(kind)
        if form.index is not None:
            self._change_index(form.index, "DELETE", item)
        self._delete(kind.key_of(item))

    def newest_wanted_set(self) -> DagSet | None:
        """Return the wanted set that was recorded last: scan the manifests, then read the pages of one."""
        # The scan leaves out pages and announcements. A damaged manifest is ignored.
        manifests = self._scan_where(
            "begins_with(state_id, :prefix) AND attribute_exists(pages)",
            {":prefix": {"S": "PAUSED#"}},
            "list the recorded sets",
        )
        readable = [items.from_item(item) for item in manifests if items.fault_of(item, table=self.table) is None]
        wanted = [values for values in readable if is_wanted_set(values["id"])]
        newest = max(wanted, key=lambda values: (items.to_time(values["recorded_at"]), values["id"]), default=None)
        return None if newest is None else self.get(DAG_SETS, newest["id"])

    def _unreadable(self, key: str, problem: Problem) -> UnreadableItemError:
        known = items.schema_of(key)
        assert known is not None  # noqa: S101  (all callers pass keys of a kind of item)
        return UnreadableItemError(unreadable(problem, table=self.table, key=key, advice=known.advice))

    def _paged(self, key: str) -> PagedItem:
        announcements = AnnouncementSet(_key(f"{key}#generations"), table=self.table, replicas=self._replicas, name=key)
        return PagedItem(
            key,
            table=self.table,
            replicas=self._replicas,
            keys=state_keys(key),
            announcements=announcements,
            clock=self._clock,
            spare_s=self._spare_s,
        )

    def inventory_key(self, region: str) -> str | None:
        """Return the public key of the region's last inventory."""
        manifest = self._get(INVENTORIES.key.format(region))
        return None if manifest is None else str(items.values_of(manifest, table=self.table)["public_key"])

    # Unreadable items.

    def unreadable(self, regions: Collection[str]) -> Sequence[UnreadableItem]:
        """
        Return the items that cannot be read, sorted by key: from one scan, and from reads of the pages of *regions*.
        """
        # Pages have no own kind; the reads below check their content with their manifest.
        scanned = self._scan_where("attribute_not_exists(dag_ids) AND attribute_not_exists(body)", {}, "list all items")
        faults = [items.fault_of(item, table=self.table) for item in scanned if "#" in items.key_of(item)]
        paged = [kind for kind, form in FORMS.items() if isinstance(form, PagedForm) and kind.home is not Home.PLAN]
        faults += [_fault(partial(self.get, kind, region)) for kind in paged for region in regions]
        found = {fault.key: fault for fault in faults if fault is not None}
        return [found[key] for key in sorted(found)]

    # Requests.

    def _get(self, key: str) -> items.Item | None:
        return self._replicas.get(_key(key), f"read {key}")

    def _get_many(self, keys: Sequence[str]) -> dict[str, items.Item]:
        found: dict[str, items.Item] = {}
        for batch in batched(keys, BATCH):
            found |= self._replicas.ask(partial(self._batch, keys=batch), f"read {batch[0]}")
        return found

    def _batch(self, client: Any, keys: Sequence[str]) -> dict[str, items.Item]:
        """Return the existing items of at most 100 keys, by key. Repeats the request for unprocessed keys."""
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
        raise throttled("BatchGetItem repeatedly left keys unprocessed")

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

    def _delete(self, key: str) -> None:
        self._replicas.delete(_key(key), f"delete {key}")

    def _update(self, key: str, expression: str, values: Mapping[str, Any], **condition: Any) -> bool:
        """Change an item; return False if the condition failed. All changes in this class are idempotent."""
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


def _fault(read: Callable[[], object]) -> UnreadableItem | None:
    """Return the fault of the item that *read* reads; None if it can be read."""
    try:
        read()
    except UnreadableItemError as error:
        return error.item
    return None


def _key(key: str) -> dict[str, Any]:
    return {items.KEY: {"S": key}}


def _token(item: items.Item | None) -> str | None:
    token = (item or {}).get("write_token", {}).get("S")
    return None if token is None else str(token)


def _version(item: items.Item | None) -> int | None:
    """Return the version of the state item; None if there is none, or if it cannot be used."""
    with suppress(StateError):
        return None if item is None else items.state_from_item(item, default_lease_s=LONGEST_LEASE_S).version
    return None


def _token_condition(held: items.Item, values: dict[str, Any]) -> str:
    """Return the condition that the item is still the one of the write that wrote *held*; add its value to *values*."""
    if "write_token" not in held:
        return "attribute_not_exists(write_token)"
    values[":held"] = held["write_token"]
    return "write_token = :held"


def _version_condition(expected_version: int) -> tuple[str, dict[str, Any]]:
    """Return a condition and its values. In the AWS sample's items the version may be a string, or missing."""
    condition = "(version = :number OR version = :text)"
    if expected_version == 0:
        condition = f"attribute_exists(state_id) AND (attribute_not_exists(version) OR {condition})"
    return condition, {":number": {"N": str(expected_version)}, ":text": {"S": str(expected_version)}}
