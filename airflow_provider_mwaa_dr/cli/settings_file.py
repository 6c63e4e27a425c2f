"""The settings file of the command line: a profile for each DR set, in place of environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tomllib

from airflow_provider_mwaa_dr.core.config import OPTIONS
from airflow_provider_mwaa_dr.exceptions import ConfigError

DEFAULT_PROFILE = "default"
AWS_PROFILE = "aws_profile"
"""The key for the variable of this name, which boto3 reads."""
_VARIABLES = {
    AWS_PROFILE: ("AWS_PROFILE",),
    **{option.name: tuple(f"DR_{name.upper()}" for name in (option.name, *option.aliases)) for option in OPTIONS},
}


def settings_path(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the settings file, which may be missing; None if no home folder is known."""
    if folder := environ.get("XDG_CONFIG_HOME"):
        return Path(folder) / "mwaa-dr.toml"
    home = environ.get("HOME")
    return Path(home) / ".config" / "mwaa-dr.toml" if home else None


def with_settings(environ: Mapping[str, str], profile: str | None) -> tuple[Mapping[str, str], list[str]]:
    """
    Return *environ* with the settings of a profile, and the variables that override a setting of the profile.

    A variable that is set overrides the file. If *environ* is this process's own, ``AWS_PROFILE`` is set in it, because
    boto3 reads it there.

    :param profile: name of a table in the file; None: ``default``, if the file has it.
    :raises ConfigError: the file cannot be read, or it has no such profile, or an unknown setting.
    """
    path = settings_path(environ)
    profiles = _profiles(path)
    name = profile or DEFAULT_PROFILE
    if name not in profiles:
        if profile is None:
            return environ, []
        raise ConfigError(
            f"The settings file {path or 'mwaa-dr.toml'} has no profile {profile!r}.",
            option="--profile",
            advice=f"{did_you_mean(profile, profiles)}Existing profiles: {', '.join(sorted(profiles)) or 'none'}.",
        )
    found, overridden = dict(environ), []
    for key, value in profiles[name].items():
        if key not in _VARIABLES:
            raise ConfigError(
                f"Unknown setting {key!r} in profile {name} of {path}.",
                option=key,
                advice=f"{did_you_mean(key, _VARIABLES)}Settings have the names of the options in [dr].",
            )
        variables = _VARIABLES[key]
        text = _text(value)
        given = next((each for each in variables if environ.get(each, "").strip()), None)
        if given is None:
            found[variables[0]] = text
        elif environ[given] != text:
            overridden.append(given)
    if environ is os.environ and "AWS_PROFILE" in found:
        os.environ["AWS_PROFILE"] = found["AWS_PROFILE"]
    return found, overridden


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the most similar of the known words; empty if none is similar."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]}? " if nearest else ""


def _profiles(path: Path | None) -> Mapping[str, Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8") if path is not None else ""
        document = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The settings file {path} cannot be read: {error}.",
            option="--profile",
            advice="Correct it, or move it away and use the DR_* environment variables.",
        ) from error
    outside = [key for key, value in document.items() if not isinstance(value, dict)]
    if outside:
        raise ConfigError(
            f"The setting {outside[0]!r} in {path} is outside a profile.",
            option=outside[0],
            advice=f"Write it below a line [{DEFAULT_PROFILE}], or below the name of another profile.",
        )
    return document


def _text(value: Any) -> str:
    """Return a value of TOML as the text of an environment variable."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ",".join(f"{key}={_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value)
