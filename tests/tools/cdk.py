"""
Synthesizes the app in ``packaging/cdk`` and compares its stacks with the templates: ``make cdk`` installs the CDK.

``python -m tests.tools.cdk PYTHON FOLDER``: the Python with ``aws-cdk-lib``, and a folder for the output.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template, template

ROOT = Path(__file__).parents[2]


def resources(text: str) -> set[str]:
    """Return the logical ids of the resources of a template."""
    part = text.partition("\nResources:\n")[2].partition("\nOutputs:\n")[0]
    return set(re.findall(r"^  (\w+):$", part, flags=re.MULTILINE))


def main(python: str, folder: Path) -> int:
    """Synthesize and compare; return the exit code."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CDK_OUTDIR": str(folder)}
    subprocess.run([python, str(ROOT / "packaging" / "cdk" / "app.py")], env=env, check=True, stderr=subprocess.DEVNULL)
    wrong = 0
    stacks = {path.name.partition(".")[0]: json.loads(path.read_text()) for path in folder.glob("*.template.json")}
    for name, stack in sorted(stacks.items()):
        wanted = resources(template() if name == "mwaa-dr" else alarms_template())
        print(f"{name}: {len(stack['Resources'])} resources")
        wrong += set(stack["Resources"]) != wanted or not wanted
    return 1 if wrong or len(stacks) != 3 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
