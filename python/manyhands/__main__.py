"""`python -m manyhands` is the `manyhands` command."""

import sys

from manyhands.cli import main

if __name__ == "__main__":
    sys.exit(main())
