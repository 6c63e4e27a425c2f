"""
Faster data classes, for processes that run many histories.

A frozen data class assigns each field with ``object.__setattr__``, and ``replace`` reads all fields by name. This takes
a fifth of the time of a history. Here the same classes get an ``__init__`` that assigns, and a ``replace`` that copies
the slots. They are then no longer frozen. The test suite does not call this module and uses frozen classes. A history
is the same with both (test_simulation.py compares digests).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from airflow_provider_mwaa_dr.core import gate, ledger, ports, state
from airflow_provider_mwaa_dr.core.bookkeeping import database, stops
from airflow_provider_mwaa_dr.core.failover import context, preview, records, request, restore

_THAWED = (database, stops, context, preview, records, request, restore, gate, ledger, ports, state)
_Replace = Callable[..., Any]


def thaw() -> None:
    """Make the data classes of the core cheap to construct and to copy, in this process, permanently."""
    copiers: dict[type, _Replace] = {}
    for module in _THAWED:
        for cls in vars(module).values():
            if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__:
                copier = _thaw(cls)
                if copier is not None:
                    copiers[cls] = copier

    def replace(instance: Any, /, **changes: Any) -> Any:
        copier = copiers.get(instance.__class__)
        return dataclasses.replace(instance, **changes) if copier is None else copier(instance, changes)

    for name, loaded in list(sys.modules.items()):
        if (
            name.startswith(("airflow_provider_mwaa_dr.", "tests."))
            and vars(loaded).get("replace") is dataclasses.replace
        ):
            vars(loaded)["replace"] = replace


def _thaw(cls: Any) -> _Replace | None:
    """Give a frozen data class a plain ``__init__``, and return a function that copies an instance with changes."""
    fields = dataclasses.fields(cls)
    if hasattr(cls, "__post_init__") or not cls.__dataclass_params__.frozen or not all(each.init for each in fields):
        return None
    known: dict[str, Any] = {"cls": cls, "new": object.__new__}
    positional, keyword = [], []
    body = []
    for each in fields:
        default = ""
        if each.default is not dataclasses.MISSING:
            known[f"default_{each.name}"] = each.default
            default = f"=default_{each.name}"
        elif each.default_factory is not dataclasses.MISSING:
            return None
        (keyword if each.kw_only else positional).append(f"{each.name}{default}")
        body.append(f"    self.{each.name} = {each.name}")
    arguments = ", ".join(["self", *positional, *(["*", *keyword] if keyword else [])])
    copied = "\n".join(f"    copy.{each.name} = self.{each.name}" for each in fields)
    source = (
        f"def __init__({arguments}):\n" + "\n".join(body) + "\n"
        f"def copier(self, changes):\n    copy = new(cls)\n{copied}\n"
        "    for name, value in changes.items():\n        setattr(copy, name, value)\n    return copy\n"
    )
    exec(source, known)  # as dataclasses does
    cls.__init__ = known["__init__"]
    del cls.__setattr__, cls.__delattr__
    copier: _Replace = known["copier"]
    return copier
