"""``python -m tests.simulation``."""

import sys

from tests.simulation.many import main

if __name__ == "__main__":  # each worker process imports this module, too
    sys.exit(main())
