"""The provider's options in an environment's ``AirflowConfigurationOptions``. Pure; options of others are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_mwaa_dr.core.config import OPTIONS, SECTION

_PARSE = {f"{SECTION}.{option.name}": option.parse for option in OPTIONS}
OURS = frozenset(f"{SECTION}.{name}" for option in OPTIONS for name in (option.name, *option.aliases))
"""Every option that this provider reads, as MWAA spells it."""
_IDS = (f"{SECTION}.site", f"{SECTION}.region")
"""The option with the id of the environment's site, and its alias."""


def merge(options: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """
    Return *options* with *wanted* added.

    An option that already has an equal value keeps its spelling. MWAA rebuilds the environment for each change, which
    takes 20 to 30 minutes; ``True`` instead of ``true`` is not worth that.

    :param wanted: values by full name, such as ``dr.enabled``.
    """
    return {**options, **{name: text for name, text in wanted.items() if not _means(name, options.get(name), text)}}


def remove(options: Mapping[str, str]) -> dict[str, str]:
    """Return *options* without the provider's options."""
    return {name: text for name, text in options.items() if name not in OURS}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return a line for each changed option of the provider. Other options may be secrets, and are never shown."""
    lines = []
    for name in sorted(OURS & (before.keys() | after.keys())):
        was, becomes = before.get(name), after.get(name)
        if was != becomes:
            lines += [f"- {name}={was}"] * (was is not None) + [f"+ {name}={becomes}"] * (becomes is not None)
    return lines


def other_ids(before: Mapping[str, str], after: Mapping[str, str], site: str) -> list[str]:
    """
    Return a warning for each option that names another site than *site*, the one that the environment is in the set.

    :param before: the options of the environment; *after*: with the changes of the deployment.
    """
    lines = []
    for name in (name for name in _IDS if before.get(name, "").strip() not in {"", site}):
        if after.get(name) == before[name]:
            then = "two ids of one environment hold every run; remove the option, or correct DR_ENVIRONMENTS"
        elif name in after:
            then = "the items of the old id stay in the tables, and belong to no environment"
        else:
            continue
        lines.append(f"WARNING: {name} is {before[name]}, and this environment is the site {site}: {then}")
    return lines


def _means(name: str, there: str | None, text: str) -> bool:
    if there is None:
        return False
    try:
        return bool(_value(name, there) == _value(name, text))
    except ValueError:
        return False


def _value(name: str, text: str) -> Any:
    value = _PARSE[name](text)
    # The order of replicas in the option has no meaning: the reader sorts them by distance.
    return frozenset(value) if isinstance(value, tuple) else value
