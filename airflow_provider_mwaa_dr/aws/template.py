"""The CloudFormation template, as it is in the package, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files


def template(*, keep_tables: bool = True) -> str:
    """
    Return the template's text.

    :param keep_tables: otherwise deleting the stack deletes its tables too.
    """
    text = files("airflow_provider_mwaa_dr.aws").joinpath("templates/mwaa_dr.yaml").read_text(encoding="utf-8")
    return text if keep_tables else text.replace("DeletionPolicy: RetainExceptOnCreate", "DeletionPolicy: Delete")


def as_parameters(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return parameters as CloudFormation wants them."""
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in sorted(values.items())]
