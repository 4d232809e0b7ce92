"""`run_pretrain_distill`: from a folder and a text file to a student that anybody can load."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tiny
import torch
import transformers
from disks import fill, small_disk

from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.flags import parse
from angels_share.tokenizing import load_tokenizer
from distil_trainer import pretrain
from distil_trainer.cli import PRETRAIN, with_preset
from distil_trainer.data.corpus import TokenSequences
from distil_trainer.models.families import FAMILIES
from distil_trainer.training import checkpoint, trainer


@pytest.fixture
def world(tmp_path):
    """A teacher's folder and a corpus of a few hundred lines of its language."""
    tiny.folder(tmp_path / "teacher", tiny.bert(layers=4), tiny.wordpiece())
    rng = np.random.default_rng(0)
    words = " ".join(tiny.LINES).split()
    lines = [" ".join(rng.choice(words, rng.integers(12, 30))) for _ in range(200)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    return tmp_path


def distil(world, *words, teacher="teacher", out="out"):
    """Run the command in this process and return its status."""
    teachers = [name if name == "none" else str(world / name) for name in teacher.split()]
    kept = ["--corpus_dir", str(world / "prepared"), "--validation_fraction", "0.1"]
    return run_command(
        PRETRAIN,
        [
            "--teacher", *teachers, "--corpus", str(world / "corpus.txt"),
            "--output_dir", str(world / out), *([] if "--stream_corpus" in words else kept),
            "--max_steps", "4", "--report_to", "none", "--use_cpu", "--disable_tqdm",
            "--save_steps", "2", *words,
        ],
    )  # fmt: skip


def record(world, out="out"):
    return json.loads((world / out / "distil.json").read_text())


def test_from_text_to_a_student(world, capsys):
    """Prevents an output folder that lacks what is needed to use, test or repeat the student."""
    assert distil(world) == 0
    student = transformers.AutoModelForMaskedLM.from_pretrained(world / "out")
    assert type(student).__name__ == "DistilBertForMaskedLM"
    assert student.config.n_layers == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "out")
    assert tokenizer.get_vocab() == tiny.wordpiece().get_vocab()
    written = record(world)
    assert written["status"] == "complete"
    assert written["recipe"]["alpha_ce"] == 5
    assert written["recipe"]["temperature"] == 2
    assert len(written["teachers"][0]["sha256"]) == 64
    assert written["corpus"]["fingerprint"]
    assert written["validation"]["eval_perplexity"] > 1
    assert written["versions"]["transformers"] == transformers.__version__
    printed = capsys.readouterr().out
    assert "corpus: 200 texts, 0 of them cut; trained on" in printed
    assert (
        written["corpus"]["train"]["sequences"] + written["corpus"]["validation"]["sequences"]
        == 200
    )
    last = printed.strip().splitlines()[-1]
    assert str(world / "out") in last
    assert "'eval_loss'" in printed
    assert "train_runtime" not in printed
    assert "2 layers x 32" in last
    assert "validation perplexity" in last


def test_the_corpus_is_prepared_once(world):
    """Prevents each student from paying again for the same text."""
    distil(world)
    (folder,) = [path for path in (world / "prepared").iterdir() if path.is_dir()]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    distil(world, out="again")
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_damaged_corpus_ends_the_run_and_the_next_one_rebuilds_it(world, capsys, workers):
    """Prevents another student under the same fingerprint, and a traceback out of a worker."""
    assert distil(world, out="whole") == 0
    arrow = next((world / "prepared").glob("*/train.arrow"))
    content = bytearray(arrow.read_bytes())
    middle = TokenSequences(arrow)[60]
    place = content.index(middle.tobytes())
    content[place : place + 8] = bytes(8)
    arrow.write_bytes(content)
    capsys.readouterr()
    assert distil(world, "--dataloader_num_workers", workers) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{arrow}: sequences 0 to 127 are damaged (its checksum is wrong); start again" in said
    assert distil(world) == 0
    weights = [(world / out / "model.safetensors").read_bytes() for out in ("whole", "out")]
    assert weights[0] == weights[1]


def test_a_full_disk_at_the_final_save(world, capsys, monkeypatch):
    """Fault 12: prevents a student with half of its files, which loads until it does not."""
    with small_disk(world / "out", "8m") as out:
        evaluate = pretrain.DistilTrainer.evaluate

        def evaluate_and_fill(self, *arguments, **named):
            fill(out, leave=40_000)
            return evaluate(self, *arguments, **named)

        monkeypatch.setattr(pretrain.DistilTrainer, "evaluate", evaluate_and_fill)
        assert distil(world) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{out}: the student could not be saved: the disk is full" in said
        left = {path.name for path in out.iterdir()}
        assert left == {"filler", "checkpoint-2", "checkpoint-4"}
        (out / "filler").unlink()
        monkeypatch.setattr(pretrain.DistilTrainer, "evaluate", evaluate)
        assert distil(world, "--resume_from_checkpoint", "latest") == 0
        assert record(world)["status"] == "complete"


def test_a_finished_student_is_not_overwritten(world, capsys):
    """Prevents the same command, typed again, from destroying what the first one made."""
    distil(world)
    before = (world / "out" / "model.safetensors").read_bytes()
    assert distil(world) == 2
    assert "holds a finished student" in capsys.readouterr().err
    assert (world / "out" / "model.safetensors").read_bytes() == before


def test_a_finished_student_has_nothing_to_resume(world, capsys):
    """Prevents a script that resumes whatever there is from failing when all of it is done."""
    distil(world)
    before = {path: path.stat().st_mtime_ns for path in (world / "out").rglob("*")}
    capsys.readouterr()
    assert distil(world, "--resume_from_checkpoint") == 0
    assert capsys.readouterr().out == f"{world}/out: complete, nothing to do\n"
    assert before == {path: path.stat().st_mtime_ns for path in (world / "out").rglob("*")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learning_rate", "0.5"], "of --learning_rate 0.0005, not 0.5; choose another"),
        (["--temperature", "3"], "of --temperature 2.0, not 3.0; choose another"),
    ],
)
def test_a_finished_student_of_other_settings_is_not_what_was_asked_for(world, capsys, words, said):
    """Prevents more steps, or another rate, that are taken for done and ignored."""
    distil(world)
    assert distil(world, "--resume_from_checkpoint", *words) == 2
    assert said in capsys.readouterr().err


def test_the_baseline_without_a_teacher(world):
    """Prevents the comparison that everybody asks for from being impossible."""
    config = world / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "distilbert", "vocab_size": 160, "n_layers": 1, "dim": 32,
                "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0,
            }
        )
    )  # fmt: skip
    words = ["--student", str(config), "--tokenizer", str(world / "teacher")]
    assert distil(world, *words, "--student_init", "random", teacher="none") == 0
    assert record(world)["teachers"] == []
    assert record(world)["recipe"]["alpha_ce"] == 0
    # And a student's folder can be trained on.
    assert distil(world, "--student", str(world / "out"), teacher="none", out="more") == 0


def test_ablations_make_one_student_each(world):
    """Prevents a row of Table 4 that can't be made."""
    assert distil(world, "--ablation", "all") == 0
    weights = {
        name: record(world, f"out/{name}")["recipe"]
        for name in ("none", "no-ce", "no-cos", "no-mlm", "random-init")
    }
    assert [weights["no-ce"][f"alpha_{term}"] for term in ("ce", "mlm", "cos")] == [0, 2, 1]
    assert [weights["no-cos"][f"alpha_{term}"] for term in ("ce", "mlm", "cos")] == [5, 2, 0]
    assert [weights["no-mlm"][f"alpha_{term}"] for term in ("ce", "mlm", "cos")] == [5, 0, 1]
    students = {name: record(world, f"out/{name}")["student"] for name in weights}
    assert students["random-init"]["asked_for"]["student_init"] == "random"
    assert students["random-init"]["layers_of_the_teacher"] is None
    assert students["none"]["layers_of_the_teacher"] == [0, 3]
    assert distil(world, "--ablation", "all", "--resume_from_checkpoint") == 0


def test_several_teachers(world):
    """Prevents an ensemble that the command can't name."""
    tiny.folder(world / "second", tiny.bert(layers=2, seed=3), tiny.wordpiece())
    assert distil(world, teacher="teacher second") == 0
    assert len(record(world)["teachers"]) == 2


def test_a_corpus_that_is_streamed(world, capsys):
    """Prevents a corpus larger than the disk from being impossible, or a resume from drifting."""
    assert distil(world, "--stream_corpus") == 0
    assert record(world)["corpus"] == {"streamed": ["corpus.txt"]}
    assert not (world / "prepared").exists()
    whole = (world / "out" / "model.safetensors").read_bytes()
    (world / "half").mkdir()
    (world / "out" / "checkpoint-2").rename(world / "half" / "checkpoint-2")
    assert distil(world, "--stream_corpus", "--resume_from_checkpoint", out="half") == 0
    assert (world / "half" / "model.safetensors").read_bytes() == whole
    assert distil(world, "--stream_corpus", "--max_steps", "-1", out="endless") == 2
    assert "--max_steps" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--stream_corpus",)], ids=["prepared", "streamed"])
def test_a_corpus_of_token_ids(world, capsys, words):
    """Prevents another student of the same tokens, and ids that nobody is told are unchecked."""
    assert distil(world, *words, out="of-text") == 0
    lines = (world / "corpus.txt").read_text().splitlines()
    ids = tiny.wordpiece()(lines)["input_ids"]
    table = pyarrow.table({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    pyarrow.parquet.write_table(table, world / "ids.parquet")
    capsys.readouterr()
    taken = (*words, "--pretokenized", "--corpus", str(world / "ids.parquet"))
    assert distil(world, *taken) == 0
    assert f"the first row begins '[CLS] {lines[0][:10]}" in capsys.readouterr().out
    assert record(world)["corpus"]["pretokenized"] is True
    students = [(world / out / "model.safetensors").read_bytes() for out in ("of-text", "out")]
    assert students[0] == students[1]
    assert distil(world, *taken, "--min_tokens", "5", out="other") == 2
    assert "--min_tokens is about texts; --pretokenized takes rows" in capsys.readouterr().err


def test_resuming_if_there_is_anything_to_resume(world, monkeypatch, capsys):
    """Prevents a job that is queued again, or that torchrun restarts, from needing another command.

    And an earlier run's checkpoints from being taken for those of a job that has just begun.
    """
    assert distil(world, "--resume_from_checkpoint", "auto") == 0
    whole = (world / "out" / "model.safetensors").read_bytes()
    assert distil(world, "--resume_from_checkpoint", "auto") == 0
    assert "complete, nothing to do" in capsys.readouterr().out
    for folder in ("half", "restarted"):
        (world / folder).mkdir()
        shutil.copytree(world / "out" / "checkpoint-2", world / folder / "checkpoint-2")
    assert distil(world, "--resume_from_checkpoint", "auto", out="half") == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert distil(world, out="restarted") == 2
    assert "holds checkpoints of an earlier run" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert distil(world, out="restarted") == 2  # what was refused is refused again
    assert "holds checkpoints of an earlier run" in capsys.readouterr().err
    checkpoint.note_begun(world / "restarted")  # as an accepted start does, before it is killed
    for _ in range(2):
        assert distil(world, out="restarted") == 0
    (world / "other").mkdir()
    (world / "other" / "checkpoint-best").mkdir()  # somebody else's
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert distil(world, "--resume_from_checkpoint", "auto", out="other") == 0
    assert list((world / "other" / ".begun").iterdir())
    # A later launch is none of the earlier one's restarts, though host and run have its names.
    (world / "later").mkdir()
    shutil.copytree(world / "out" / "checkpoint-2", world / "later" / "checkpoint-2")
    checkpoint.note_begun(world / "later")
    for count in "01":
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert distil(world, out="later") == 2
    assert (world / "other" / "model.safetensors").read_bytes() == whole
    for folder in ("half", "restarted"):
        assert (world / folder / "model.safetensors").read_bytes() == whole
        assert list(record(world, folder)["times"]) == ["training from step 2 on"]


def test_gpt2(world):
    """Prevents a causal teacher from being asked for masked words."""
    tiny.folder(world / "gpt", tiny.gpt2(layers=2), tiny.byte_bpe())
    assert distil(world, teacher="gpt") == 0
    recipe = record(world)["recipe"]
    assert (recipe["alpha_clm"], recipe["alpha_mlm"]) == (2, 0)
    assert "eval_loss_clm" in record(world)["validation"]


def test_interrupted_and_resumed(world, monkeypatch, capsys):
    """Fault 7: prevents a signal from ending a run without a word, or without its checkpoint."""
    train = pretrain.DistilTrainer.train

    def interrupted(self, **named):
        class Interrupt(transformers.TrainerCallback):
            def on_step_begin(self, args, state, control, **_):
                if state.global_step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

        self.add_callback(Interrupt())
        return train(self, **named)

    monkeypatch.setattr(pretrain.DistilTrainer, "train", interrupted)
    assert distil(world) == 143
    assert record(world)["status"] == "interrupted"
    assert "interrupted at step 3" in capsys.readouterr().out
    monkeypatch.setattr(pretrain.DistilTrainer, "train", train)
    assert distil(world, "--resume_from_checkpoint") == 0
    assert record(world)["status"] == "complete"
    whole = (world / "out" / "model.safetensors").read_bytes()
    assert distil(world, out="at-once") == 0
    assert (world / "at-once" / "model.safetensors").read_bytes() == whole


def test_permuted_ids_of_one_size(world, capsys):
    """Fault 16: prevents --tokenizer from being another vocabulary than the teacher's own."""
    other = tiny.wordpiece(lines=[line[::-1] for line in tiny.LINES])
    other.save_pretrained(world / "tokens")
    assert distil(world, "--tokenizer", str(world / "tokens")) == 2
    assert "the tokenizers differ" in capsys.readouterr().err


def test_a_vocabulary_that_is_too_small(world, capsys):
    """Prevents an index error from deep inside an embedding."""
    config = {"model_type": "distilbert", "vocab_size": 100, "n_layers": 1, "dim": 32, "n_heads": 2}
    (world / "config.json").write_text(json.dumps(config))
    words = ["--student", str(world / "config.json"), "--student_init", "random"]
    assert distil(world, *words, "--tokenizer", str(world / "teacher"), teacher="none") == 2
    assert "make vocab_size 160 or more" in capsys.readouterr().err


def test_a_student_of_another_width(world, monkeypatch, capsys):
    """Prevents L_cos between unequal widths, noticed only after the corpus was prepared."""
    config = {"model_type": "distilbert", "n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 32}
    (world / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    words = ["--student", str(world / "config.json"), "--student_init", "random"]
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "load_model", None)
        assert distil(world, *words) == 2
    assert "set alpha_cos to 0" in capsys.readouterr().err
    assert not (world / "prepared").exists()
    assert distil(world, *words, "--alpha_cos", "0") == 0
    assert transformers.AutoConfig.from_pretrained(world / "out").dim == 16


def narrow_config(world, **changes):
    """A student's config, narrower than the teacher and of half its depth."""
    config = {
        "model_type": "distilbert", "n_layers": 2, "dim": 16, "n_heads": 1, "hidden_dim": 24,
        "max_position_embeddings": 64, "dropout": 0.0, **changes,
    }  # fmt: skip
    (world / "config.json").write_text(json.dumps(config))
    return ["--student", str(world / "config.json"), "--alpha_cos", "0", "--alpha_rel", "1"]


def test_a_narrow_student_starts_from_its_teacher(world, capsys):
    """Prevents a narrow student that starts at random, or a record that doesn't say from what."""
    assert distil(world, *narrow_config(world), "--learning_rate", "1e-9") == 0
    written = record(world)["student"]
    assert written["layers_of_the_teacher"] == [0, 3]
    assert written["cut"]["from"] == {"width": 32, "heads": 2, "key_value_heads": 2, "ffn": 64}
    assert written["cut"]["to"] == {"width": 16, "heads": 1, "key_value_heads": 1, "ffn": 24}
    assert written["cut"]["sequences"] == record(world)["corpus"]["train"]["sequences"]
    student = transformers.AutoModelForMaskedLM.from_pretrained(world / "out")
    teacher = transformers.AutoModelForMaskedLM.from_pretrained(world / "teacher")
    assert student.config.dropout == 0.0  # the config's, which decides all but the weights
    words, all_words = (each.get_input_embeddings().weight for each in (student, teacher))
    kept = [
        next(k for k in range(32) if (all_words[:, k] - words[:, n]).abs().max() < 1e-5)
        for n in range(16)
    ]
    assert kept == sorted(set(kept))
    assert distil(world, *narrow_config(world), "--resume_from_checkpoint") == 0  # nothing to do
    more = ["--resume_from_checkpoint", "--student_layers", "0,1"]
    assert distil(world, *narrow_config(world), *more) == 2
    assert "holds a finished student of --student_layers None, not 0,1" in capsys.readouterr().err


def test_a_narrow_student_keeps_what_matters(world):
    """Prevents the least important parts from being kept: here most neurons are dead."""
    teacher = tiny.shaken(tiny.bert(layers=4, hidden=32))
    alive = list(range(1, 64, 3))
    with torch.no_grad():
        for layer in teacher.bert.encoder.layer:
            dead = [n for n in range(64) if n not in alive]
            layer.output.dense.weight[:, dead] = 0.0
    tiny.folder(world / "alive", teacher, tiny.wordpiece())
    words = narrow_config(world, dim=32, n_heads=2, hidden_dim=len(alive))
    assert distil(world, *words, "--learning_rate", "1e-9", teacher="alive") == 0
    student = transformers.AutoModelForMaskedLM.from_pretrained(world / "out")
    for place, layer in zip((0, 3), student.distilbert.transformer.layer, strict=True):
        expected = teacher.bert.encoder.layer[place].output.dense.weight[:, alive]
        torch.testing.assert_close(layer.ffn.lin2.weight, expected, rtol=0, atol=1e-6)


def test_what_a_config_leaves_out_is_the_teachers(tmp_path):
    """Prevents copied weights under other positions, norms, activations or sizes of heads."""
    from distil_trainer.training.narrowing import narrow_config, plan_narrow_student

    teacher = tiny.qwen3(num_attention_heads=4, num_key_value_heads=2, head_dim=16).config
    teacher.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen3", "hidden_size": 24, "attention_bias": False}))
    found = narrow_config(path, teacher)
    assert found.num_hidden_layers == 2
    assert (found.hidden_size, found.head_dim, found.num_key_value_heads) == (24, 16, 2)
    assert found.rope_parameters["rope_theta"] == 5e5
    plan_narrow_student(teacher, found, None)
    for given, said in (
        ({"tie_word_embeddings": not teacher.tie_word_embeddings}, "tie_word_embeddings"),
        ({"head_dim": 8}, "leave out what isn't a size"),
        ({"hiden_size": 24}, "did you mean 'hidden_size'"),
    ):
        path.write_text(json.dumps({"model_type": "qwen3", **given}))
        with pytest.raises(UserError, match=said):
            plan_narrow_student(teacher, narrow_config(path, teacher), None)


def test_a_config_of_the_teachers_width_gets_its_layers(world):
    """Prevents a config that needs no cut from being refused, or from getting random weights."""
    config = narrow_config(world, dim=32, n_heads=2, hidden_dim=64)
    assert distil(world, *config, "--student_layers", "0,2", "--learning_rate", "1e-9") == 0
    written = record(world)["student"]
    assert written["layers_of_the_teacher"] == [0, 2]
    assert "cut" not in written


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        ({"n_heads": 2}, [], "use 32 or 1 head with 16"),
        ({"dim": 64, "n_heads": 4}, [], "hidden size 64: the model has 32"),
        ({"max_position_embeddings": 32}, [], "maximum length in tokens of 32"),
        ({"n_layers": 5}, [], "5 layers: its teacher has 4"),
        ({}, ["--num_layers", "2"], "--num_layers 2 has no effect on --student"),
        ({}, ["--stream_corpus"], "drop --stream_corpus"),
        ({"model_type": "gpt2"}, [], "gpt2"),
    ],
)
def test_a_student_that_is_no_cut_of_its_teacher(world, monkeypatch, capsys, config, words, said):
    """Prevents a wait for weights and corpus before a size that can't be is refused."""
    if config.get("model_type") == "gpt2":
        (world / "config.json").write_text(json.dumps(config))
        words = ["--student", str(world / "config.json")]
    else:
        words = [*narrow_config(world, **config), *words]
    monkeypatch.setattr(pretrain, "load_model", None)
    assert distil(world, *words) == 2
    assert said in capsys.readouterr().err


def test_a_folder_has_its_own_weights(world, capsys):
    """Prevents flags for making a student from being ignored for one that exists."""
    assert distil(world) == 0
    for words in (
        ["--num_layers", "2"],
        ["--student_init", "random"],
        ["--ablation", "random-init"],
    ):
        assert distil(world, "--student", str(world / "out"), *words, out="again") == 2
        assert "has no effect on --student" in capsys.readouterr().err


def test_relations_and_the_divergence_from_the_command_line(world, capsys):
    """Prevents flags that never reach the loss, and heads that are refused after a preparation."""
    words = ["--alpha_rel", "2", "--relation_layer", "1", "--divergence", "reverse_kl"]
    assert distil(world, *words, "--relation_heads", "3") == 2
    assert "use one of 1, 2, 4, 8, 16, 32" in capsys.readouterr().err
    assert not (world / "prepared").exists()
    assert distil(world, *words, "--relation_heads", "8") == 0
    recipe = record(world)["recipe"]
    assert (recipe["alpha_rel"], recipe["relation_layer"], recipe["relation_heads"]) == (2, 1, 8)
    assert recipe["divergence"] == "reverse_kl"
    assert record(world)["validation"]["eval_loss_rel"] > 0


def test_a_figure_that_is_not_finite(world, monkeypatch, capsys):
    """Fault 8: prevents a student whose validation is NaN from being called complete."""
    nan = {"loss": float("nan"), "perplexity": 1.0}
    monkeypatch.setattr(trainer, "evaluation_metrics", lambda *_, **__: nan)
    assert distil(world) == 1
    assert "loss on the held-out text is not finite" in capsys.readouterr().err
    assert not (world / "out" / "distil.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--alpha_ce", "0", "--alpha_mlm", "0", "--alpha_cos", "0"], "all weights are 0"),
        (["--relation_layer", "1"], "set alpha_rel above 0"),
        (["--alpha_rel", "1", "--relation_layer", "4"], "use 0 to 3"),
        (["--divergence", "reverse_kl", "--alpha_ce", "0"], "alpha_ce is 0"),
        (["--alpha_clm", "1"], "a masked student has no such term"),
        (["--student_layers", "0,4"], "0..3"),
        (["--student_layers", "0;1"], "--student_layers 0;1"),
        (["--num_layers", "5"], "4"),
        (["--architecture", "gpt2"], "bert"),
        (["--student", "nowhere"], "nowhere"),
        (["--mask_scope", "exampel"], "did you mean 'example'?"),
        (["--corpus", "missing.txt"], "missing.txt"),
        (["--resume_from_checkpoint"], "holds no checkpoint"),
        (["--max_seq_length", "100"], "these models take at most 64 tokens"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_student(world, capsys, words, said):
    """Faults 15 and 16: prevents a traceback, or a run that starts with what can't work."""
    assert distil(world, *words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("run_pretrain_distill: ")
    assert said in message
    assert not (world / "out" / "model.safetensors").exists()


def test_what_configs_tell_is_told_before_weights_are_read(world, monkeypatch, capsys):
    """Fault 15: prevents a wait for gigabytes before 'layer 12 of 12' is refused."""
    monkeypatch.setattr(pretrain, "load_model", None)
    assert distil(world, "--student_layers", "0,4") == 2
    assert "0..3" in capsys.readouterr().err


def test_teachers_of_other_vocabularies(world, capsys):
    """Fault 16: prevents soft targets over ids that mean other words."""
    other = tiny.wordpiece(lines=[line[::-1] for line in tiny.LINES])
    assert other.get_vocab() != tiny.wordpiece().get_vocab()
    tiny.folder(world / "second", tiny.bert(layers=2, seed=3), other)
    assert distil(world, teacher="teacher second") == 2
    assert "the tokenizers differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": "x.Y"}}, "refers to custom code"),
        ("tokenizer_config.json", {"vocab_file": "../../.env"}, "points outside the folder"),
        ("config.json", {"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
    ],
)
def test_an_untrusted_folder(world, capsys, name, content, said):
    """Fault 18: prevents a downloaded folder from running code or reading files elsewhere."""
    file = world / "teacher" / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **content}))
    assert distil(world) == 2
    assert said in capsys.readouterr().err


def test_a_tokenizer_behind_a_link(world, tmp_path_factory):
    """Fault 18: prevents a link from making a file elsewhere a part of a model."""
    outside = tmp_path_factory.mktemp("outside") / "tokenizer.json"
    file = world / "teacher" / "tokenizer.json"
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(UserError, match="link to outside its folder"):
        load_tokenizer(str(world / "teacher"))


def test_a_preset_gives_way_to_what_is_said():
    """Prevents a preset from winning over the flag beside it, or from losing to a default."""
    words = ["--teacher", "bert", "--corpus", "x", "--output_dir", "o", "--preset", "paper"]
    words += ["--learning_rate", "1e-4", "--mask_scope", "token"]
    options = with_preset(parse(PRETRAIN.flags, words, takes_training_flags=True))
    assert options.training["learning_rate"] == 1e-4
    assert options.training["gradient_accumulation_steps"] == 50
    assert options.mask_scope == "token"
    assert options.freeze_pos_embs is True
    assert options.copy_head_transform is False


def test_a_bar_ends_with_a_line_for_people(world, capsys):
    """Prevents a dictionary of run times before the last line, and "1 layers", "1 steps"."""
    words = ("--disable_tqdm", "False", "--max_steps", "1", "--logging_steps", "1")
    assert distil(world, *words, "--num_layers", "1") == 0
    said = capsys.readouterr()
    assert "1/1 [" in said.err
    assert "'loss'" in said.out
    assert "train_runtime" not in said.out
    assert " of 1 layer x 32, " in said.out
    assert " parameters, 1 step; validation perplexity " in said.out


def json_config(name):
    """Return an architecture's small config as a user would write it."""
    return tiny.ARCHITECTURES[name](layers=6).config.to_diff_dict()


@pytest.mark.parametrize(
    "name", ["modernbert", "nomic_bert", "eurobert", "llama", "qwen2", "qwen3", "gemma3_text"]
)
def test_from_a_config_to_a_teacher_to_its_student(world, capsys, name):
    """Prevents an architecture that has a row, but that the command can't bring to a student."""
    made = world / name
    tiny.tokenizer_for(name).save_pretrained(made)
    (made / "config.json").write_text(json.dumps(json_config(name)))
    words = ["--student", str(made / "config.json"), "--student_init", "random"]
    assert distil(world, *words, teacher="none", out="first") == 0
    assert distil(world, teacher="first") == 0
    told = capsys.readouterr().out
    family = FAMILIES[name]
    plain = (
        transformers.AutoModelForCausalLM if family.causal else transformers.AutoModelForMaskedLM
    )
    teacher, student = (plain.from_pretrained(world / place) for place in ("first", "out"))
    layers = record(world)["student"]["layers_of_the_teacher"]
    assert family.shape(student.config).depth == len(layers) == 3
    if types := getattr(teacher.config, "layer_types", None):
        assert student.config.layer_types == [types[layer] for layer in layers]
    if len(set(types or ())) > 1:
        each = ", ".join(f"{layer} {types[layer]}" for layer in layers)
        assert f"student: the teacher's layers {each}\n" in told
    framed = "each sequence stands between <|endoftext|> and <|endoftext|>"
    assert (framed in told) is family.causal


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--freeze_pos_embs"], "--freeze_pos_embs: a modernbert has no table of positions"),
        (["--preset", "paper"], "not learned): set --freeze_pos_embs False"),
        (["--fold_token_types"], "fold_token_types: a modernbert has no table of positions"),
        (["--student_layers", "1,2"], "begins with its teacher's layer 0"),
        (["--architecture", "distilbert"], "modernbert teacher can't have a distilbert student"),
    ],
)
def test_what_a_modernbert_has_not_is_refused_before_weights_are_read(
    world, monkeypatch, capsys, words, said
):
    """Prevents a flag from being ignored where there is no table of positions."""
    tiny.folder(world / "modern", tiny.modernbert(), tiny.wordpiece())
    monkeypatch.setattr(pretrain, "load_model", None)
    assert distil(world, *words, teacher="modern") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (transformers.DebertaV2Config(), "not to guess hidden ones.*run_glue.py --teacher"),
        (transformers.Gemma2Config(), "scales or caps its logits"),
    ],
    ids=["deberta-v2", "gemma2"],
)
def test_teachers_that_no_language_model_can_be_learned_from(world, capsys, config, said):
    """Prevents a refusal that doesn't say why, or what to do instead."""
    tiny.folder(world / "other", tiny.bert(layers=1), tiny.wordpiece())
    config.save_pretrained(world / "other")
    assert distil(world, teacher="other") == 2
    errors = capsys.readouterr().err
    assert re.search(said, errors)
    assert errors.count("\n") == 1


def test_what_was_cut_before_stays_in_the_record(world):
    """Prevents a cut student that recovers from forgetting what it was cut from."""
    from distil_trainer.commands.prune import COMMAND

    rows = "\n".join(["text", *tiny.LINES])
    (world / "rows.tsv").write_text(rows)
    assert distil(world) == 0
    words = ["--ffn", "0.5", "--data", str(world / "rows.tsv"), "--output_dir", str(world / "cut")]
    assert run_command(COMMAND, [str(world / "out"), *words]) == 0
    assert distil(world, "--student", str(world / "cut"), out="again") == 0
    (step,) = record(world, "again")["lineage"]
    assert step["what"] == "prune"
    assert step["from"]["name"] == "out"
    assert record(world, "again")["status"] == "complete"


@pytest.mark.parametrize("words", [("--validation_fraction", "0.2"), ("--corpus_dir", "kept")])
def test_what_a_streamed_corpus_has_no_place_for(world, words, capsys):
    """Prevents a share held out, or a folder, that is given and never used."""
    assert distil(world, "--stream_corpus", *words) == 2
    assert f"{words[0]} has no effect with --stream_corpus" in capsys.readouterr().err


def test_a_streamed_corpus_holds_nothing_out_to_evaluate_on(world, capsys):
    """Prevents a traceback of transformers' where one line says what to drop."""
    assert distil(world, "--stream_corpus", "--eval_strategy", "steps") == 2
    assert "--eval_strategy: --stream_corpus holds no texts out" in capsys.readouterr().err


def test_padding_is_not_taken_for_text(world, capsys):
    """Prevents a student that learns to write padding, without a word about it."""
    rows = pyarrow.table({"input_ids": [[2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 3, 0, 0]]})
    pyarrow.parquet.write_table(rows, world / "ids.parquet")
    words = ["--pretokenized", "--corpus", str(world / "ids.parquet")]
    assert distil(world, *words) == 2
    assert "add a column attention_mask" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--pretokenized",)], ids=["text", "ids"])
def test_a_damaged_parquet_file_is_named(world, words, capsys):
    """Prevents a page that can't be read from being called a corpus that can't be written."""
    column = {"input_ids": [[2, *range(5, 40), 3]] * 99} if words else {"text": tiny.LINES * 99}
    path = world / "damaged.parquet"
    pyarrow.parquet.write_table(pyarrow.table(column), path)
    data = bytearray(path.read_bytes())
    data[10:60] = bytes(50)
    path.write_bytes(data)
    assert distil(world, *words, "--corpus", str(path)) == 2
    assert f"{path}: not a readable parquet file" in capsys.readouterr().err
