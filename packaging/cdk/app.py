"""
The tables, policies and alarms of a DR set in an app of the AWS CDK: the templates of ``mwaa-dr deploy`` as they are.

Set the names, or copy the two stacks into your own app. ``make cdk`` synthesizes this app. Then: ``cdk deploy --all``.
"""

from __future__ import annotations

from importlib.resources import files

import aws_cdk as cdk
from aws_cdk import cloudformation_include as include

HERE, THERE, WITNESS = "us-east-1", "us-east-2", "us-west-2"
ENVIRONMENTS = {HERE: "etl-secondary", THERE: "etl-primary"}
ROLES = {HERE: "etl-secondary-role", THERE: "etl-primary-role"}
TEMPLATES = files("airflow_provider_mwaa_dr") / "aws" / "deploy" / "templates"


class DRSet(cdk.Stack):
    """Tables and policies, in the region of one environment."""

    def __init__(self, scope: cdk.App, **options: object) -> None:
        super().__init__(scope, "mwaa-dr", env=cdk.Environment(region=HERE), **options)  # type: ignore[arg-type]
        self.template = include.CfnInclude(
            self,
            "Template",
            template_file=str(TEMPLATES / "mwaa_dr.yaml"),
            preserve_logical_ids=True,
            parameters={
                "OtherRegion": THERE,
                "WitnessRegion": WITNESS,
                "EnvironmentHere": ENVIRONMENTS[HERE],
                "EnvironmentThere": ENVIRONMENTS[THERE],
                "RoleHere": ROLES[HERE],
                "RoleThere": ROLES[THERE],
            },
        )


class Alarms(cdk.Stack):
    """Alarms and dashboard of one environment, in its region."""

    def __init__(self, scope: cdk.App, region: str) -> None:
        env = cdk.Environment(region=region)
        super().__init__(scope, f"alarms-{region}", env=env, stack_name="mwaa-dr-alarms")
        include.CfnInclude(
            self,
            "Template",
            template_file=str(TEMPLATES / "mwaa_dr_alarms.yaml"),
            preserve_logical_ids=True,
            parameters={"EnvironmentName": ENVIRONMENTS[region]},
        )


app = cdk.App()
DRSet(app)
for each in ENVIRONMENTS:
    Alarms(app, each)
app.synth()
