"""Tiny models with the files that `distil_trainer export` makes beside them."""

import tiny
import transformers
import worlds

from distil_trainer.smaller.onnx_file import FLOAT32, INT8, write_float32, write_int8

RTE = ("entailment", "not_entailment")


def onnx_files(folder, model):
    """Write both files beside a saved model."""
    write_float32(model, folder / FLOAT32)
    write_int8(folder / FLOAT32, folder / INT8)
    return folder


def classifier(folder, labels=RTE):
    """Save a classifier of RTE, untrained, as one that was fine-tuned on it, with its files."""
    names = dict(enumerate(labels))
    model = tiny.bert(
        layers=1, model_class=transformers.BertForSequenceClassification, id2label=names,
        label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    model.config.finetuning_task = "rte"
    tiny.folder(folder, tiny.shaken(model), tiny.wordpiece(worlds.WORDS))
    return onnx_files(folder, model)
