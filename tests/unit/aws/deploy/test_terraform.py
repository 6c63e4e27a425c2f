"""The Terraform module declares what ``mwaa-dr deploy`` would do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.deploy import policies
from airflow_provider_mwaa_dr.aws.deploy.dr_options import OURS
from airflow_provider_mwaa_dr.aws.deploy.policies import Scope
from airflow_provider_mwaa_dr.aws.deploy.requirements_file import Requirement
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template, template
from airflow_provider_mwaa_dr.core.sites import Site, Sites
from tests.tools.terraform import MODULE, NAMES, blocks, module, unknown

POLICIES = MODULE / "policies"


def text_of(name: str) -> str:
    return (MODULE / name).read_text(encoding="utf-8")


def scope(values: Mapping[str, str]) -> Scope:
    """Return a scope with these values, or with their placeholders in the module."""

    def value(name: str) -> str:
        return values.get(name, f"${{{name}}}")

    sites = [
        Site(id=value(f"site_{each}"), environment=value(f"environment_{each}"), aws_region=value(f"region_{each}"))
        for each in "ab"
    ]
    return Scope(
        partition=value("partition"), account=value("account"), state_table=value("state_table"),
        runs_table=value("runs_table"), stack="", environments=Sites(sites), buckets={}, roles={}, dag_folders={},
        table_keys=["KEYS"], topic=value("topic"), bus=value("bus"), airflow_role=value("airflow_role"),
    )  # fmt: skip


def documents(of: Scope, site: str) -> dict[str, Any]:
    """Return the documents by file. Terraform cannot leave a statement out, so each of these has a file of its own."""
    notifying, publishing, putting_events = (
        {"Version": "2012-10-17", "Statement": [each]} for each in policies.notifying(of)["Statement"]
    )
    return {
        "execution": policies.execution(of, site),
        "finishing": policies.finishing(of),
        "notifying": notifying,
        "publishing": publishing,
        "putting_events": putting_events,
        "writing_back": policies.writing_back(of),
        "using_table_keys": policies.using_table_keys(of),
        "flipping": policies.flipping(of),
        "reading": policies.reading(of),
        "rest_api": policies.rest_api(of),
    }


def rendered(text: str, values: Mapping[str, Any]) -> str:
    """Return what Terraform's templatefile returns for the two forms that the module uses."""
    text = re.sub(r"\$\{jsonencode\((\w+)\)\}", lambda found: json.dumps(values[found.group(1)]), text)
    return re.sub(r"\$\{(\w+)\}", lambda found: str(values[found.group(1)]), text)


def test_the_policies_are_those_of_the_deployment() -> None:
    """The files are written from the same code: ``WRITE_TERRAFORM=1 pytest test_terraform.py``."""
    wanted = {
        f"{name}.json": json.dumps(document, indent=2).replace(
            '[\n        "KEYS"\n      ]', "${jsonencode(table_keys)}"
        )
        + "\n"
        for name, document in documents(scope({}), "${site}").items()
    }
    if os.environ.get("WRITE_TERRAFORM"):
        for name, text in wanted.items():
            (POLICIES / name).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in POLICIES.iterdir()} == wanted


def test_the_rendered_policies_are_those_that_the_command_prints() -> None:
    """Terraform replaces the placeholders by the same values."""
    values = {
        "partition": "aws", "account": "1", "state_table": "s", "runs_table": "r", "airflow_role": "Op", "topic": "t",
        "bus": "b", "region_a": "us-east-1", "environment_a": "e1", "region_b": "us-east-2", "environment_b": "e2",
    }  # fmt: skip
    of = replace(scope({**values, "site_a": "us-east-1", "site_b": "us-east-2"}), table_keys=["k1", "k2"])
    for name, document in documents(of, "us-east-2").items():
        text = (POLICIES / f"{name}.json").read_text(encoding="utf-8")
        found = rendered(text, {**values, "site": "us-east-2", "table_keys": ["k1", "k2"]})
        assert json.loads(found) == document, name


def test_the_module_uses_each_policy_and_each_placeholder() -> None:
    """A policy without a use, or a placeholder without a value, would be found by Terraform only."""
    text = text_of("policies.tf")
    names = {path.stem for path in POLICIES.iterdir()}
    assert all(re.search(rf'\b{name}\b\s+=|"{name}"|policies/{name}\.json', text) for name in names)
    used = set(re.findall(r"\$\{(?:jsonencode\()?(\w+)", "".join(path.read_text() for path in POLICIES.iterdir())))
    values = text.partition("values = {")[2].partition("}")[0]
    assert used - {"site"} == set(re.findall(r"^\s+(\w+)\s+=", values, flags=re.MULTILINE))


def test_each_name_is_one_of_the_aws_provider() -> None:
    """``make terraform`` has read the names from the bindings of the provider."""
    stored = json.loads(NAMES.read_text(encoding="utf-8"))
    found = module()
    assert set(found) == {
        "aws_dynamodb_table", "aws_iam_policy", "aws_iam_role_policy_attachment", "aws_cloudformation_stack",
        "data.aws_caller_identity", "data.aws_partition",
    }  # fmt: skip
    assert list(unknown(found, stored["names"])) == []


@pytest.mark.parametrize(
    ("right", "wrong", "path"),
    [
        ('resource "aws_dynamodb_table" "state"', 'resource "aws_dynamo_table" "state"', "aws_dynamo_table"),
        ("  hash_key ", "  hash_keys ", "aws_dynamodb_table.hash_keys"),
        ("      consistency_mode ", "      consistency ", "aws_dynamodb_table.replica.consistency"),
        ("  ttl {", "  time_to_live {", "aws_dynamodb_table.time_to_live"),
    ],
)
def test_a_wrong_name_is_found(right: str, wrong: str, path: str) -> None:
    """The check can fail: for a resource, an argument, an argument of a dynamic block, and a block."""
    text = text_of("tables.tf")
    assert right in text
    known = json.loads(NAMES.read_text(encoding="utf-8"))["names"]
    assert list(unknown(blocks(text), known)) == []
    assert path in list(unknown(blocks(text.replace(right, wrong)), known))


def test_the_tables_are_those_of_the_template() -> None:
    """Keys, expiry, recovery, protection and encryption, as CloudFormation creates them."""
    text = text_of("tables.tf")
    for word, count in {
        '"state_id"': 2, '"pk"': 2, '"sk"': 2, '"expires_at"': 1, "PAY_PER_REQUEST": 2, "NEW_AND_OLD_IMAGES": 2,
    }.items():  # fmt: skip
        assert text.count(word) == count, word
        assert word.strip('"') in template()
    assert text.count("deletion_protection_enabled") == text.count("point_in_time_recovery ") == 4
    assert text.count("server_side_encryption {\n    enabled = true") == 2
    assert text.count("prevent_destroy = true") == 2


def test_the_options_are_ours_and_the_line_is_that_of_the_deployment() -> None:
    """The outputs are what a user adds to the environments that Terraform manages."""
    text = text_of("outputs.tf")
    options = set(re.findall(r'"(dr\.\w+)"', text))
    assert options <= OURS
    assert options == {
        "dr.enabled", "dr.state_table", "dr.state_table_region", "dr.state_table_replicas", "dr.runs_table",
        "dr.environments", "dr.table_consistency", "dr.cloudwatch_metrics", "dr.notification_topic",
        "dr.notification_bus", "dr.site",
    }  # fmt: skip
    line = re.search(r'"(airflow-provider-mwaa-dr==\$\{var\.package_version\})"', text)
    assert line is not None
    assert line.group(1).replace("${var.package_version}", "1.2.3") == Requirement(version="1.2.3").line


def test_the_alarms_are_those_of_the_template() -> None:
    """The module creates a stack from the same file, with parameters that the template has."""
    text = text_of("alarms.tf")
    path = re.search(r"\$\{path\.module\}/(\S+\.yaml)", text)
    assert path is not None
    assert (MODULE / path.group(1)).read_text(encoding="utf-8") == alarms_template()
    given = set(re.findall(r"^    (\w+) +=", text.partition("parameters = {")[2], flags=re.MULTILINE))
    parameters = alarms_template().partition("Parameters:")[2].partition("Conditions:")[0]
    assert given <= set(re.findall(r"^  (\w+):", parameters, flags=re.MULTILINE))
