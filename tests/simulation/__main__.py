"""``python -m tests.simulation``."""

import sys

from tests.simulation.many import main

if __name__ == "__main__":  # each of its processes imports this, too
    sys.exit(main())
