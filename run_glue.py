"""Fine-tune on GLUE and IMDb: `python run_glue.py --model distilbert`."""

import sys

from eval_harness.cli import run_glue

if __name__ == "__main__":
    sys.exit(run_glue())
