"""Distil: `python run_pretrain_distill.py --teacher bert --corpus my.txt --output_dir out`."""

import sys

from angels_share.start import run_pretrain_distill

if __name__ == "__main__":
    sys.exit(run_pretrain_distill())
