"""An exported file called as a model is: alone or in batches, with outputs as wide as the batch."""

from importlib.util import find_spec

import letters
import numpy as np
import pytest
import tagged
import tiny
import torch
import transformers
import worlds

from angels_share.errors import UserError
from angels_share.flags import parse
from eval_harness.commands import glue, squad
from eval_harness.sweep.plan import jobs, plan
from eval_harness.tasks.lookup import task_named
from eval_harness.training.onnx_model import OnnxModel
from eval_harness.training.runner import run_task

with_onnx = pytest.mark.skipif(
    None in map(find_spec, ("onnxruntime", "onnxscript")),
    reason="the extra `export` is not installed",
)

WIDTH = 6


class Session:
    """In place of a file: what it was run on, and outputs that tell the example."""

    def __init__(self, **outputs):
        self.outputs, self.ran = outputs, []

    def run(self, batch):
        self.ran.append(tuple(batch["input_ids"].shape))
        ids = batch["input_ids"].numpy().astype(np.float32)
        return {name: make(ids) for name, make in self.outputs.items()}


def batch():
    ids = torch.arange(1, 2 * WIDTH + 1).reshape(2, WIDTH)
    mask = torch.ones_like(ids)
    mask[1, 2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_each_example_is_computed_alone():
    """Prevents one scale for a whole batch, and logits of a text that read its padding."""
    session = Session(logits=lambda ids: ids.sum(axis=1, keepdims=True).repeat(2, axis=1))
    model = OnnxModel(session, None, read_alone=True)
    assert model(**batch()).logits.tolist() == [[21, 21], [15, 15]]
    assert session.ran == [(1, 6), (1, 2)]


def test_a_value_for_every_token_is_as_wide_as_the_batch():
    """Prevents two classes of a text of two tokens from being taken for its tokens."""
    session = Session(logits=lambda ids: np.stack([ids, -ids], axis=-1), start_logits=np.copy)
    found = OnnxModel(session, None, read_alone=True)(**batch())
    assert found.logits.shape == (2, WIDTH, 2)
    assert found.logits[1, :, 1].tolist() == [-7, -8, 0, 0, 0, 0]
    assert found.start_logits.tolist()[1] == [7, 8, 0, 0, 0, 0]


def test_a_batch_may_be_one_call():
    """Prevents a float32 file that is read a text at a time for nothing."""
    session = Session(logits=lambda ids: ids[:, :2])
    OnnxModel(session, None, read_alone=False)(**batch())
    assert session.ran == [(2, WIDTH)]


def results_of(command, folder, file, *words):
    """What the model in a folder answers as it is, and what a file beside it does."""
    answers = []
    for name in (folder, folder / "onnx" / file):
        argv = ["--model", str(name), "--eval_only", *map(str, words)]
        given = parse(command.COMMAND.flags, argv, takes_training_flags=True)
        (job,) = jobs(plan(command.experiment(given)))
        answers.append(run_task(job.run, lambda _share: None))
    return answers


def exported_to(folder, model, tokenizer=None):
    import exported

    tiny.folder(folder, tiny.shaken(model), tokenizer or tiny.wordpiece(worlds.WORDS))
    return exported.onnx_files(folder, model)


@with_onnx
def test_tags_are_the_models(tmp_path):
    """Prevents tags that are read at the padding's place, or one token off."""
    tagged.folder(tmp_path / "data")
    names = dict(enumerate(task_named("conll2003").labels))
    model = tiny.bert(
        layers=1, model_class=transformers.BertForTokenClassification, id2label=names,
        label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    model.config.finetuning_task = "conll2003"
    folder = exported_to(tmp_path / "tags", model)
    words = ("--tasks", "conll2003", "--data_dir", tmp_path / "data", "--results_dir", tmp_path,
             "--max_seq_length", 64)  # fmt: skip
    (torch_result, torchs), (result, files) = results_of(glue, folder, "model.onnx", *words)
    assert files.tags == torchs.tags
    assert result.scores == torch_result.scores
    assert len({tag for sentence in files.tags for tag in sentence}) > 1
    _, (int8, _) = results_of(glue, folder, "model_quantized.onnx", *words)
    assert int8.settings.row["one_by_one"] is True


@pytest.mark.slow
@with_onnx
def test_answers_are_the_models(tmp_path):
    """Prevents an end that is taken for a start; and a classifier's file judged on questions."""
    worlds.squad_files(tmp_path / "squad")
    model = tiny.bert(layers=1, model_class=transformers.BertForQuestionAnswering)
    folder = exported_to(tmp_path / "questions", model)
    words = ("--validation_file", tmp_path / "squad" / "dev.json", "--results_dir", tmp_path,
             "--max_seq_length", 24, "--doc_stride", 4, "--max_query_length", 8)  # fmt: skip
    (_, torchs), (_, files) = results_of(squad, folder, "model.onnx", *words)
    assert files.texts == torchs.texts
    assert len(set(files.texts)) > 1
    _, (_, int8) = results_of(squad, folder, "model_quantized.onnx", *words)
    assert len(int8.texts) == len(files.texts)
    other = tiny.bert(layers=1, model_class=transformers.BertForSequenceClassification)
    (folder / "onnx" / "model.onnx").unlink()
    exported_to(tmp_path / "other", other)
    (tmp_path / "other" / "onnx" / "model.onnx").rename(folder / "onnx" / "model.onnx")
    with pytest.raises(UserError, match=r"gives logits, and SQuAD.* needs start_logits and end"):
        results_of(squad, folder, "model.onnx", *words)


@pytest.mark.slow
@with_onnx
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_perplexities_are_the_models(tmp_path, kind):
    """Prevents a perplexity of other tokens than those that are hidden or come next."""
    letters.folder(tmp_path / "data", train=2, validation=1, test=1)
    lines = [row for row in letters.split(6) if row.strip()]
    make, tokenizer = (
        (tiny.gpt2, tiny.byte_bpe(lines)) if kind == "gpt2" else (tiny.bert, tiny.wordpiece(lines))
    )
    folder = exported_to(tmp_path / kind, make(layers=1), tokenizer)
    words = ("--tasks", "wikitext-2-raw", "--data_dir", tmp_path / "data", "--results_dir",
             tmp_path)  # fmt: skip
    (_, torchs), (_, files) = results_of(glue, folder, "model.onnx", *words)
    assert files.nll == pytest.approx(torchs.nll, rel=1e-5)
    assert files.tokens.tolist() == torchs.tokens.tolist()
