"""`python -m distil_trainer export | prune`."""

import sys

from angels_share.start import distil_trainer

sys.exit(distil_trainer())
