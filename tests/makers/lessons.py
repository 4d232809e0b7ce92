"""Tiny tasks of every kind, as the harness passes them to a trainer: rows, collator, models."""

import numpy as np
import tiny
import torch
import transformers

from eval_harness.training.encoding import Collator

HEADS = {"tokens": "TokenClassification", "questions": "QuestionAnswering"}
LENGTHS = (4, 21, 9, 30, 13, 6, 17, 25, 11, 8, 28, 15)
WIDTH = 32


class Rows:
    """A task's data set, drawn from a seed: ids, types, labels, and where an answer may be."""

    def __init__(self, kind, lengths=LENGTHS, seed=0):
        draw = np.random.default_rng(seed)
        self.lengths = np.array(lengths)
        self.examples = [self._example(kind, size, draw) for size in lengths]

    def _example(self, kind, size, draw):
        ids = np.array([2, *draw.integers(5, 160, size - 2), 3], dtype=np.int32)
        types = (np.arange(size) >= size // 2).astype(np.uint8)
        example = {"input_ids": ids, "token_type_ids": types}
        if kind == "classification":
            example["labels"] = draw.integers(0, 3)
        elif kind == "regression":
            example["labels"] = np.float32(draw.normal())
        elif kind == "tokens":
            example["labels"] = draw.integers(0, 3, size)
        else:
            example["answer_mask"] = types.astype(bool)
            example["answer_mask"][0] = True
            begin = int(draw.integers(size // 2, size))
            example["start_positions"] = begin
            example["end_positions"] = int(draw.integers(begin, size))
        return example

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


class TokenCollator(Collator):
    """Adds token labels, which the harness' collator does not support."""

    def __call__(self, examples):
        rows = [torch.as_tensor(example["labels"]) for example in examples]
        labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        bare = [{k: v for k, v in example.items() if k != "labels"} for example in examples]
        return {**super().__call__(bare), "labels": labels}


def collator_for(kind, width=None):
    return (TokenCollator if kind == "tokens" else Collator)(0, width)


def pair_for(kind, *, teacher_seed=0):
    head = HEADS.get(kind, "SequenceClassification")
    count = {"classification": 3, "regression": 1, "tokens": 3, "questions": 2}[kind]
    labels = {"num_labels": count}
    teacher = tiny.bert(
        2, model_class=getattr(transformers, f"BertFor{head}"), seed=teacher_seed, **labels
    )
    with torch.no_grad():  # confident, as a teacher is
        (teacher.qa_outputs if kind == "questions" else teacher.classifier).weight.mul_(30)
    student = tiny.distilbert(
        1, model_class=getattr(transformers, f"DistilBertFor{head}"), seed=1, **labels
    )
    return teacher, student


def saved_teacher(root, kind, **settings):
    folder = root / f"teacher-{kind}-{settings}"
    pair_for(kind, **settings)[0].save_pretrained(folder)
    return str(folder)
