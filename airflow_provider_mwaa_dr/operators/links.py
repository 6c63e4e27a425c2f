"""The links of a failover's task in Airflow's UI."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr._compat import BaseOperatorLink, xcom_value

TARGET_KEY = "mwaa_dr_target"
"""The XCom with the target's environment."""


class FailoverPageLink(BaseOperatorLink):  # type: ignore[misc, unused-ignore]
    """The page *Disaster recovery* of this Airflow, with the history and the reports of failovers."""

    name = "Failovers and reports"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the path of the page. It exists in the environments of a DR set."""
        return f"{conf.web_root()}/mwaa-dr/"


class TargetAirflowLink(BaseOperatorLink):  # type: ignore[misc, unused-ignore]
    """The Airflow UI of the target, through the console of MWAA, which logs the user in."""

    name = "Airflow of the target"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the link of the console; empty until the task has begun."""
        found = xcom_value(TARGET_KEY, ti_key)
        return console_link(**found) if found else ""


def target_of(aws_region: str, environment: str) -> dict[str, str]:
    """Return the value of the XCom."""
    return {"region": aws_region, "environment": environment}


def console_link(region: str, environment: str) -> str:
    """Return the link with which MWAA's console opens an environment's Airflow UI."""
    domain = "amazonaws.cn" if region.startswith("cn-") else "aws.amazon.com"
    return f"https://{quote(region)}.console.{domain}/mwaa/home?region={quote(region)}#environments/{quote(environment)}/sso"
