"""``python -m airflow_provider_mwaa_dr.cli``."""

from __future__ import annotations

import sys

from airflow_provider_mwaa_dr.cli.application import main

sys.exit(main())
