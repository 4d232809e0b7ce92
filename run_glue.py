"""Fine-tune on GLUE and IMDb: `python run_glue.py --model distilbert`."""

import sys

from angels_share.start import run_glue

if __name__ == "__main__":
    sys.exit(run_glue())
