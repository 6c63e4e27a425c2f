"""The sandboxes that the tests of this folder share; see harness.py for what one offers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.sandbox.harness import Pair, Shape, opened


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """
    Two real Airflows, brought up on first use and taken down after the last test that asks for the same shape.

    Ask with ``@on(shape)`` from the harness: pytest then runs the tests of one shape together, across files.
    """
    shape: Shape = request.param
    with opened(shape) as pair:
        yield pair


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Put the tests of one shape together, the standby's last.

    Pytest's own order would bring each sandbox up again and again, and fail over between an attempt and its judgement.
    What the standby's tests do to a region (stop its scheduler, disable its plugin) a failover rightly refuses as not
    ready for a while.
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
    """Say what a failed test left behind: what did not come true is seldom to be seen from its message."""
    report = yield
    pair: Any = getattr(item, "funcargs", {}).get("pair")
    if report.failed and isinstance(pair, Pair):
        report.sections.append(("The pair", pair.describe()))
    return report
