"""The sandboxes that the tests of this folder share. harness.py describes what a sandbox offers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.sandbox.harness import Pair, Shape, opened


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """
    Two real Airflows. They start at first use, and stop after the last test that needs the same shape.

    A test requests them with ``@on(shape)`` from the harness. Pytest then runs the tests of one shape together, across
    files.
    """
    shape: Shape = request.param
    with opened(shape) as pair:
        yield pair


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Put the tests of one shape together, with those of the standby last.

    Pytest's own order would start each sandbox several times, and would fail over between an attempt and its check.
    After the standby's tests (a stopped scheduler, a disabled plugin), a failover refuses the region as not ready for a
    while.
    """

    def place(item: pytest.Item) -> tuple[str, bool]:
        callspec = getattr(item, "callspec", None)
        shape = repr(callspec.params.get("pair", "")) if callspec is not None else ""
        return shape, item.path.name == "test_standby.py"

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a description of the pair to a failed test: the message alone rarely shows the cause."""
    report = yield
    pair: Any = getattr(item, "funcargs", {}).get("pair")
    if report.failed and isinstance(pair, Pair):
        report.sections.append(("The pair", pair.describe()))
    return report
