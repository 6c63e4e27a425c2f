"""The options that the installed Airflow has renamed or removed, by its own tables; names only, never a value."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache

from airflow.configuration import conf

_PREFIX = "AIRFLOW__"
_FORMS = ("", "_CMD", "_SECRET")
"""What may follow an option's name in an environment variable: the value comes from a command or a secrets backend."""


@cache
def changed_options() -> Mapping[str, str]:
    """Return each option that this version renamed, with its new name, and each that it removed, with an empty text."""
    known = _known()
    return {name: new for name, new in sorted(_changes()) if name not in known}


def _changes() -> Iterator[tuple[str, str]]:
    """Yield what Airflow's tables say: the rules of ``airflow config lint`` (2.11 and later), and the aliases."""
    try:
        from airflow.cli.commands.config_command import CONFIGS_CHANGES  # noqa: PLC0415  (Airflow 2.11 and later)
    except ImportError:
        CONFIGS_CHANGES = []
    for change in CONFIGS_CHANGES:
        if change.renamed_to is not None:
            yield ".".join(change.config), ".".join(change.renamed_to)
        elif change.was_removed and not getattr(change, "remove_if_equals", None):
            yield ".".join(change.config), ""
    for (section, name), (old_section, old_name, *_) in conf.deprecated_options.items():
        yield f"{old_section}.{old_name}", f"{section}.{name}"


@cache
def unknown_options() -> tuple[str, ...]:
    """
    Return the options that environment variables set, as MWAA sets them, and that this version does not know.

    Sections that Airflow does not know are left out: they may belong to a plugin.
    """
    known = {_variable(name) for name in _known()}
    sections = {_section_variable(section) for section in conf.configuration_description}
    found = []
    for variable in os.environ:
        section, separator, name = variable.removeprefix(_PREFIX).partition("__")
        is_option = variable.startswith(_PREFIX) and separator and section in sections
        if is_option and not any(variable.removesuffix(form) in known for form in _FORMS):
            found.append(f"{section.lower()}.{name.lower()}")
    return tuple(sorted(found))


def _known() -> set[str]:
    described = conf.configuration_description
    return {f"{section}.{name}" for section, of in described.items() for name in of.get("options") or ()}


def _variable(name: str) -> str:
    section, _, option = name.partition(".")
    return f"{_PREFIX}{_section_variable(section)}__{option.upper()}"


def _section_variable(section: str) -> str:
    return section.replace(".", "_").upper()
