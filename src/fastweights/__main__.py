"""`python -m fastweights` is `fastweights`."""

import sys

from fastweights.cli import main

if __name__ == "__main__":
    sys.exit(main())
