"""The documents for users, as the tests read them: README.md and the pages in docs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"


def page(name: str) -> str:
    """Return the text of a page in docs. *name* has no suffix."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def pages() -> list[Path]:
    """Return the README, the other documents of the root folder and all pages, in a fixed order."""
    root = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", ".github/SECURITY.md")]
    return [README, *root, *sorted(DOCS.rglob("*.md"))]


def everything() -> str:
    """Return the README and all pages as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in pages())


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of one language, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
