"""Wheels: those of this checkout, and small ones as packages of a user."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parents[1]


def build_wheels(folder: Path) -> None:
    """Build the wheels of the provider and of the command line in *folder*."""
    for source in (ROOT, ROOT / "packaging" / "mwaa-dr-cli"):
        command = [find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)]
        subprocess.run(command, check=True)


def write_wheel(folder: Path, name: str, version: str, *requires: str) -> Path:
    """
    Write a wheel and return its path. It has one module with a variable ``version``.

    :param name: of the distribution; the module's name has underscores for hyphens.
    :param requires: requirements of the distribution.
    """
    module = name.replace("-", "_")
    stem = f"{module}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    files = {
        f"{module}.py": f'version = "{version}"\n',
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {each}\n" for each in requires),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}\n"
        for file, text in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{stem}.dist-info/RECORD", f"{record}{stem}.dist-info/RECORD,,\n")
    return path
