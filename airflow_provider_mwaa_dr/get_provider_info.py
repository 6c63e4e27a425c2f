"""The metadata of this provider for Airflow's list of providers. Imports nothing from Airflow."""

from __future__ import annotations

from typing import Any

from airflow_provider_mwaa_dr.core.config import OPTIONS, SECTION

_PACKAGE = "airflow_provider_mwaa_dr"
_INTEGRATION = "MWAA disaster recovery"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the shape of ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-mwaa-dr",
        "name": _INTEGRATION,
        "description": "Disaster recovery for Amazon MWAA: fail over between two environments in two regions.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.aws.amazon.com/mwaa/latest/userguide/disaster-recovery-resiliency.html",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.hooks.dr_state"]}],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    f"{_PACKAGE}.operators.failover",
                    f"{_PACKAGE}.operators.dags",
                    f"{_PACKAGE}.operators.readiness",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_PACKAGE}.sensors.dr_state", f"{_PACKAGE}.sensors.environment_health"],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_PACKAGE}.triggers.dr_state", f"{_PACKAGE}.triggers.environment_health"],
            }
        ],
        "extra-links": [
            f"{_PACKAGE}.operators.links.FailoverPageLink",
            f"{_PACKAGE}.operators.links.TargetAirflowLink",
        ],
        "plugins": [{"name": "mwaa_dr", "plugin-class": f"{_PACKAGE}.plugins.mwaa_dr.MwaaDRPlugin"}],
        "config": {
            SECTION: {
                "description": "Disaster recovery across two regions.",
                "options": {
                    option.name: {
                        "description": option.description,
                        "version_added": option.version_added,
                        "type": option.type,
                        "example": option.example,
                        "default": option.default,
                    }
                    for option in OPTIONS
                },
            }
        },
    }
