"""The console command `sync-staging`, and `python -m listener`."""

import sys

from listener.cli import run


def main() -> None:
    """Carry out the command line of this process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
