"""The tests mirror the package; tests/README.md lists the exceptions."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "airflow_provider_mwaa_dr"
SUITES = ("unit", "contract", "airflow", "sandbox")


def modules() -> list[str]:
    """Return the paths of all modules that define something, relative to the package."""
    found = sorted(path for path in PACKAGE.rglob("*.py") if "example_dags" not in path.parts)
    return [
        str(path.relative_to(PACKAGE))
        for path in found
        if path.name != "__init__.py" or re.search(r"^(def|class) ", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def has_own_test(module: str) -> bool:
    """Return whether a suite has a test file with the path and the name of the module."""
    path = Path(module)
    return any((TESTS / suite / path.parent / f"test_{path.name}").is_file() for suite in SUITES)


def exceptions() -> dict[str, list[str]]:
    """Return the table of tests/README.md: patterns of modules, and the test files that it names for them."""
    rows = re.findall(r"^\| (`.*?) \| (`.*`) \|$", (TESTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        pattern: re.findall(r"`(.*?)`", named) for listed, named in rows for pattern in re.findall(r"`(.*?)`", listed)
    }


def test_every_module_has_a_test_of_its_name_or_a_row_in_the_table() -> None:
    """If this fails: name the test file after the module, or add a row to tests/README.md."""
    patterns = exceptions()
    assert [
        module
        for module in modules()
        if not has_own_test(module) and not any(fnmatchcase(module, pattern) for pattern in patterns)
    ] == []


def test_every_row_of_the_table_is_needed_and_names_existing_tests() -> None:
    """If this fails: the module has a test of its own name, or it or the test has another path."""
    without = [module for module in modules() if not has_own_test(module)]
    for pattern, named in exceptions().items():
        assert any(fnmatchcase(module, pattern) for module in without), f"no module needs the row of {pattern}"
        assert [path for path in named if not (TESTS / path).is_file()] == [], pattern


def test_every_test_that_a_document_names_exists() -> None:
    """If this fails: a document names a test that was renamed or removed, as the proof of what it says."""
    defined = {
        name
        for path in TESTS.rglob("*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    documents = sorted((TESTS.parent / "docs").rglob("*.md"))
    named = {
        (path.name, name) for path in documents for name in re.findall(r"`(test_[a-z]+_\w+)`", path.read_text("utf-8"))
    }
    assert {document for document, _ in named} >= {"kinds-of-runs.md"}
    assert sorted((document, name) for document, name in named if name not in defined) == []
