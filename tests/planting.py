"""
Make any function of the provider raise, one at a time, in the process that imports this module.

The code of a function is replaced in place, so every reference to the function meets the planted error: modules that
imported it by name, registered hooks, classes.

In a real Airflow this file is in ``AIRFLOW_HOME/plugins``. The file ``AIRFLOW_HOME/planted`` names the function that
must fail. ``AIRFLOW_HOME/called`` and ``AIRFLOW_HOME/failed`` list the functions that were called and that failed.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

PACKAGE = "airflow_provider_mwaa_dr"
AGENT_MODULES = tuple(
    f"agent.{name}"
    for name in (
        "acknowledgements", "closing", "heartbeat", "housekeeping", "identity_check", "leader", "ledger_keeper",
        "ledger_wait", "loop", "plan_finisher", "process", "reconcile", "region_list", "report", "role_history",
        "silent_heartbeats", "snapshots", "state_reader", "unpublished",
    )
)  # fmt: skip
LEDGER_MODULES = tuple(
    f"core.bookkeeping.{name}"
    for name in (
        "adoption", "bookkeeper", "conversion", "database", "entries", "outcomes", "own_ledger", "peer_ledgers",
        "publishing", "replay", "resuming", "role_changes", "stops",
    )
)  # fmt: skip
MODULES = (
    "conf", "_compat", "core.config", "core.gate", "core.hold", "core.state", "core.timing", "core.timer",
    "core.log_on_change", "core.failover.records", "core.failover.recorded_sets", "core.ledger", *LEDGER_MODULES,
    "aws.clock", "aws.session", "aws.dynamodb.items", "aws.dynamodb.replicas", "aws.dynamodb.state_store",
    "aws.dynamodb.runs_store", *AGENT_MODULES, "plugins.held_task", "plugins.execution", "plugins.fence",
    "plugins.fork_guard", "plugins.gate", "plugins.listener",
)  # fmt: skip
SCHEDULERS_MODULES = tuple(
    f"plugins.metadata.{name}"
    for name in (
        "closing", "dags", "database", "exemption", "history", "insertion", "inventory", "notes", "resume", "room",
        "runs", "schedulers", "schema", "starting_run", "tasks", "transactions",
    )
)  # fmt: skip
"""These modules import Airflow's models, which a task process of Airflow 3 must not import."""
HOOKS = {
    "plugins.listener:on_starting",
    "plugins.listener:on_dag_run_running",
    "plugins.listener:on_task_instance_running",
}
"""The functions that Airflow itself calls. Errors are planted in the functions that these call."""


_IN_AIRFLOW = __name__ == "plant"
# A task that was forked from the scheduler loads Airflow's plugins again. The first load counts.
_NAME = "mwaa_dr_plant" if _IN_AIRFLOW else __name__


class PlantedError(Exception):
    """The error that a planted function raises."""


_originals: dict[str, FunctionType] = {}
_replaced: dict[str, FunctionType] = {}
_entered: list[Callable[[str], None]] = []


def call(key: str, args: Any, kwargs: Any) -> Any:
    """Replace the function *key*. The replaced code calls this function."""
    _entered[-1](key)
    return _originals[key](*args, **kwargs)


def functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yield name and function of everything that *module* defines, including methods and properties."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            for method, member in list(vars(value).items()):
                found = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
                if isinstance(found, FunctionType) and found.__code__.co_filename == module.__file__:
                    yield f"{name}.{method}", found
        elif callable(value):
            found = inspect.unwrap(value)
            if isinstance(found, FunctionType) and found.__code__.co_filename == module.__file__:
                yield name, found


def prepare(modules: Sequence[str], enter: Callable[[str], None]) -> None:
    """Let *enter* be called with ``module:name`` before each call of a function of *modules*. *enter* may raise."""
    _entered.append(enter)
    for short in modules:
        for name, function in functions(importlib.import_module(f"{PACKAGE}.{short}")):
            key = f"{short}:{name}"
            if key in HOOKS or key in _originals or function.__code__.co_freevars:
                continue
            original = FunctionType(
                function.__code__, function.__globals__, function.__name__, function.__defaults__, None
            )
            original.__kwdefaults__ = function.__kwdefaults__
            _originals[key], _replaced[key] = original, function
            function.__code__ = _stand_in(key)


def restore() -> None:
    """Give every function its original code back."""
    for key, function in _replaced.items():
        function.__code__ = _originals[key].__code__
    _originals.clear()
    _replaced.clear()


def _stand_in(key: str) -> Any:
    source = (
        "def stand_in(*args, **kwargs):\n"
        "    import sys\n"
        f"    return sys.modules[{_NAME!r}].call({key!r}, args, kwargs)\n"
    )
    scope: dict[str, Any] = {}
    exec(source, scope)  # the only way to create code that works with the globals of another module
    return scope["stand_in"].__code__


def _in_airflow() -> None:
    """Plant the error that ``AIRFLOW_HOME/planted`` names."""
    home = Path(os.environ["AIRFLOW_HOME"])
    recorded: set[str] = set()

    def record(file: str, line: str) -> None:
        if f"{file} {line}" in recorded:
            return
        recorded.add(f"{file} {line}")
        with (home / file).open("a") as lines:
            lines.write(f"{line}\n")

    def enter(key: str) -> None:
        record("called", key)
        try:
            planted, _, serial = (home / "planted").read_text().strip().partition(" ")
        except OSError:
            return
        if planted == key:
            record("failed", f"{serial} {key}")
            raise PlantedError(f"planted in {key}")

    is_scheduler = "scheduler" in sys.argv[1:2]
    prepare((*MODULES, *SCHEDULERS_MODULES) if is_scheduler else MODULES, enter)


if _IN_AIRFLOW and _NAME not in sys.modules:
    sys.modules[_NAME] = sys.modules[__name__]
    _in_airflow()
