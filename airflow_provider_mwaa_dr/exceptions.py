"""
Errors of the provider: one class tree, with their data as attributes. All of them can be pickled.

Each message says what failed, with which values, and what to do next. ``advice`` is the last part alone, for the JSON
of the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.core.state import DRState


class DRError(Exception):
    """
    Base of every error that this package raises.

    :param message: what failed, with which values.
    :param advice: what to do next; one sentence.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments cannot be pickled by default, and Airflow pickles the exceptions of a
        # task.
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[DRError], message: str, attributes: dict[str, Any]) -> DRError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    return error


class ConfigError(DRError):
    """A setting has a wrong value, or a required setting is missing. ``option`` names it."""

    def __init__(self, message: str, *, option: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.option = option


class StateError(DRError):
    """An error of a table of the DR set, or of one of its items."""


class StateNotFoundError(StateError):
    """The table exists, but not the state item: run ``mwaa-dr init``."""


class TableNotFoundError(StateError):
    """The state table does not exist in the configured region."""


class StateUnreachableError(StateError):
    """No replica of the state table answered. The newest state is unknown."""


class UnusableStateError(StateError):
    """The state item was read, but does not name an active region. Every region holds its runs."""


class StateAccessError(StateError):
    """DynamoDB refused the request: no credentials, or no permission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableItem:
    """
    An item of a table that does not have its required content.

    :param table: name of the table.
    :param key: key of the item; in the runs table both parts of the key.
    :param field: the first wrong field; empty if the whole item is wrong.
    :param found: what the field holds, shortened, control characters escaped.
    :param allowed: what the field may hold.
    :param advice: what to do; one sentence.
    """

    table: str
    key: str
    field: str
    found: str
    allowed: str
    advice: str

    def __str__(self) -> str:
        where = f"field {self.field}: " if self.field else ""
        return (
            f"Item {self.key} of table {self.table} cannot be read: {where}found {self.found}, allowed is "
            f"{self.allowed}."
        )


class UnreadableItemError(StateError):
    """
    An item is stored, but does not have its required content. A retry does not help; ``item`` has the advice.

    Only the data of this item is unknown.
    """

    def __init__(self, item: UnreadableItem) -> None:
        super().__init__(str(item), advice=item.advice)
        self.item = item


class UnreadableCheckpointError(UnreadableItemError):
    """
    A region's checkpoint cannot be read. The region's log may still have its entries.

    :param number: number of the last entry in the checkpoint; None if that cannot be read either.
    """

    def __init__(self, item: UnreadableItem, *, number: int | None = None) -> None:
        super().__init__(item)
        self.number = number


class IncompleteItemError(UnreadableItemError, StateUnreachableError):
    """A page of an item is missing: this replica of the table does not have it yet, or it was deleted."""


class StaleLedgerError(StateError):
    """Another writer has written the next entry of this region's log. Read the log again, and continue after it."""


class StaleStateError(StateError):
    """
    A conditional write failed, because another caller changed the state after it was read.

    :param expected: the version that the writer had read; None if it expected no item.
    :param found: the stored state, as the condition check returned it; None if there is none.
    """

    def __init__(self, expected: int | None, found: DRState | None) -> None:
        found_version = getattr(found, "version", None)
        super().__init__(
            f"Another caller changed the state: expected version {expected}, found {found_version}.",
            advice="Read the state again and decide again.",
        )
        self.expected = expected
        self.found = found


class AlreadyActiveError(StateError):
    """The region is active already, and no failover is in progress. Callers treat it as success."""


class WrongPhaseError(StateError):
    """A transition does not start from the current phase, or from the current plan."""


class MwaaError(DRError):
    """An error of an MWAA environment or its Airflow."""


class MwaaAccessError(MwaaError):
    """The caller has no permission for this environment, or the environment does not exist in this account."""


class MwaaUnreachableError(MwaaError):
    """The environment's control plane or its Airflow did not answer in time."""


class MwaaThrottledError(MwaaUnreachableError):
    """The environment's control plane or its Airflow refused the call because of too many calls. So it is alive."""


class MwaaRequestError(MwaaError):
    """Airflow refused a request: ``status`` is the HTTP status, ``detail`` Airflow's message."""

    def __init__(self, message: str, *, status: int, detail: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.status = status
        self.detail = detail


class IncompleteError(MwaaError):
    """A bulk change did not change all DAGs. ``left`` has the ids of the unchanged DAGs."""

    def __init__(self, message: str, *, left: Sequence[str], advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.left = tuple(left)


class AwsError(DRError):
    """
    A call to AWS failed during deploy or undeploy.

    :param code: error code of AWS; empty if there was no answer.
    """

    def __init__(self, message: str, *, code: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.code = code


class AwsAccessError(AwsError):
    """No credentials, or no permission."""


class AwsMissingError(AwsError):
    """The resource does not exist in this region and account."""


class AwsUnreachableError(AwsError):
    """No answer, or AWS throttled the call. AWS may have carried out the request."""


class DeploymentError(DRError):
    """The update of a stack or an environment failed, or timed out."""


class FailoverError(DRError):
    """A failover failed before or after it started. ``record`` has the steps so far, if it started."""

    def __init__(self, message: str, *, advice: str = "", record: Any = None) -> None:
        super().__init__(message, advice=advice)
        self.record = record


class RefusedError(FailoverError):
    """The current state does not allow the request, and the role has not moved because of it (exit code 3)."""


class NotReadyError(RefusedError):
    """The target is not ready. ``why`` has a line for each reason."""

    def __init__(self, message: str, *, why: Sequence[str] = (), advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.why = tuple(why)


class DrainTimeoutError(RefusedError):
    """Runs did not end during the drain: the plan was abandoned, and the source stays active. ``runs`` has
    ``dag_id run_id`` pairs."""

    def __init__(self, message: str, *, runs: Sequence[str], advice: str = "", record: Any = None) -> None:
        super().__init__(message, advice=advice, record=record)
        self.runs = tuple(runs)


class PlanSupersededError(RefusedError):
    """Another caller's plan replaced this one. This caller changes nothing more."""
