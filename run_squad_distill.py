"""Fine-tune on SQuAD: `python run_squad_distill.py --model distilbert --teacher bert`."""

import sys

from eval_harness.cli import run_squad_distill

if __name__ == "__main__":
    sys.exit(run_squad_distill())
