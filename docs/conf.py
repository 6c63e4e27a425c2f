"""Settings of Sphinx. ``make docs`` builds the pages; Airflow is not needed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from airflow_provider_mwaa_dr import __version__

project = "airflow-provider-mwaa-dr"
release = version = __version__
extensions = ["myst_parser", "autoapi.extension", "sphinxcontrib.mermaid"]
root_doc = "index"
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

# What DAG authors import. Modules are parsed, not imported: the environment of the docs has no Airflow.
PACKAGE = Path(__file__).parents[1] / "airflow_provider_mwaa_dr"
PUBLIC = ("hooks/dr_state.py", "operators/*.py", "sensors/*.py", "testing/*.py", "exceptions.py")
_public = {path for pattern in PUBLIC for path in PACKAGE.glob(pattern)}
_public |= {path.parent / "__init__.py" for path in _public} | {PACKAGE / "__init__.py"}
autoapi_dirs = [str(PACKAGE)]
autoapi_ignore = [str(path) for path in PACKAGE.rglob("*.py") if path not in _public]
autoapi_root = "reference/api"
autoapi_add_toctree_entry = False
autoapi_member_order = "bysource"
autoapi_options = ["members", "show-inheritance", "show-module-summary"]
# Bases and types of internal modules are not part of the reference.
suppress_warnings = ["autoapi.python_import_resolution"]
