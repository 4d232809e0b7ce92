"""`python -m eval_harness tables | report | speed | probe | tasks | fetch | push | demo`."""

import sys

from angels_share.start import eval_harness

sys.exit(eval_harness())
