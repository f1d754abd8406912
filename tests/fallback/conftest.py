"""Make ``import dassl`` use the fallback, or skip these tests where a real Dassl is installed."""

from __future__ import annotations

import sys

from tests.fallback.places import FALLBACK

sys.path.append(str(FALLBACK))
import dassl

if "fallback" not in dassl.__version__:
    collect_ignore_glob = ["test_*.py"]
