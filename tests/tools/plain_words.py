"""
Count odd phrases: words that a reader may have to read twice (``python -m tests.tools.plain_words``).

Prints the phrases per 1,000 words for each kind of text: documents, docstrings, comments, and messages (all other
strings of the package). ``--list`` prints each place, ``--most`` the most frequent phrases. ``PATH`` arguments limit
the count.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_mwaa_dr"
DOCUMENT, DOCSTRING, COMMENT, MESSAGE = "documents", "docstrings", "comments", "messages"
OF_TESTS = " of tests"

PHRASES = (
    # An actor without a name.
    r"nobody", r"nobody's", r"somebody", r"anybody", r"whoever", r"whatever (?:it|that|they) (?:is|are|does|do|says)",
    r"who(?:ever)? (?:asks|reads|cancels|sees|comes|writes|starts)", r"people",
    # Archaic, or a figure of speech.
    r"anew", r"in vain", r"for good", r"goes? on", r"going on with", r"went on", r"gone on", r"sees? to it",
    r"last word", r"says? (?:its|their|his) last", r"say so", r"says so", r"said so", r"said again", r"in the way",
    r"left behind", r"comes? to nothing", r"no more", r"any more", r"not any longer", r"at its end", r"as it were",
    r"by (?:then|now)", r"all the (?:same|while|rest)", r"ever so", r"thereof", r"therein", r"hence", r"thus",
    r"lest", r"whence", r"amidst", r"outlives?", r"outlived", r"outwaits?", r"outwaited", r"lives? through",
    r"sign of life", r"in mid-\w+", r"would be (?:lost|gone)", r"mended", r"mends?", r"dwells?", r"fate", r"tidings",
    r"at that very moment", r"in that very moment", r"in the very moment", r"books", r"book-?keeping's", r"a hair",
    r"for its part", r"of (?:its|their) own accord", r"alike", r"likewise", r"at once",
    # A verb with several meanings here.
    r"tells?", r"told", r"telling", r"tells of", r"told of", r"looks? at", r"looked at", r"looks? for", r"a look",
    r"every look", r"each look", r"the look", r"last look", r"asked for", r"asks? for", r"asked again", r"settles?",
    r"settled", r"settling", r"has had its say", r"speaks?", r"spoken", r"heard", r"hears?", r"has not heard",
    # A reference that the reader has to search for.
    r"of which", r"of that,? only", r"the one that", r"the one before", r"the ones that", r"the other one",
    r"elsewhere", r"what is (?:not|there|due|open|left|new|missing)", r"what was (?:open|left|there|closed|said)",
    r"what it (?:is|was|has|had|said)", r"is its own", r"is theirs", r"its own is",
    r"of (?:that|this|those|these) kind",
    r"there is nothing to", r"or is not", r"or (?:it )?never will", r"what (?:they|it) (?:come|comes) to",
    # Words of the first designs.
    r"pictures?", r"the seed's", r"due runs?", r"is due", r"are due", r"leftovers?", r"left over",
)  # fmt: skip
_ODD = re.compile(r"(?<![\w./`-])(?:" + "|".join(PHRASES) + r")(?![\w/`#-])", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_CODE = re.compile(r"```.*?```|``[^`]*``|`[^`\n]*`|:\w+:`[^`]*`|https?://\S+", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """A passage: its kind, file, first line and words."""

    kind: str
    path: str
    line: int
    text: str

    @property
    def prose(self) -> str:
        """The passage without code."""
        return _CODE.sub(" ", self.text)

    @property
    def words(self) -> int:
        return len(_WORD.findall(self.prose))

    @property
    def odd(self) -> list[str]:
        return [found.group().lower() for found in _ODD.finditer(self.prose)]


def of_python(path: Path, name: str) -> Iterator[Text]:
    """Yield the docstrings, comments and messages of a module; names of tests are not text."""
    source = path.read_text(encoding="utf-8")
    suffix = OF_TESTS if name.startswith("tests/") else ""
    tree = ast.parse(source)
    docstrings = {id(found): found for node in ast.walk(tree) for found in _docstrings(node)}
    for found in docstrings.values():
        yield Text(DOCSTRING + suffix, name, found.lineno, str(found.value))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in () if suffix else ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if is_text and (id(node) in inside or " " in node.value):
            yield Text(MESSAGE, name, node.lineno, node.value)
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith("# fmt:"):
            continue
        if block and token.start[0] != last + 1:
            yield Text(COMMENT + suffix, name, first, " ".join(block))
            block = []
        first = first if block else token.start[0]
        last = token.start[0]
        block.append(token.string.lstrip("#: "))
    if block:
        yield Text(COMMENT + suffix, name, first, " ".join(block))


def _docstrings(node: ast.AST) -> Iterator[ast.Constant]:
    """Yield the strings that stand alone in a body: docstrings, and those of attributes."""
    body = getattr(node, "body", None)
    for statement in body if isinstance(body, list) else ():
        value = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value


def of_document(path: Path, name: str) -> Iterator[Text]:
    """Yield the paragraphs of a Markdown file, without its blocks of code."""
    source = re.sub(
        r"```.*?```", lambda block: "\n" * block.group().count("\n"), path.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    line = 1
    for paragraph in source.split("\n\n"):
        if paragraph.strip():
            yield Text(DOCUMENT, name, line, paragraph)
        line += paragraph.count("\n") + 2


def texts(paths: list[str] | None = None) -> Iterator[Text]:
    """Yield all passages of the tracked files, or of those under *paths*."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *(paths or ())], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name == "tests/tools/plain_words.py" or not path.is_file():
            continue
        if name.endswith(".py"):
            yield from of_python(path, name)
        elif name.endswith(".md"):
            yield from of_document(path, name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.plain_words", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="only files under these paths")
    parser.add_argument("--list", action="store_true", help="print each place")
    parser.add_argument("--most", type=int, default=0, metavar="N", help="print the N most frequent phrases")
    parser.add_argument("--at-most", type=float, metavar="RATE", help="exit 1 if a kind of text has more per 1,000")
    options = parser.parse_args()
    words: Counter[str] = Counter()
    odd: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    places: list[Text] = []
    for text in texts(options.paths):
        words[text.kind] += text.words
        odd[text.kind] += len(text.odd)
        phrases.update(text.odd)
        if text.odd:
            places.append(text)
            if options.list:
                print(f"{text.path}:{text.line}: {text.kind}: {', '.join(text.odd)}")
    too_odd = set()
    for kind, count in sorted(words.items()):
        rate = 1000 * odd[kind] / max(1, count)
        if options.at_most is not None and rate > options.at_most:
            too_odd.add(kind)
        print(f"{kind:20} {count:8,} words {odd[kind]:6,} odd {rate:6.1f} per 1,000")
    for phrase, count in phrases.most_common(options.most):
        print(f"{count:6} {phrase}")
    if not too_odd:
        return 0
    print(f"\nThese phrases are hard to read for many readers (more than {options.at_most:g} per 1,000 words):")
    for place in places:
        if place.kind in too_odd:
            print(f"{place.path}:{place.line}: {', '.join(place.odd)}")
    print(
        "Write plain English: subject, verb, object; name the actor; use the terms of docs/glossary.md. If a phrase is "
        "the best one in its context, remove it from PHRASES in tests/tools/plain_words.py."
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
