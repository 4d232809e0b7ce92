"""Saved models: a card beside each, and lines of Python that really load it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import worlds

from angels_share.cli import run_command
from angels_share.sealed_folder import is_whole, require_unchanged
from eval_harness.commands import carry_out, glue, squad

SMALL = [
    "--learning_rate", "3e-3", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
    "--threads", "1", "--save_models", "best",
]  # fmt: skip
OWN_TEXT = "\r\nTried by Ann: it knows its barrels.\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def pasted(text):
    """Run lines as somebody would who pastes them into Python; return what they print."""
    ended = subprocess.run(
        [sys.executable, "-"], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def saved_by(printed):
    """Return what is said of each saved model, and the lines of Python with its folder in them."""
    listed = re.findall(r"^saved: (.*)\n    (/.*)$", printed, flags=re.MULTILINE)
    _, _, after = printed.partition("This loads ")
    code = after.partition("\n\n")[2].partition("This loads ")[0]
    (shown,) = {folder for _, folder in listed if json.dumps(folder) in code}
    return [(said, code.replace(json.dumps(shown), json.dumps(folder))) for said, folder in listed]


def folder_in(code):
    return Path(re.search(r'"(/[^"]+/seed-\d+)"', code)[1])


@pytest.mark.slow
def test_models_for_texts_are_loaded_by_the_lines_that_are_printed(world, tmp_path, capsys):
    """Prevents lines that fail when pasted, and a saved folder without its card or its labels.

    Of two texts, and of a regression; what people wrote into a card outlives the next command, and
    a new fine-tuning as well.
    """
    words = [
        "--model", str(world / "distilbert"), "--tasks", "rte", "stsb", "--num_seeds", "2",
        "--data_dir", str(world / "glue"), "--results_dir", str(tmp_path / "results"),
        "--max_seq_length", "32", *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    (said, code), (said_too, code_too) = saved_by(capsys.readouterr().out)
    seed = rf"the model of seed \d \({NUMBER}\), the seed nearest the median {NUMBER} of 2"
    assert re.fullmatch(f"distilbert on RTE: {seed}", said)
    assert re.fullmatch(f"distilbert on STS-B: {seed}", said_too)
    assert "entailment" in pasted(code)
    assert "'label': 'score'" in pasted(code_too)

    folder = folder_in(code)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    assert "# distilbert-rte\n" in text
    assert re.search(rf"\| RTE \(local files\) \| accuracy \| 2 \| {NUMBER}", text)
    assert '"text-classification", model="."' in text
    assert str(tmp_path) not in text
    with card.open("a", encoding="utf-8", newline="") as file:
        file.write(OWN_TEXT)
    assert run_command(glue.COMMAND, [*words, "--rerun", "always"]) == 0
    assert card.read_bytes().decode().endswith(OWN_TEXT)
    assert "## How it was fine-tuned" in card.read_text(encoding="utf-8")
    assert is_whole(folder)
    require_unchanged(folder)


def test_a_damaged_card_is_named_and_left_alone(world, tmp_path, capsys):
    """Prevents a card whose markers somebody broke from failing the command, or being lost.

    A model that is made again for its folder alone is named, since that takes time.
    """
    words = [
        "--model", str(world / "distilbert"), "--tasks", "rte", "--num_seeds", "1",
        "--data_dir", str(world / "glue"), "--results_dir", str(tmp_path / "results"),
        "--max_seq_length", "32", *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 0
    ((said, code),) = saved_by(capsys.readouterr().out)
    assert said.endswith(", the only seed")
    card = folder_in(code) / "README.md"
    broken = card.read_text(encoding="utf-8").replace("<!-- angels-share: end -->", "")
    card.write_text(broken, encoding="utf-8")
    assert run_command(glue.COMMAND, words) == 0
    said = capsys.readouterr().err
    assert said.startswith("run_glue: the run has its result\n")
    assert "distilbert on RTE, seed 1: its saved model gets no card" in said
    assert card.read_text(encoding="utf-8") == broken
    shutil.rmtree(tmp_path / "results" / "models")
    assert run_command(glue.COMMAND, words) == 0
    assert capsys.readouterr().err.startswith(
        "run_glue: the run has its result\n"
        "run_glue: fine-tuned again, since the model is to be saved: distilbert on RTE, seed 1\n"
    )
    assert is_whole(card.parent)


def test_a_model_for_questions_is_loaded_by_the_lines_that_are_printed(world, tmp_path, capsys):
    """Prevents a pipeline that transformers has no more; a teacher's model has a card as well."""
    words = [
        "--model", str(world / "distilbert"), "--teacher", str(world / "bert"),
        "--train_file", str(world / "squad" / "train.json"), "--num_seeds", "1",
        "--validation_file", str(world / "squad" / "dev.json"),
        "--results_dir", str(tmp_path / "results"), "--max_seq_length", "24", "--doc_stride", "4",
        "--max_query_length", "8", *SMALL,
    ]  # fmt: skip
    assert run_command(squad.COMMAND, words) == 0
    ((said, code),) = saved_by(capsys.readouterr().out)
    assert said.startswith("distilbert (distil) on SQuAD: the model of seed 1 (")
    assert pasted(code)
    cards = sorted((tmp_path / "results").glob("models/*/squad/*/*/README.md"))
    titles = [re.search(r"^# (.*)$", card.read_text(encoding="utf-8"), re.M)[1] for card in cards]
    assert titles == ["bert-squad", "distilbert-distilled-squad"]


NUMBER = r"-?\d+\.\d"


@pytest.mark.slow
def test_an_interrupted_command_leaves_no_model_that_nobody_chose(world, tmp_path, capsys):
    """Prevents models of seeds that are not the best from staying for ever after a Ctrl-C.

    A model that was saved on purpose, by `all`, stays.
    """
    words = [
        "--model", str(world / "distilbert"), "--tasks", "rte", "--results_dir",
        str(tmp_path / "results"), "--data_dir", str(world / "glue"), "--max_seq_length", "32",
        *SMALL,
    ]  # fmt: skip
    assert run_command(glue.COMMAND, [*words, "--seeds", "9", "--save_models", "all"]) == 0
    ((_, kept),) = saved_by(capsys.readouterr().out) or ((None, None),)
    # As if it had been interrupted after two of its three seeds, before it knew the best.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carry_out, "_keep_the_best", lambda *_: ([], ()))
        assert run_command(glue.COMMAND, [*words, "--seeds", "1", "2"]) == 0
    models = {path.parent.name for path in (tmp_path / "results").rglob("model.safetensors")}
    assert models == {"seed-1", "seed-2", "seed-9"}
    assert run_command(glue.COMMAND, [*words, "--seeds", "1", "2", "3"]) == 0
    ((_, code),) = saved_by(capsys.readouterr().out)
    models = {path.parent for path in (tmp_path / "results").rglob("model.safetensors")}
    assert models == {folder_in(code), folder_in(kept)}
    assert not list((tmp_path / "results").rglob("*.candidate"))
