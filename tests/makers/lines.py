"""Token sequences in memory, and a loader of masked batches of them."""

import numpy as np

from distil_trainer.data.batches import BatchPlan, EpochLoader, MaskingCollator
from distil_trainer.data.masking import Masker, MaskingOptions

VOCAB, PAD, MASK = 160, 0, 4


class Lines:
    """Token sequences in memory, each beginning with [CLS] and ending with [SEP]."""

    def __init__(self, lengths, seed=0):
        self.lengths = np.asarray(lengths)
        generator = np.random.default_rng(seed)
        self._rows = [generator.integers(5, VOCAB, n).astype(np.uint16) for n in lengths]
        for row in self._rows:
            row[0], row[-1] = 2, 3

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        return self._rows[index]


def lines(count=101, seed=0):
    return Lines(np.random.default_rng(seed).integers(3, 60, count), seed)


def masking(scope="example"):
    masker = Masker(
        MaskingOptions(scope=scope),
        seed=5,
        token_counts=np.ones(VOCAB),
        mask_id=MASK,
        special_ids=range(5),
    )
    return MaskingCollator(masker, PAD)


def loader(sequences=None, collate=None, **options):
    sequences = sequences or lines()
    plan = BatchPlan(sequences.lengths, tokens_per_batch=256, seed=3)
    return EpochLoader(sequences, plan, collate or masking(), **options)
