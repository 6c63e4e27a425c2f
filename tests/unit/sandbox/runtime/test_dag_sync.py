"""A bare environment's DAGs folder follows its bucket's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.sandbox.runtime.dag_sync import DagSync, synchronize


def test_new_files_come_changed_ones_change_and_the_others_go(tmp_path: Path) -> None:
    """Also in folders below; what Python made there stays."""
    (tmp_path / "lib" / "__pycache__").mkdir(parents=True)
    (tmp_path / "lib" / "__pycache__" / "old.pyc").write_bytes(b"")
    (tmp_path / "gone.py").write_text("gone")
    (tmp_path / "changed.py").write_text("old")

    synchronize(tmp_path, {"changed.py": b"new", "lib/added.py": b"added"})

    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"changed.py", "lib/added.py", "lib/__pycache__/old.pyc"}
    assert (tmp_path / "changed.py").read_text() == "new"
    assert (tmp_path / "lib" / "added.py").read_text() == "added"


def test_a_file_that_is_the_same_is_not_touched(tmp_path: Path) -> None:
    """Airflow parses each written file again."""
    (tmp_path / "same.py").write_text("same")
    before = (tmp_path / "same.py").stat()

    synchronize(tmp_path, {"same.py": b"same"})

    after = (tmp_path / "same.py").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_a_dag_file_reads_is_there_before_it(tmp_path: Path) -> None:
    """Parsed without it, the file would be an import error for a while."""
    (tmp_path / "a.py").mkdir()

    with pytest.raises(OSError, match=r"a\.py"):
        synchronize(tmp_path, {"a.py": b"", "b.txt": b"read by it"})

    assert (tmp_path / "b.txt").read_bytes() == b"read by it"


def test_it_goes_on_after_an_error(tmp_path: Path) -> None:
    """A folder that could not be written is written with the next change."""
    looked = threading.Semaphore(0)
    answers = iter([OSError("disk full"), {"one.py": b"1"}, {"two.py": b"2"}])

    def bucket(region: str) -> Mapping[str, bytes]:
        assert region == "us-east-1"
        answer = next(answers)
        looked.release()
        if isinstance(answer, OSError):
            raise answer
        return answer

    sync = DagSync(lambda: {"us-east-1": tmp_path}, bucket, quiet_s=0)
    sync.start()
    for _ in range(3):
        sync.wake()
        assert looked.acquire(timeout=60)
    sync.stop()

    assert [path.name for path in tmp_path.iterdir()] == ["two.py"]
