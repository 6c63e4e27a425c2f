"""``python -m tests.exploration``."""

import sys

from tests.exploration.search import main

sys.exit(main())
