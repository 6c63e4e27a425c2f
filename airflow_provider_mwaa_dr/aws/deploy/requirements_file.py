"""
The provider's lines in a user's ``requirements.txt``.

Bytes in, bytes out: all other lines are kept byte for byte, with any encoding and line ends. The provider's lines are
the requirement of this distribution, in any spelling of its name, and a ``--find-links`` line that ends in
:data:`MARK`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.exceptions import RefusedError

DISTRIBUTION = "airflow-provider-mwaa-dr"
PLUGINS_FOLDER = "/usr/local/airflow/plugins"
"""Where MWAA unpacks plugins.zip: https://docs.aws.amazon.com/mwaa/latest/userguide/best-practices-dependencies.html"""
MARK = "# mwaa-dr"
"""Marks a line of the provider that could also be the user's. For pip it is a comment."""

_NAME = re.compile(rb"^\s*airflow[-_.]+provider[-_.]+mwaa[-_.]+dr(?![A-Za-z0-9]|[-_.]+[A-Za-z0-9])", re.IGNORECASE)
_FIND_LINKS = re.compile(rb"^\s*(?:--find-links|-f)[\s=]+" + PLUGINS_FOLDER.encode() + rb"/?\s*(?P<mark>#.*)?$")
_INDEX = re.compile(rb"^\s*(?:--no-index\b|--index-url\b|--pypi-url\b|-i\b)")
_PASSWORD = re.compile(rb"(://)[^/@\s]+@")
_HASHES = re.compile(rb"(?:^|\s)--(?:hash|require-hashes)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """
    The requirement for ``requirements.txt``.

    :param version: exact version of this distribution.
    :param from_plugins: whether the wheel is in plugins.zip; else pip gets it from the index.
    :param sha256: hash of the wheel, for a file with hashes; empty: unknown.
    """

    version: str
    from_plugins: bool = False
    sha256: str = ""

    @property
    def line(self) -> str:
        """The line for pip."""
        return f"{DISTRIBUTION}=={self.version}"


def merge(text: bytes, requirement: Requirement) -> bytes:
    """
    Return *text* with the provider's lines for *requirement*; the same bytes if nothing has to change.

    An existing line of the provider is replaced in its place; otherwise the lines are appended. ``remove(merge(text,
    ...)) == text`` for every *text* without a line of the provider.

    :raises RefusedError: the line cannot be added automatically; the user has to change the file.
    """
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RefusedError(
            "requirements.txt is UTF-16; it was not changed.", advice="Save it as UTF-8, upload it, and deploy again."
        )
    lines = list(_logical_lines(text))
    ours = [line for line in lines if _NAME.match(line)]
    links = [line for line in lines if _is_find_links(line)]
    marked = [line for line in links if _is_marked(line)]
    is_found = len(ours) == 1 and _is_version(ours[0], requirement.version) and _has_hash(ours[0], requirement.sha256)
    needs_links = requirement.from_plugins and len(links) == len(marked)
    if is_found and len(marked) == int(needs_links):
        return text
    new = requirement.line
    if _HASHES.search(text) and not is_found:
        if not requirement.sha256:
            raise RefusedError(
                "requirements.txt has hashes, and pip then requires a hash in every line; it was not changed.",
                advice=f"Give the wheel (--wheel FILE), or add {new} --hash=sha256:... yourself, upload the file, and "
                "deploy again.",
            )
        new += f" --hash=sha256:{requirement.sha256}"
    if not ours and not requirement.from_plugins and (index := _foreign_index(lines)):
        raise RefusedError(
            f"requirements.txt has the line {index!r}: pip may not find {DISTRIBUTION} there, and would then install "
            "nothing of the file; it was not changed.",
            advice="Give the wheel (--wheel FILE): pip then finds it in plugins.zip, without an index.",
        )
    # A single \r at the end of the file must not become the first half of the new line's end.
    newline = b"\r\n" if b"\r\n" in text or text.endswith(b"\r") else b"\n"
    block = [f"--find-links {PLUGINS_FOLDER}  {MARK}".encode()] if needs_links else []
    block.append(ours[0].rstrip(b"\r\n") if is_found else new.encode())
    kept: list[bytes] = []
    written = False
    for line in lines:
        if _NAME.match(line):
            if not written:
                end = line[len(line.rstrip(b"\r\n")) :]
                kept.append(newline.join(block) + end)
                written = True
        elif not _is_marked(line):
            kept.append(line)
    if written:
        return b"".join(kept)
    rest = b"".join(kept)
    if kept and _continues(kept[-1]):
        raise RefusedError(
            "requirements.txt ends in a backslash, which would join the new line to the last one; it was not changed.",
            advice="Remove the backslash, upload the file, and deploy again.",
        )
    if rest and not rest.endswith(b"\n"):
        # The file still ends without a line end. remove() also removes the line end that is added here.
        return rest + newline + newline.join(block)
    return rest + newline.join([*block, b""])


def _foreign_index(lines: Sequence[bytes]) -> str:
    """Return the line that makes pip use another index than its own, or none; empty if there is no such line."""
    found = next((line for line in lines if _INDEX.match(line)), b"")
    return _PASSWORD.sub(rb"\1***@", found).decode(errors="replace").strip()


def remove(text: bytes) -> bytes:
    """Return *text* without the provider's lines; the same bytes if it has none."""
    lines = list(_logical_lines(text))
    kept = [line for line in lines if not (_NAME.match(line) or _is_marked(line))]
    if len(kept) == len(lines):
        return text
    if kept and not text.endswith(b"\n"):
        # The removed last line had no line end: merge() added the line end before it, so remove that, too.
        last = kept[-1]
        if last is not lines[-1]:
            kept[-1] = last[: -2 if last.endswith(b"\r\n") else -1]
    return b"".join(kept)


def our_lines(text: bytes) -> list[str]:
    """Return the provider's lines, for messages."""
    return [
        line.decode(errors="replace").strip() for line in _logical_lines(text) if _NAME.match(line) or _is_marked(line)
    ]


def _logical_lines(text: bytes) -> Iterator[bytes]:
    r"""Yield lines with their line ends. As in pip, lines that ``\`` joins are one line."""
    pending = b""
    # Not splitlines(): it also splits at a form feed or \x85, and for pip only a newline ends a line.
    for line in re.findall(rb"[^\n]*\n|[^\n]+$", text):
        pending += line
        if _continues(line):
            continue
        yield pending
        pending = b""
    if pending:
        yield pending


def _continues(line: bytes) -> bool:
    return line.rstrip(b"\r\n").endswith(b"\\") and not line.lstrip().startswith(b"#")


def _is_version(line: bytes, version: str) -> bool:
    """Whether a requirement line requires exactly *version*. Hashes or a comment may follow."""
    name = _NAME.match(line)
    asked = rb"\s*==\s*" + re.escape(version.encode()) + rb"(?![0-9A-Za-z.+*!])"
    return name is not None and re.match(asked, line[name.end() :]) is not None


def _has_hash(line: bytes, sha256: str) -> bool:
    """Whether a line has no hashes, or whose hashes include *sha256* if that is known."""
    return b"--hash" not in line or not sha256 or sha256.encode() in line


def _is_find_links(line: bytes) -> bool:
    return _FIND_LINKS.match(line.rstrip(b"\r\n")) is not None


def _is_marked(line: bytes) -> bool:
    found = _FIND_LINKS.match(line.rstrip(b"\r\n"))
    return found is not None and (found["mark"] or b"").rstrip() == MARK.encode()
