"""Run the command line with ``python -m skxma``."""

import sys

from skxma.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
