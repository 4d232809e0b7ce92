"""Fine-tune on SQuAD: `python run_squad_distill.py --model distilbert --teacher bert`."""

import sys

from angels_share.start import run_squad_distill

if __name__ == "__main__":
    sys.exit(run_squad_distill())
