"""Evaluation without training, and perplexity's flags: what is in the key, what is refused."""

import json

import letters
import pytest
import tiny
import transformers
import worlds

from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.flags import parse
from eval_harness.commands import glue
from eval_harness.commands.tasks import COMMAND as TASKS_COMMAND
from eval_harness.sweep.plan import jobs, plan
from eval_harness.tasks.lookup import task_named


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = worlds.make(tmp_path_factory.mktemp("world"))
    letters.folder(root / "data", train=6, validation=2, test=2)
    lines = [row for row in letters.split(6) if row.strip()]
    tiny.folder(root / "gpt2", tiny.gpt2(layers=1), tiny.byte_bpe(lines))
    with_a_head = tiny.bert(layers=1, model_class=transformers.BertForSequenceClassification)
    tiny.folder(root / "classifier", with_a_head, tiny.wordpiece(lines))
    tiny.folder(root / "bert-mlm", tiny.bert(layers=1), tiny.wordpiece(lines))
    return root


def planned(world, results, *words, model="gpt2", task="wikitext-2-raw"):
    argv = ["--model", str(world / model), "--data_dir", str(world / "data"), "--results_dir",
            str(results), "--tasks", task, *words]  # fmt: skip
    return plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True)))


def settings(*args, **more):
    (job,) = jobs(planned(*args, "--num_seeds", "1", **more))
    return job.run.settings


def as_it_is(*args, **more):
    (job,) = jobs(planned(*args, "--eval_only", **more))
    return job.run


def test_evaluation_alone_is_a_setting_of_its_own(world, tmp_path):
    """Prevents one key for results with and without training, and keys that hang on rates."""
    run, tuned = as_it_is(world, tmp_path), settings(world, tmp_path)
    assert run.settings.row["eval_only"] is True
    assert "eval_only" not in tuned.row  # so that no earlier result has another key
    assert run.settings.hash != tuned.hash
    assert run.settings.task["values"] == {
        "context": 64, "stride": 64, "scoring": "next token",
        "begin_token": "<|endoftext|>", "bf16": False,
    }  # fmt: skip
    assert tuned.task["values"]["learning_rate"] == 5e-5
    assert "max_seq_length" not in tuned.task["values"]
    assert run.seeds == (1,)


@pytest.mark.parametrize("words", [["--context", "32"], ["--stride", "9"], ["--limit", "1"]])
def test_what_changes_the_number_changes_the_key(world, tmp_path, words):
    """Prevents two windows' perplexities under one key."""
    assert as_it_is(world, tmp_path, *words).key != as_it_is(world, tmp_path).key


def test_a_masked_model_is_scored_otherwise(world, tmp_path):
    """Prevents a pseudo-perplexity whose settings pass for a perplexity's."""
    values = as_it_is(world, tmp_path, model="bert-mlm").settings.task["values"]
    assert values["scoring"].startswith("pseudo")
    assert (values["context"], values["stride"], values["begin_token"]) == (64, 62, None)


REFUSED = [
    (["--context", "65"], "gpt2", "--context 65: gpt2 reads 64 tokens at most"),
    (["--context", "32", "--stride", "33"], "gpt2", "--stride 33: tokens would be left out"),
    (["--stride", "65"], "gpt2", "--stride 65: tokens would be left out"),
    (["--context", "2"], "bert-mlm", "--context 2: 2 of them are special tokens"),
    (["--max_seq_length", "32"], "gpt2", "--max_seq_length: none of these tasks has it"),
    (["--num_seeds", "2", "--eval_only"], "gpt2", "--num_seeds is not accepted with --eval_only"),
    (["--seeds", "1", "2", "--eval_only"], "gpt2", "--seeds is not accepted with --eval_only"),
    (["--save_models", "all", "--eval_only"], "gpt2", "--save_models is not accepted"),
    (["--choose", "best", "--eval_only"], "gpt2", "--choose is not accepted with --eval_only"),
    (["--learning_rate", "1", "--eval_only"], "gpt2", "--learning_rate is for training"),
    (["--teacher", "gpt2"], "gpt2", "on which run_pretrain_distill.py distils"),
    (["--eval_only"], "classifier", "has no language model's head .*ForSequenceClassification"),
    ([], "classifier", "has no language model's head .*ForSequenceClassification"),
]


@pytest.mark.parametrize(("words", "model", "message"), REFUSED)
def test_what_is_refused(world, tmp_path, words, model, message):
    """Prevents a flag that is ignored, and a model whose head would be random."""
    with pytest.raises(UserError, match=message):
        planned(world, tmp_path, *words, model=model)


def test_lengths_go_to_the_tasks_that_have_them():
    """Prevents a classifier under another key because a text beside it has a context."""
    argv = ["--model", "m", "--tasks", "rte", "wikitext-2", "--context", "32",
            "--max_seq_length", "16"]  # fmt: skip
    found = glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True))
    assert found.given_for(task_named("rte")) == {"max_seq_length": 16}
    assert found.given_for(task_named("wikitext-2")) == {"context": 32}


def test_a_classifier_must_have_been_tuned_on_the_task(world, tmp_path):
    """Prevents a random head from being judged as if it had learned something."""
    argv = ["--model", str(world / "distilbert"), "--data_dir", str(world / "glue"),
            "--results_dir", str(tmp_path), "--tasks", "rte", "--eval_only"]  # fmt: skip
    with pytest.raises(UserError, match="has no head that was fine-tuned on RTE"):
        plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True)))


def test_from_the_command_line(world, tmp_path, capsys):
    """Prevents flags that work from Python alone, a table that isn't printed, work done twice."""
    words = ["--model", str(world / "gpt2"), "--data_dir", str(world / "data"), "--results_dir",
             str(tmp_path), "--tasks", "wikitext-2-raw", "--eval_only", "--workers",
             "1"]  # fmt: skip
    assert run_command(glue.COMMAND, [*words, "--dry_run"]) == 0
    assert "evaluation alone, of 4 examples in all" in capsys.readouterr().out
    assert run_command(glue.COMMAND, words) == 0
    printed = capsys.readouterr()
    assert "WikiText-2 raw test" in printed.out
    assert "context 64, stride 64: as much as fits at a time" in printed.err
    (path,) = tmp_path.glob("runs/*/wikitext-2-raw/*/seed-1.json")
    saved = json.loads(path.read_text())
    assert saved["settings"]["row"]["eval_only"] is True
    assert saved["history"] == []
    assert run_command(glue.COMMAND, words) == 0
    assert "the run has its result" in capsys.readouterr().err


def test_a_begin_token_may_lack(world, tmp_path):
    """Prevents a first token that is judged after nothing."""
    lines = [row for row in letters.split(2) if row.strip()]
    tokenizer = tiny.byte_bpe(lines)
    tokenizer.bos_token = None
    model = tiny.gpt2(layers=1)
    model.config.bos_token_id = 50256  # GPT-2's default, which this vocabulary has not
    tiny.folder(tmp_path / "bare", model, tokenizer)
    values = as_it_is(world, tmp_path, model=str(tmp_path / "bare")).settings.task["values"]
    assert values["begin_token"] is None


def test_tasks_lists_texts(capsys):
    """Prevents a list that calls a higher perplexity the better one."""
    assert run_command(TASKS_COMMAND, []) == 0
    text = capsys.readouterr().out
    of_text = text[text.index("wikitext-2-raw") :]
    assert "score: token_perplexity, lower is better" in of_text
    assert "context 1024, stride 512" in of_text
    assert "Salesforce/wikitext, wikitext-103-v1" in of_text
