"""The DAGs folder of a bare environment follows its bucket's, as MWAA has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.sandbox.buckets import dag_files

log = get_logger(__name__)

QUIET_S = 1.0
"""Files that are written one after the other come together: a DAG file must not be parsed without its modules."""


class DagSync:
    """
    Copies in a thread of its own whatever is new, and removes what is gone, after each :meth:`wake`.

    :param folders: by region, the folders to be kept.
    :param bucket: returns what is in the DAGs folder of a region's bucket, by path in there.
    :param quiet_s: for how long nothing must have been written before anything is copied.
    """

    def __init__(
        self,
        folders: Callable[[], Mapping[str, Path]],
        bucket: Callable[[str], Mapping[str, bytes]],
        *,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._folders = folders
        self._bucket = bucket
        self._quiet_s = quiet_s
        self._due = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._go_on, name="dag-sync", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Say that a bucket has changed; returns at once."""
        self._due.set()

    def stop(self) -> None:
        """End the thread."""
        self._over = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _go_on(self) -> None:
        while self._due.wait() and not self._over:
            while self._due.is_set() and not self._over:
                self._due.clear()
                self._due.wait(self._quiet_s)
            try:
                for region, folder in self._folders().items():
                    follow(folder, self._bucket(region))
            except OSError:
                log.exception("A DAGs folder does not follow its bucket; it will with the next change")


def follow(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make *folder* hold exactly *files*; a file changes at once, and one that is the same is not touched."""
    # What a DAG file reads when it is parsed has to be there before it.
    for name, content in sorted(files.items(), key=lambda file: file[0].endswith(".py")):
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
    for name in dag_files(folder):
        if name not in files:
            (folder / name).unlink()
