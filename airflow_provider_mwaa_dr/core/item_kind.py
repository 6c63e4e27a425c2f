"""The kinds of items in the state table: their keys, and which copy of an eventual table they are written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Home(Enum):
    """The copy of a table with eventual consistency to which an item is written."""

    REGION = "region"
    """The copy of the region that the item belongs to; if that does not answer, another one."""
    REGION_ONLY = "region only"
    """The copy of the region that the item belongs to. If that does not answer, a read or write is an error."""
    PLAN = "plan"
    """The copy of the region that the current plan activates, as for the state item."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemKind(Generic[T]):
    """
    One kind of item.

    :param name: in messages.
    :param key: the key in the table, with ``{}`` for the id.
    :param part: the third part of the key, if keys of other kinds begin with the same text; empty: there are none.
    :param id_of: the id of an item, unique within its kind.
    :param region_of: the region that the item belongs to, unless that is its id. Not used for items of a plan.
    :param home: the copy of an eventual table.
    :param is_final: an item is written once and never replaced. Only for kinds whose items have pages.
    :param progress: a stored item stays if the written one has less progress. None: it is always replaced.
    :param must_advance: a stored item also stays if the written one has the same progress.
    :param rank: of different items with one id in several copies, the one with the highest rank counts. None: the item
        in its home counts, or else the first one that is found.
    :param order: the sort key of a list of items, highest first. None: they are sorted by id, lowest first.
    """

    name: str
    key: str
    id_of: Callable[[T], str]
    region_of: Callable[[T], str] | None = None
    home: Home
    is_final: bool = False
    progress: Callable[[T], int] | None = None
    must_advance: bool = False
    rank: Callable[[T], Any] | None = None
    order: Callable[[T], Any] | None = None
    part: str = ""

    @property
    def prefix(self) -> str:
        """The part of the key before the id."""
        return self.key.partition("{}")[0]

    def owns(self, key: str) -> bool:
        """Whether *key* is the key of an item of this kind."""
        return key.startswith(self.prefix) and (not self.part or key.split("#")[2:3] == [self.part])

    def key_of(self, item: T) -> str:
        """Return the key of an item in the table."""
        return self.key.format(self.id_of(item))

    def region(self, item: T) -> str:
        """Return the region that an item belongs to."""
        return (self.region_of or self.id_of)(item)

    def keeps(self, stored: T, new: T) -> bool:
        """Whether *stored* stays when *new* is written."""
        if self.progress is None:
            return self.is_final
        return self.progress(new) < self.progress(stored) + self.must_advance

    def ordered(self, items: Iterable[T]) -> list[T]:
        """Return items in the order of a list."""
        if self.order is not None:
            return sorted(items, key=self.order, reverse=True)
        return sorted(items, key=self.id_of)
