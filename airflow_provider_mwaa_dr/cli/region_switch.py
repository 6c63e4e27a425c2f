"""
An AWS Lambda function that is a step of a plan of Region switch (Amazon Application Recovery Controller).

Region switch invokes the function again if it does not succeed within the retry interval of the step. The failover then
continues where the invocation before has stopped. docs/how-to/region-switch.md has the settings.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_mwaa_dr.cli.application import DONE, main
from airflow_provider_mwaa_dr.cli.runtime import Runtime, system_runtime
from airflow_provider_mwaa_dr.exceptions import ConfigError

REASON = "AWS Region switch"
"""The reason, if ``FAILOVER_REASON`` is not set."""


class StepFailedError(Exception):
    """The failover has not reached its stage. Region switch shows the message, and invokes the function again."""


def handler(
    event: object,  # noqa: ARG001  (all settings are environment variables)
    context: Any,
    *,
    make_runtime: Callable[[str], Runtime] = system_runtime,
) -> dict[str, Any]:
    """
    Fail over to the region of this function, or to the stage ``FAILOVER_UNTIL``, and return the record.

    Idempotent: a further invocation joins the open plan. It takes over the plan of an invocation that has timed out
    after 30 s, and a plan that an earlier step has halted immediately.

    :param event: what Region switch sends; it is not used.
    :param context: of the invocation; its ``invoked_function_arn`` is in the record.
    :raises StepFailedError: the failover was refused, or has stopped at a step.
    :raises ConfigError: ``AWS_REGION`` is not set.
    """
    out = io.StringIO()
    runtime = replace(make_runtime(context.invoked_function_arn), stdout=out)
    environ = runtime.environ
    target = environ.get("FAILOVER_TARGET_REGION") or environ.get("AWS_REGION")
    if not target:
        raise ConfigError("The target region is unknown.", option="AWS_REGION", advice="Set FAILOVER_TARGET_REGION.")
    command = ["failover", target, "--reason", environ.get("FAILOVER_REASON") or REASON, "--yes", "--json"]
    for option, name in (("--mode", "FAILOVER_MODE"), ("--until", "FAILOVER_UNTIL")):
        if environ.get(name):
            command += [option, environ[name]]
    code = main(command, runtime=runtime)
    document: dict[str, Any] = json.loads(out.getvalue())
    if code != DONE:
        error = document["error"]
        raise StepFailedError(f"{error['message']} {error['advice']}".strip())
    return document
