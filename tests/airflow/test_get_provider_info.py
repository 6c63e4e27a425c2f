"""The provider in the catalogue of the installed Airflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.core.config import OPTIONS
from airflow_provider_mwaa_dr.get_provider_info import get_provider_info


def test_the_catalogue_entry_is_valid() -> None:
    """The test uses the schema of this Airflow, which refuses a provider with an invalid entry."""
    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_option_is_in_the_catalogue() -> None:
    """The package has one table of options."""
    options: dict[str, Any] = get_provider_info()["config"]["dr"]["options"]
    assert list(options) == [option.name for option in OPTIONS]
    names = {"description", "version_added", "type", "example", "default"}
    assert all(set(option) == names for option in options.values())
