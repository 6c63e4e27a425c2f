"""The pages of the sandbox's package index. test_requirements_installation.py reads them with a real pip."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_mwaa_dr.sandbox.runtime.package_index import PackageIndex


def test_each_package_has_a_page_with_links_to_its_wheels(tmp_path: Path) -> None:
    """The name of the page is normalized. Writing again removes the page of a package without wheels."""
    for name in ("A_b.c-1.0-py3-none-any.whl", "A_b.c-2.0+l-py3-none-any.whl", "other-1.0-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"")
    index = PackageIndex(tmp_path)
    index.write_pages()
    (tmp_path / "other-1.0-py3-none-any.whl").unlink()
    index.write_pages()
    assert index.url == (tmp_path / "simple").as_uri()
    assert [path.name for path in (tmp_path / "simple").iterdir()] == ["a-b-c"]
    assert (tmp_path / "simple" / "a-b-c" / "index.html").read_text() == (
        '<a href="../../A_b.c-1.0-py3-none-any.whl">A_b.c-1.0-py3-none-any.whl</a><br>\n'
        '<a href="../../A_b.c-2.0%2Bl-py3-none-any.whl">A_b.c-2.0+l-py3-none-any.whl</a><br>\n'
    )
