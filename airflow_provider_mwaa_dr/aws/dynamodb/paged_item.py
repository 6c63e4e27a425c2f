"""
A value that may be too large for one DynamoDB item: a manifest, and the pages that it names.

Each write stores its pages under new keys, its *generation* of pages, and then replaces the manifest. So readers get
all the old pages or all the new ones.

A writer that stops, or loses its connection, leaves pages that no manifest names. Therefore each generation is
announced in the table before its first page is written. A manifest is written on the condition that the stored manifest
has not changed since the writer read it. After another writer's manifest is stored, a writer that announced its pages
earlier can no longer store its own. So its pages can be deleted.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_provider_mwaa_dr.aws.dynamodb.contents import MOST_PAGES, Problem
from airflow_provider_mwaa_dr.aws.dynamodb.items import Item
from airflow_provider_mwaa_dr.aws.dynamodb.replicas import Replicas
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import StateError, StateUnreachableError

log = get_logger(__name__)

_ATTEMPTS = 3
"""Attempts to read or replace a manifest that other writers replace at the same time."""
_WRITER_S = 600.0
"""A writer of pages never runs longer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedContent:
    """
    What one write stores, without keys.

    :param manifest: attributes of the manifest, except for ``generation`` and ``pages``.
    :param pages: attributes of each page.
    """

    manifest: Item
    pages: Sequence[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageKeys:
    """
    The keys of one paged item.

    :param manifest: key of the manifest.
    :param page: returns the key of a page, from its generation and its number.
    """

    manifest: Item
    page: Callable[[str, int], Item]

    def pages(self, generation: str, count: int) -> list[Item]:
        """Return the keys of all pages of a generation, in order."""
        return [self.page(generation, number) for number in range(count)]

    def to_items(self, content: PagedContent) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the items of a new generation: its pages, with keys that no other write uses, and its manifest."""
        generation, count = uuid.uuid4().hex[:12], len(content.pages)
        pages = [{**key, **page} for key, page in zip(self.pages(generation, count), content.pages, strict=True)]
        names = {"generation": {"S": generation}, "pages": {"N": str(count)}}
        return pages, {**self.manifest, **content.manifest, **names}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPages:
    """
    A manifest as it was read, and its pages in order.

    :param values: plain values of the manifest.
    :param pages: all pages that the manifest names, or those before the first missing one.
    """

    manifest: Item
    values: Mapping[str, Any]
    pages: Sequence[Item] = field(repr=False)

    @property
    def problem(self) -> Problem | None:
        """The problem of a manifest with a missing page; None if all its pages exist."""
        named = self.values["pages"]
        if len(self.pages) == named:
            return None
        return Problem("pages", f"{len(self.pages)} existing pages", f"the {named} pages that it names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """
    The announcement of pages that may exist.

    :param pages: their maximum number.
    :param at: the time of the announcement, in seconds since 1970.
    """

    generation: str
    pages: int
    at: float


class Announcements(Protocol):
    """The announcements of one paged item, as one of the tables stores them."""

    def add(self, one: Announcement) -> list[Announcement]:
        """Store *one*, and return all announcements. Those that cannot be read are left out."""

    def stored(self) -> list[Announcement]:
        """Return all announcements."""

    def remove(self, over: Sequence[Announcement]) -> None:
        """Delete announcements."""


class PagedItem:
    """
    Reads and writes of one paged item.

    :param name: the item in messages.
    :param spare_s: how long announced pages are kept if no manifest names them; 0 if a condition holds for all
        replicas. With eventual consistency, another manifest may win later.
    """

    def __init__(
        self,
        name: str,
        *,
        table: str,
        replicas: Replicas,
        keys: PageKeys,
        announcements: Announcements,
        clock: Clock,
        spare_s: float = 0.0,
    ) -> None:
        self._name = name
        self._table = table
        self._replicas = replicas
        self._keys = keys
        self._announcements = announcements
        self._clock = clock
        self._spare_s = spare_s

    def manifest(self) -> Item | None:
        """Return the stored manifest; None if it does not exist."""
        return self._get(self._keys.manifest)

    def read(self, values_of: Callable[[Item], Mapping[str, Any]]) -> StoredPages | None:
        """
        Return the manifest with its pages; None if it does not exist.

        :param values_of: returns the plain values of a manifest; raises if the manifest cannot be read.
        """
        # Another writer may replace it between the reads of manifest and pages. The next attempt then reads the new
        # one.
        for _ in range(_ATTEMPTS):
            manifest = self.manifest()
            if manifest is None:
                return None
            found = self._with_pages(manifest, values_of(manifest))
            if found.problem is None:
                break
        return found

    def _with_pages(self, manifest: Item, values: Mapping[str, Any]) -> StoredPages:
        pages: list[Item] = []
        # One by one: a page is as large as one attempt can read from another region within a second.
        for key in self._keys.pages(values["generation"], values["pages"]):
            page = self._get(key)
            if page is None:
                break
            pages.append(page)
        return StoredPages(manifest=manifest, values=values, pages=pages)

    def replace(self, make: Callable[[Item | None], PagedContent | None], doing: str) -> bool:
        """
        Replace manifest and pages: readers get all the old ones or all the new ones. Deletes unused pages.

        :param make: returns the new content, from the stored manifest; None if that manifest must stay.
        :param doing: the write in messages, such as "write a snapshot".
        :return: False if the stored manifest stays, or if other writers replaced it during each attempt.
        """
        for _ in range(_ATTEMPTS):
            before = self.manifest()
            content = make(before)
            if content is None:
                return False
            pages, manifest = self._keys.to_items(content)
            mine, announced = self._announce(manifest, before)
            for page in pages:
                self._replicas.put(page, doing)
            if self._put_manifest(manifest, before, doing):
                others = [each for each in announced if each.generation != mine.generation]
                self._collect(others, surely=_generation_of(before))
                return True
            log.info("Another writer has replaced %s in table %s.", self._name, self._table)
            # That writer may have deleted the announcement before the last page was written.
            self._collect([mine], surely=mine.generation)
        return False

    def write_once(self, content: PagedContent, doing: str, *, instead_of: Item | None) -> str:
        """
        Write manifest and pages, unless another manifest is stored; return the generation of the pages.

        The caller reads the item afterwards. The answer may be lost, or another caller may have written at the same
        time: the item that is stored then is the result.

        :param instead_of: the stored manifest, which cannot be read, and may be replaced; None: there is none.
        """
        pages, manifest = self._keys.to_items(content)
        mine, _ = self._announce(manifest, instead_of)
        for page in pages:
            self._replicas.put(page, doing)
        with contextlib.suppress(StateUnreachableError):
            self._put_manifest(manifest, instead_of, doing)
        return mine.generation

    def delete_unused_pages(self, *, surely: str | None = None) -> None:
        """
        Delete the pages that the stored manifest does not name.

        :param surely: the caller's own generation, whether it is the stored one or not.
        """
        try:
            manifest, announced = self.manifest(), self._announcements.stored()
        except StateError as error:
            log.warning("Unused pages of %s in table %s may stay: %s", self._name, self._table, error)
            return
        stored = _generation_of(manifest)
        if stored is not None:
            self._collect([each for each in announced if each.generation != stored], surely=surely)

    def _announce(self, manifest: Item, before: Item | None) -> tuple[Announcement, list[Announcement]]:
        """Announce the pages of *manifest*; return this announcement, and all announcements."""
        mine, replaced = self._announcement_of(manifest), self._announcement_of(before)
        assert mine is not None  # noqa: S101  (PageKeys.to_items writes the generation)
        announced = self._announcements.add(mine)
        if replaced is not None and replaced.generation not in {each.generation for each in announced}:
            # The first version wrote it without an announcement.
            announced = self._announcements.add(replaced)
        return mine, announced

    def _announcement_of(self, manifest: Item | None) -> Announcement | None:
        """Return an announcement of the pages that a manifest names; None if its generation cannot be read."""
        generation = _generation_of(manifest)
        if generation is None:
            return None
        return Announcement(generation=generation, pages=_pages_of(manifest or {}), at=self._now())

    def _put_manifest(self, manifest: Item, before: Item | None, doing: str) -> bool:
        """Write a manifest if the stored one is still *before*; return whether the new one is stored now."""
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(generation)"}
        if before is not None and "generation" in before:
            condition = {
                "ConditionExpression": "generation = :before",
                "ExpressionAttributeValues": {":before": before["generation"]},
            }
        return self._replicas.put_if(
            lambda client: client.put_item(
                TableName=self._table, Item=manifest, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition
            ),
            doing,
            is_mine=lambda found: found.get("generation") == manifest["generation"],
        )

    def _collect(self, announced: Sequence[Announcement], *, surely: str | None) -> None:
        """
        Delete pages of generations that no manifest will name. Pages that cannot be deleted now are deleted after the
        next write.

        :param surely: a generation whose writer has certainly finished, and that no replica will keep.
        """
        now = self._now()
        gone = [each for each in announced if each.generation == surely or now - each.at >= self._spare_s]
        try:
            for each in gone:
                for key in self._keys.pages(each.generation, each.pages):
                    self._replicas.delete(key, f"delete pages of {self._name}")
            # Until its writer has finished or has seen the other manifest, it may write more pages.
            over = [each for each in gone if each.generation == surely or now - each.at >= _WRITER_S]
            if over:
                self._announcements.remove(over)
        except StateError as error:
            log.warning("Unused pages of %s in table %s stay until its next write: %s", self._name, self._table, error)

    def _get(self, key: Item) -> Item | None:
        return self._replicas.get(key, f"read {self._name}")

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _generation_of(manifest: Item | None) -> str | None:
    generation = (manifest or {}).get("generation", {}).get("S")
    return generation if isinstance(generation, str) and generation else None


def _pages_of(manifest: Item) -> int:
    """Return the number of pages that a manifest names; 0 if it cannot be read."""
    return _count(manifest.get("pages", {}).get("N", ""))


def _count(text: object) -> int:
    return int(text) if isinstance(text, str) and _COUNT.fullmatch(text) and int(text) <= MOST_PAGES else 0


_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


# The layouts of both tables.


def state_keys(key: str) -> PageKeys:
    """Return the keys of a paged item of the state table: ``KEY``, and ``KEY#GENERATION#0000`` for the first page."""
    return PageKeys(
        manifest={"state_id": {"S": key}},
        page=lambda generation, number: {"state_id": {"S": f"{key}#{generation}#{number:04}"}},
    )


def checkpoint_keys(pk: str) -> PageKeys:
    """Return the keys of a checkpoint in the runs table: sort keys ``manifest`` and ``GENERATION#00000``."""
    return PageKeys(
        manifest={"pk": {"S": pk}, "sk": {"S": "manifest"}},
        page=lambda generation, number: {"pk": {"S": pk}, "sk": {"S": f"{generation}#{number:05}"}},
    )


class AnnouncementSet:
    """The announcements of an item of the state table: a set of texts in one item, ``KEY#generations``."""

    _TEXT = re.compile(r"([0-9a-f]{1,40})/(\d{1,9})/(\d{1,12})", re.ASCII)

    def __init__(self, key: Item, *, table: str, replicas: Replicas, name: str) -> None:
        self._key, self._table, self._replicas, self._name = key, table, replicas, name

    def add(self, one: Announcement) -> list[Announcement]:
        answer = self._update("ADD generations :texts", [one], f"announce pages of {self._name}")
        return self._of(answer.get("Attributes"))

    def stored(self) -> list[Announcement]:
        return self._of(self._replicas.get(self._key, f"read {self._name}"))

    def remove(self, over: Sequence[Announcement]) -> None:
        self._update("DELETE generations :texts", over, f"update {self._name}")

    def _update(self, expression: str, texts: Sequence[Announcement], doing: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._replicas.ask(
            lambda client: client.update_item(
                TableName=self._table,
                Key=self._key,
                UpdateExpression=expression,
                ExpressionAttributeValues={":texts": {"SS": list(map(self._text, texts))}},
                ReturnValues="ALL_NEW",
            ),
            doing,
        )
        return answer

    def _of(self, item: Item | None) -> list[Announcement]:
        texts = (item or {}).get("generations", {}).get("SS", ())
        found = (match.groups() for match in map(self._TEXT.fullmatch, texts) if match is not None)
        return [Announcement(generation=each[0], pages=_count(each[1]), at=float(each[2])) for each in found]

    @staticmethod
    def _text(one: Announcement) -> str:
        return f"{one.generation}/{one.pages}/{one.at:.0f}"


class AnnouncementItems:
    """The announcements of a checkpoint in the runs table: an item each, with sort key ``writing#GENERATION``."""

    _PREFIX = "writing#"

    def __init__(self, pk: str, *, table: str, replicas: Replicas, name: str) -> None:
        self._pk, self._table, self._replicas, self._name = pk, table, replicas, name

    def add(self, one: Announcement) -> list[Announcement]:
        values = {"pages": {"N": str(one.pages)}, "at": {"N": f"{one.at:.0f}"}}
        self._replicas.put({**self._key(one), **values}, f"announce pages of {self._name}")
        return self.stored()

    def stored(self) -> list[Announcement]:
        answer = self._replicas.ask(
            lambda client: client.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :writing)",
                ExpressionAttributeValues={":pk": {"S": self._pk}, ":writing": {"S": self._PREFIX}},
                ConsistentRead=True,
            ),
            f"list the pages of {self._name}",
        )
        found = []
        for item in answer.get("Items", ()):
            at = item.get("at", {}).get("N", "")
            if _COUNT.fullmatch(item.get("pages", {}).get("N", "")) and _SECONDS.fullmatch(at):
                generation = item["sk"]["S"].removeprefix(self._PREFIX)
                found.append(Announcement(generation=generation, pages=_pages_of(item), at=float(at)))
        return found

    def remove(self, over: Sequence[Announcement]) -> None:
        for one in over:
            self._replicas.delete(self._key(one), f"delete pages of {self._name}")

    def _key(self, one: Announcement) -> Item:
        return {"pk": {"S": self._pk}, "sk": {"S": self._PREFIX + one.generation}}
