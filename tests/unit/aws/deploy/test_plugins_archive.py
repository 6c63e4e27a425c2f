"""The provider's wheel in a user's plugins.zip."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.aws.deploy.plugins_archive import Wheel, merge, remove, wheels_in
from airflow_provider_mwaa_dr.exceptions import ConfigError, RefusedError

NAME = "airflow_provider_mwaa_dr-1.2.0-py3-none-any.whl"
WHEEL = Wheel(name=NAME, version="1.2.0", content=b"the wheel")
OLD = Wheel(name=NAME.replace("1.2.0", "1.1.0"), version="1.1.0", content=b"the old wheel")


def theirs() -> bytes:
    """Return an archive with a folder, a file mode, a comment, and compressed and stored entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"theirs"
        script = zipfile.ZipInfo("bin/run.sh", date_time=(2024, 5, 6, 7, 8, 10))
        script.external_attr = 0o755 << 16
        archive.writestr(script, b"#!/bin/sh\n")
        archive.writestr("hooks/a.py", b"x" * 5000, compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def entries(archive: bytes) -> list[tuple[object, ...]]:
    """Return all visible properties of the entries."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return [
            (one.filename, one.date_time, one.external_attr, one.compress_type, source.read(one))
            for one in source.infolist()
        ]


def test_the_wheel_is_added_and_the_rest_stays() -> None:
    """Entries keep content, mode, time and order. A second merge is a no-op."""
    before = theirs()
    merged = merge(before, WHEEL)
    assert entries(merged)[:-1] == entries(before)
    assert (wheels_in(merged), wheels_in(before)) == ([NAME], [])
    assert merge(merged, WHEEL) is merged
    assert merge(before, WHEEL) == merged


def test_another_version_replaces_the_old_one() -> None:
    """With two wheels of one package, pip would choose."""
    merged = merge(merge(theirs(), OLD), WHEEL)
    assert wheels_in(merged) == [NAME]
    assert entries(remove(merged)) == entries(theirs())


def test_a_first_archive_is_created() -> None:
    """After a removal, the archive still has one file, until a wheel is added again."""
    alone = merge(b"", WHEEL)
    assert [entry[0] for entry in entries(alone)] == [NAME]
    left = remove(alone)
    assert [entry[0] for entry in entries(left)] == ["mwaa-dr.txt"]
    assert merge(left, WHEEL) == alone
    assert remove(left) is left
    assert remove(b"") == b""


def test_a_file_that_is_no_archive_is_refused() -> None:
    """The AWS sample instructs users to put a .py file into plugins.zip."""
    with pytest.raises(RefusedError, match="not a ZIP"):
        merge(b"print()", WHEEL)


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    """It would fail on MWAA, where a failed installation is only a line in a log."""
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"content")
    assert Wheel.read(path).version == "1.2.0"
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with pytest.raises(ConfigError, match="damaged"):
        Wheel.read(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="cannot be read"):
        Wheel.read(path)
