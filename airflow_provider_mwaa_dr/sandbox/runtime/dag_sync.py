"""Copy the DAGs of a bare environment's bucket into its DAGs folder, as MWAA does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.sandbox.cloud.buckets import dag_files

log = get_logger(__name__)

QUIET_S = 1.0
"""Files that are uploaded one after the other are copied together, so that a DAG file has its modules when parsed."""


class DagSync:
    """
    After each :meth:`wake`, copies new files and removes deleted ones, in its own thread.

    :param folders: returns the DAGs folders to update, by region.
    :param bucket: returns the files in the DAGs folder of a region's bucket, by path relative to that folder.
    :param quiet_s: copying starts when no file was written for this long.
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
        self._changed = threading.Event()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="dag-sync", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Request a copy because a bucket has changed. Returns immediately."""
        self._changed.set()

    def stop(self) -> None:
        """Stop the thread."""
        self._is_stopped = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self._changed.wait() and not self._is_stopped:
            while self._changed.is_set() and not self._is_stopped:
                self._changed.clear()
                self._changed.wait(self._quiet_s)
            try:
                for region, folder in self._folders().items():
                    synchronize(folder, self._bucket(region))
            except OSError:
                log.exception("A DAGs folder could not be updated from its bucket; the next change tries again")


def synchronize(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make *folder* contain exactly *files*. A changed file is replaced atomically, other files are not written."""
    # Other files first, because a DAG file may read them when it is parsed.
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
