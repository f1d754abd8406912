"""Train or test a prompt learner: the command line of `dplq.cli.train`, in a checkout."""

import sys

from dplq.cli.train import build, build_parser, main, run, setup_cfg

__all__ = ["build", "build_parser", "main", "run", "setup_cfg"]

if __name__ == "__main__":
    sys.exit(main())
