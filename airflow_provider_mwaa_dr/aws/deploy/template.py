"""The CloudFormation templates in the package, and their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from airflow_provider_mwaa_dr.core.sites import Site


def template(*, keep_tables: bool = True) -> str:
    """
    Return the text of the template with tables and policies.

    :param keep_tables: whether CloudFormation keeps the tables when it deletes the stack.
    """
    text = _read("mwaa_dr.yaml")
    return text if keep_tables else text.replace("DeletionPolicy: RetainExceptOnCreate", "DeletionPolicy: Delete")


def alarms_template() -> str:
    """Return the text of the template with one environment's alarms."""
    return _read("mwaa_dr_alarms.yaml")


def alarms_stack(stack: str, site: Site) -> str:
    """
    Return the name of the stack with the alarms of *site*, for the deployment with the stack *stack*.

    It has the name of the site only if the id is no region: then another site may be in the same region.
    """
    return f"{stack}-alarms-{site.id}" if site.is_named else f"{stack}-alarms"


def as_parameters(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return parameters in CloudFormation's format."""
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in sorted(values.items())]


def _read(name: str) -> str:
    return files("airflow_provider_mwaa_dr.aws.deploy").joinpath(f"templates/{name}").read_text(encoding="utf-8")
