"""
Makes any function of the provider raise, one at a time, in the process that imports this.

A function's code is replaced where it is, so whoever has a reference to it meets the planted error: modules that
imported it by name, hooks that are registered, classes. In a real Airflow this file lies in ``AIRFLOW_HOME/plugins``;
the function to fail is named in ``AIRFLOW_HOME/planted``, and those that were called, or failed, are listed in
``AIRFLOW_HOME/called`` and ``AIRFLOW_HOME/failed``.
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
MODULES = (
    "conf", "_compat", "core.config", "core.gate", "core.state", "core.finishing", "core.failover", "core.ledger",
    "core.bookkeeping", "aws.clock", "aws.session", "aws.items", "aws.replicas", "aws.state_store", "aws.runs_store",
    "plugins.held_task", "plugins.fence", "plugins.agent", "plugins.listener",
)  # fmt: skip
SCHEDULERS_MODULE = "plugins.metadata_db"
"""Airflow's models: not to be imported in a task process of Airflow 3."""
HOOKS = {
    "plugins.listener:on_starting",
    "plugins.listener:on_dag_run_running",
    "plugins.listener:on_task_instance_running",
}
"""What Airflow itself calls; a planted error stands for one in what they call."""


_IN_AIRFLOW = __name__ == "plant"
# Airflow loads its plugins anew in a task that was forked from the scheduler: the first load counts.
_NAME = "mwaa_dr_plant" if _IN_AIRFLOW else __name__


class PlantedError(Exception):
    """Raised where it was planted."""


_originals: dict[str, FunctionType] = {}
_replaced: dict[str, FunctionType] = {}
_entered: list[Callable[[str], None]] = []


def call(key: str, args: Any, kwargs: Any) -> Any:
    """Stand in for the function *key*. Called by the replaced code."""
    _entered[-1](key)
    return _originals[key](*args, **kwargs)


def functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yield name and function of everything that is defined in *module*, methods and properties too."""
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
    """Let *enter* be called with ``module:name`` before each call of a function of *modules*; it may raise."""
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
    """Give every function its own code back."""
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
    exec(source, scope)  # the only way to have code that works with another module's globals
    return scope["stand_in"].__code__


def _in_airflow() -> None:
    """Obey ``AIRFLOW_HOME/planted``."""
    home = Path(os.environ["AIRFLOW_HOME"])
    told: set[str] = set()

    def tell(file: str, line: str) -> None:
        if f"{file} {line}" in told:
            return
        told.add(f"{file} {line}")
        with (home / file).open("a") as lines:
            lines.write(f"{line}\n")

    def enter(key: str) -> None:
        tell("called", key)
        try:
            planted, _, serial = (home / "planted").read_text().strip().partition(" ")
        except OSError:
            return
        if planted == key:
            tell("failed", f"{serial} {key}")
            raise PlantedError(f"planted in {key}")

    is_scheduler = "scheduler" in sys.argv[1:2]
    prepare((*MODULES, SCHEDULERS_MODULE) if is_scheduler else MODULES, enter)


if _IN_AIRFLOW and _NAME not in sys.modules:
    sys.modules[_NAME] = sys.modules[__name__]
    _in_airflow()
