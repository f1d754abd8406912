"""Train or test a prompt learner: the command line of `dplq.cli.train`, in a checkout."""

import sys

from dplq.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
