"""DRStateHook: the behaviour that DAG authors can rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.core.state import FieldProblem, Phase
from airflow_provider_mwaa_dr.exceptions import (
    ConfigError,
    RefusedError,
    StaleStateError,
    StateNotFoundError,
    StateUnreachableError,
    UnusableStateError,
)
from airflow_provider_mwaa_dr.pytest_plugin import DRSet
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.documents import blocks, page

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]

OHIO, VIRGINIA = "us-east-2", "us-east-1"
SETTINGS = {
    "state_table": "t",
    "state_table_region": OHIO,
    "environments": "us-east-2=ohio,us-east-1=virginia",
    "region": VIRGINIA,
}


def hook_on(store: InMemoryStateStore, **changes: str) -> DRStateHook:
    config = parse_config({**SETTINGS, **changes})
    return DRStateHook(dr_config=config, store=store, clock=ManualClock())


@pytest.fixture
def store() -> InMemoryStateStore:
    clock = ManualClock()
    state = transitions.initial(OHIO, lease_s=60, by="init", at=clock.now())
    return InMemoryStateStore(state, regions=(OHIO, VIRGINIA))


def test_the_hook_returns_state_region_and_role(store: InMemoryStateStore) -> None:
    """It answers for its own region and for any other region."""
    hook = hook_on(store)
    assert hook.get_state() == store.state
    assert hook.active_region() == OHIO
    assert (hook.is_active(), hook.is_active(OHIO)) == (False, True)
    assert hook_on(store, region=OHIO).is_active()


@pytest.mark.parametrize(
    ("store", "changes", "error"),
    [
        (InMemoryStateStore(), {}, StateNotFoundError),
        (InMemoryStateStore(), {"region": ""}, ConfigError),
    ],
)
def test_is_active_raises_when_it_cannot_know(
    store: InMemoryStateStore, changes: Mapping[str, str], error: type[Exception]
) -> None:
    """Without a state item, or without an own region, is_active raises and does not guess."""
    with pytest.raises(error):
        hook_on(store, **changes).is_active()


def test_an_unreachable_table_raises(store: InMemoryStateStore) -> None:
    """Neither True nor False would be right."""
    store.unreachable = True
    with pytest.raises(StateUnreachableError):
        hook_on(store).is_active()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"active_region": "us-est-2"}, "'us-est-2', which is not registered .* registered are us-east-1, us-east-2"),
        ({"active_region": ""}, "'', which is not registered"),
        ({"active_region": "x" * 5000}, "which is not registered"),
        ({"problems": (FieldProblem("lease_s", "'nan'", "a number of seconds"),)}, "lease_s is 'nan'"),
        ({"phase": Phase.PROMOTING}, "is PROMOTING and has no plan"),
    ],
)
def test_a_state_that_gives_no_region_a_role_is_not_standby(
    store: InMemoryStateStore, changes: Mapping[str, Any], message: str
) -> None:
    """While every region holds every run, no region is active, and none is a standby."""
    assert store.state is not None
    store.overwrite(replace(store.state, **changes))
    hook = hook_on(store)
    for call in (hook.is_active, lambda: hook.is_active(OHIO), hook.active_region, hook.active_state):
        with pytest.raises(UnusableStateError, match=message):
            call()
    assert hook.get_state() == store.state


def test_a_region_outside_of_the_set_is_not_active(store: InMemoryStateStore) -> None:
    """A control environment in a third region has no item of its own. Its is_active is False."""
    assert hook_on(store, region="us-west-2").is_active() is False


def test_the_table_has_to_be_named() -> None:
    """The error names the missing option."""
    with pytest.raises(ConfigError) as raised:
        DRStateHook(dr_config=parse_config({"region": OHIO})).get_state()
    assert raised.value.option == "state_table"


def test_initialize_writes_once() -> None:
    """The first call names its own region. Later calls are no-ops, and a call that names another region is refused."""
    store = InMemoryStateStore()
    assert hook_on(store).initialize().active_region == VIRGINIA
    before = store.state
    assert hook_on(store, region=OHIO).initialize() == before
    assert hook_on(store).initialize(VIRGINIA) == before
    with pytest.raises(RefusedError):
        hook_on(store).initialize(OHIO)
    assert store.state is before
    assert sorted(store.registrations()) == [VIRGINIA, OHIO]


def test_set_active_region_moves_the_role_in_one_write(store: InMemoryStateStore) -> None:
    """Epoch, version and count grow by one. The state item has the reason and the previous region."""
    state = hook_on(store).set_active_region(VIRGINIA, reason="by hand", expected_version=1)
    assert state == store.state
    assert (state.active_region, state.epoch, state.version, state.failover_count) == (VIRGINIA, 1, 2, 1)
    assert (state.failover_reason, state.previous_region) == ("by hand", OHIO)
    assert hook_on(store).set_active_region(VIRGINIA, reason="again") == state


def test_a_stale_expected_version_changes_nothing(store: InMemoryStateStore) -> None:
    """The caller decided on an old state, and gets the new state in the error."""
    with pytest.raises(StaleStateError) as raised:
        hook_on(store).set_active_region(VIRGINIA, reason="late", expected_version=7)
    assert raised.value.found == store.state
    assert store.state is not None
    assert store.state.active_region == OHIO


@pytest.mark.parametrize(("region", "reason"), [("mars", "x"), (VIRGINIA, " "), (VIRGINIA, "x" * 1001)])
def test_an_unknown_region_never_becomes_active(store: InMemoryStateStore, region: str, reason: str) -> None:
    """A typing error would leave the set without an active region."""
    with pytest.raises(ConfigError):
        hook_on(store).set_active_region(region, reason=reason)
    assert store.calls.count("write") == 0


def test_settings_and_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """DAG authors write only DRStateHook(). The hook uses no Airflow connection."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"AIRFLOW__DR__{name.upper()}", value)
    hook = DRStateHook()
    assert hook.own_region == VIRGINIA
    assert dict(hook.environment_names()) == {OHIO: "ohio", VIRGINIA: "virginia"}
    assert hook.aws_conn_id is None
    table: Any = hook.get_conn()
    assert (table.table, table.replicas) == ("t", (OHIO,))


def test_settings_that_contradict_mwaa_raise(store: InMemoryStateStore) -> None:
    """``[dr] region`` is a copy of another environment's. If a region has two names, the hook uses neither."""
    config = replace(parse_config(SETTINGS), aws_region=OHIO)
    with pytest.raises(ConfigError, match="AWS_REGION is us-east-2"):
        DRStateHook(dr_config=config, store=store, clock=ManualClock()).is_active()
    hook = hook_on(store, environments="us-east-2=one,us-east-2=two")
    for call in (hook.environment_names, lambda: hook.initialize(OHIO), hook.is_active):
        with pytest.raises(ConfigError, match="one and two"):
            call()


def test_the_tests_that_the_documents_show_pass() -> None:
    """The example in docs/how-to/test-your-dags.md passes as a user would copy it."""
    (example,) = blocks(page("how-to/test-your-dags"), "python")
    names: dict[str, Any] = {}
    exec(example, names)
    tests = [name for name in names if name.startswith("test_")]
    assert tests == ["test_only_the_active_region_publishes", "test_an_unknown_role_is_an_error"]
    for name in tests:
        names[name](DRSet())
