"""`python -m eval_harness tables | report | speed | tasks | demo`."""

import sys

from eval_harness.cli import main

sys.exit(main())
