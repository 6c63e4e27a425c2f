"""The steps with which a region's leading agent keeps the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from airflow_provider_mwaa_dr.core.bookkeeping.adoption import Adopter
from airflow_provider_mwaa_dr.core.bookkeeping.database import LedgerDb
from airflow_provider_mwaa_dr.core.bookkeeping.outcomes import RowOutcomes
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.bookkeeping.peer_runs import PeerRuns
from airflow_provider_mwaa_dr.core.bookkeeping.publishing import Publisher
from airflow_provider_mwaa_dr.core.bookkeeping.replay import LogReplay
from airflow_provider_mwaa_dr.core.bookkeeping.resolving import ListRuns, Resolver
from airflow_provider_mwaa_dr.core.bookkeeping.resuming import Resumer
from airflow_provider_mwaa_dr.core.bookkeeping.role_changes import RoleChanges
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey, last_successes
from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.core.translation import Era


class Bookkeeper:
    """
    Keeps one region's part of the ledger. Not thread-safe; one thread of one process.

    In the active region it publishes the changes in the region's metadata database (:meth:`publish`). When the region
    loses the role, it publishes once which runs were interrupted (:meth:`interrupt`). In a standby it adopts the
    finished runs of other regions into the region's history (:meth:`adopt`). When the region becomes active, it
    resumes the unfinished runs (:meth:`resume`). Each step is idempotent, and the next leader needs only the ledger to
    continue.

    Each step raises a :class:`~airflow_provider_mwaa_dr.exceptions.StateError` if a ledger cannot be used.

    :param peers: returns the other regions of the set; called repeatedly.
    :param era: of the region's Airflow; None: the other regions have the same.
    """

    def __init__(
        self,
        runs: RunsStore,
        db: LedgerDb,
        clock: Clock,
        *,
        region: str,
        peers: Callable[[], Collection[str]],
        era: Era | None = None,
    ) -> None:
        peer_runs = runs if era is None else PeerRuns(runs, era)
        self._clock = clock
        self._region = region
        self._own = OwnLedger(runs, clock, LogReplay(runs), region=region)
        self._peers = PeerLedgers(peer_runs, clock, LogReplay(peer_runs), region=region, regions=peers)
        outcomes = RowOutcomes(self._own, self._peers)
        self._role_changes = RoleChanges(self._own, outcomes, db, region=region)
        self._publisher = Publisher(self._own, self._peers, outcomes, db, clock, region=region)
        self._adopter = Adopter(self._own, self._peers, db, region=region)
        self._resolver = Resolver(self._own, self._peers, db, clock, region=region)
        self._resumer = Resumer(self._own, self._peers, db, clock, region=region)

    # -- status -----------------------------------------------------------------------------------------------------

    @property
    def lag_s(self) -> float | None:
        """Seconds since the last call that published all changes; None before the first."""
        at = self._publisher.published_at
        return None if at is None else self._clock.monotonic() - at

    @property
    def waiting(self) -> tuple[str, ...]:
        """The first of the unfinished runs that this region cannot start, with the reason."""
        return self._resumer.waiting

    @property
    def repeats(self) -> tuple[str, ...]:
        """The first of the resumed runs that request runs again that have ended, or that are resumed, too."""
        return self._resumer.repeats

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts of the ledger that cannot be read and were skipped: one sentence for each region."""
        own = self._own.loaded
        gaps = {region: ledger.gap.why for region, ledger in self._peers.ledgers.items() if ledger.gap is not None}
        if own is not None and own.gap is not None:
            gaps[self._region] = own.gap.why
        if not gaps and not self._peers.missing:
            return ()
        return tuple(
            f"The ledger of {region} has a gap. {why}"
            for region, why in sorted({**self._peers.missing, **gaps}.items())
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Entries of other regions' ledgers that are missing in this copy of the table, although it has later ones."""
        return tuple(why for _, why in sorted(self._peers.missing.items()))

    @property
    def final_plan_id(self) -> str | None:
        """The plan for which this region has published its final ledger entry."""
        own = self._own.loaded
        return own.final_plan_id if own is not None else None

    @property
    def unfinished(self) -> Collection[RunKey] | None:
        """The runs that this region's own ledger lists as unfinished; None if it is not read yet."""
        own = self._own.loaded
        return None if own is None else {key for key, run in own.runs.items() if run.is_unfinished}

    # -- reading ----------------------------------------------------------------------------------------------------

    def follow(self, *, is_thorough: bool = False) -> None:
        """
        Read what the other regions have published since the last call: one query each if they published nothing.

        :param is_thorough: also check whether a ledger has begun another life; otherwise once a minute.
        :raises UnreadableItemError: an item of one region cannot be read, or was not replicated yet. The ledgers of the
            other regions were read.
        """
        self._peers.follow(is_thorough=is_thorough)

    def epoch_of(self, region: str) -> int | None:
        """Return the last epoch in which *region* published as the active region, as far as its ledger was read."""
        return self._peers.epoch_of(region)

    def has_read_final(self, region: str, plan_id: str) -> bool:
        """Whether this agent has read *region*'s final ledger entry for the plan *plan_id*."""
        return self._peers.has_read_final(region, plan_id)

    def last_read(self) -> list[str]:
        """Return a sentence for each other region: up to which entry its ledger was read. Sends no request."""
        return self._peers.last_read()

    def forget_own_ledger(self) -> None:
        """Read the own region's ledger again at its next use: another process may have written it."""
        self._own.forget()

    def has_begun(self, epoch: int) -> bool:
        """Whether the region has published that it executes under *epoch*. Then its open runs belong to this epoch."""
        return self._own.has_begun(epoch)

    def unreconciled_epoch(self) -> int | None:
        """Return the last epoch in which the region became active, unless it has reconciled its runs since then."""
        return self._own.unreconciled_epoch()

    def is_unused(self) -> bool:
        """
        Return whether this region has never begun a role, and no ledger has a DAG. It first reads the ledgers, as
        :meth:`follow` does.

        Another region may have died after it had begun its role, before it published its DAGs and executed.
        """
        self._peers.follow(is_thorough=True)
        if self._peers.unread or self._peers.missing or self._own.load().number:
            return False
        return not any(ledger.heads or ledger.gap is not None for ledger in self._peers.ledgers.values())

    def last_successes(self, dag_ids: Collection[str]) -> Sequence[LedgerRun]:
        """Return the last successes of DAGs in the ledgers of other regions, as far as they were read."""
        return last_successes(self._peers.ledgers.values(), dag_ids)

    # -- publishing -------------------------------------------------------------------------------------------------

    def begin(self, epoch: int, *, first_id: int | None = None) -> None:
        """
        Publish that the region executes under *epoch* from now on. Call this before the region executes anything.

        The runs in its database belong to earlier epochs, except the open ones, which belong to *epoch* from now on.

        :param first_id: the highest run id when the region began to execute, if it began without the ledger.
        """
        self._role_changes.begin(epoch, first_id=first_id)

    def publish_closed(self, keys: Collection[RunKey], *, epoch: int, closed_at: datetime) -> None:
        """
        Publish as interrupted the runs that the region closed while it could not write the ledger. Idempotent.

        A run that is in the ledger keeps its status: it is unfinished, or another region has finished it. A run that a
        user cleared after *closed_at* belongs to the region's present role: it is published as open, or has ended.

        :param epoch: the epoch that the runs belong to.
        :param closed_at: when the region closed them, by its own clock.
        """
        self._role_changes.publish_closed(keys, epoch=epoch, closed_at=closed_at)

    def publish_complete(self, epoch: int) -> None:
        """Publish that this region's ledger is complete: it has all runs that the region started before *epoch*."""
        self._role_changes.publish_complete(epoch)

    def interrupt(self, state: DRState, *, epoch: int, read_stopped: Callable[[str], Collection[str]]) -> None:
        """
        Publish all open runs as interrupted, before the agent closes them: the region lost the role since *epoch*.

        It also publishes runs that a failover stopped before they were in the ledger.

        :param state: the present state, of a later epoch.
        :param epoch: the epoch that the region's open runs belong to. If the region was not active in it, no region
            has to run them, and nothing is published.
        :param read_stopped: returns the runs in a recorded set, ``DAG_ID RUN_ID`` each.
        """
        self._role_changes.interrupt(state, epoch=epoch, read_stopped=read_stopped)

    def publish(
        self,
        state: DRState,
        *,
        read_state: Callable[[], DRState | None],
        read_stopped: Callable[[str], Collection[str]],
    ) -> bool:
        """
        Publish the changes in the database since the last call.

        :param state: the view that the gate uses, from before the rows are read.
        :param read_state: reads the state again; called only if there are changes to publish.
        :param read_stopped: returns the runs in a recorded set, ``DAG_ID RUN_ID`` each.
        :return: whether all changes are published; False if the region is not active under this epoch.
        """
        return self._publisher.publish(state, read_state=read_state, read_stopped=read_stopped)

    # -- acting on the ledger ---------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Adopt runs that other regions finished into this region's history; return whether more are to be adopted."""
        return self._adopter.adopt()

    def resolve(self, *, epoch: int, list_runs: ListRuns) -> bool:
        """
        Resolve runs that this region ended as a standby, before it executes; return whether more are to be resolved.

        :param list_runs: records runs that no region continues, as ``DAG_ID RUN_ID``; called before one is deleted.
        """
        return self._resolver.resolve(epoch=epoch, list_runs=list_runs)

    def apply_outcomes(self) -> None:
        """Give this region's runs the outcomes that other regions published, and drop the runs that no region needs."""
        self._adopter.apply_outcomes()

    def resume(self, *, epoch: int) -> bool:
        """
        Start the unfinished runs of all regions in this region; return whether more are to be started.

        The bookkeeper first publishes that the run is open in this region under this epoch, and then queues it. If the
        leader dies in between, the next leader queues the run.
        """
        return self._resumer.resume(epoch=epoch, rows_read_at=self._publisher.rows_read_at)

    def make_room(self) -> None:
        """Let resumed runs start although later runs, which wait for them, take all of ``max_active_runs``."""
        self._resumer.make_room(self._publisher.queued)
