"""`python -m eval_harness tables | tasks`."""

import sys

from eval_harness.cli import main

sys.exit(main())
