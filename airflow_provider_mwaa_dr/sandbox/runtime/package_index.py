"""The package index of a bare home: a folder with wheels, which pip uses instead of the index in its configuration."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from urllib.parse import quote


class PackageIndex:
    """
    The index in *folder*. All its wheels are in the folder itself.

    pip gets it as ``--index-url``, and not as ``--find-links``, so that ``--no-index`` and ``--index-url`` in a user's
    file switch it off, as they do in MWAA.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        """The address for pip."""
        return self._pages.as_uri()

    def write_pages(self) -> None:
        """Write the page of each package that the folder has wheels of. Call it after adding a wheel."""
        shutil.rmtree(self._pages, ignore_errors=True)
        self._pages.mkdir(parents=True)
        for wheel in sorted(self.folder.glob("*.whl")):
            name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
            page = self._pages / name / "index.html"
            page.parent.mkdir(exist_ok=True)
            with page.open("a") as output:
                output.write(f'<a href="../../{quote(wheel.name)}">{html.escape(wheel.name)}</a><br>\n')

    @property
    def _pages(self) -> Path:
        # The layout of https://packaging.python.org/en/latest/specifications/simple-repository-api/
        return self.folder / "simple"
