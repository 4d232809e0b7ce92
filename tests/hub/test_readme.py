"""README: what it says to type is typed, in an empty folder, with a Hub of the test's own."""

import os
import random
import re
import subprocess
import sys

import pytest
import tiny
import worlds
from on_the_hub import BERT, DISTILBERT, data_files, model_files
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"}


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def lines_of(word):
    """Return README's commands that begin with a word, without their comments."""
    lines = [
        line.partition("  #")[0].strip() for block in blocks("") for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith(word)]


def test_the_first_page_is_short():
    """Prevents the first page from growing until a newcomer's first command is at its end."""
    assert len(README.split()) < 520
    before, _, _ = README.partition("```")
    assert before.count("\n- **") == 3
    assert before.count("![") == 1
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) <= 14
    assert len(lines_of("make")) == 2


@pytest.fixture
def typed(server, tmp_path):
    """A newcomer's shell: an empty folder with a text, the scripts, and a Hub with small models."""
    words = tiny.wordpiece(worlds.WORDS)
    long = {"max_position_embeddings": 512}
    server.add(BERT, model_files(tmp_path / "b", tiny.bert(2, **long), words))
    server.add(DISTILBERT, model_files(tmp_path / "d", tiny.distilbert(1, **long), words))
    server.add("nyu-mll/glue", data_files(tmp_path / "g", "rte", "mrpc"), what="dataset")
    folder = tmp_path / "here"
    folder.mkdir()
    draw = random.Random(1)
    texts = [" ".join(draw.choices(worlds.WORDS, k=20)) for _ in range(300)]
    (folder / "my.txt").write_text("\n".join(texts))
    for script in ROOT.glob("run_*.py"):
        (folder / script.name).symlink_to(script)
    environment = {**os.environ, **server.environment(tmp_path / "home"), **SHORT, "HF_TOKEN": ""}

    def typed(line):
        words = line.split() if isinstance(line, str) else line
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True,
            text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return typed


@pytest.mark.slow
def test_everything_in_it_runs(typed):
    """Prevents a README of which a word, a flag or a line of Python fails when it is typed."""
    distil, evaluate, compare = lines_of("python run") + lines_of("python -m eval_harness")
    typed(distil)
    table = typed(evaluate)
    assert "| my-distil" in table
    assert table.count("saved: ") == 4
    loading = table.partition("This loads one, such as ")[2].partition("\n")[2]
    assert "entailment" in typed(["python", "-c", loading])
    compared = typed(compare)
    assert "my-distil compared with bert" in compared
    (code,) = blocks("python")
    assert "my-student compared with bert" in typed(["python", "-c", code])
    # The command that names what is reproduced, in the text.
    (reproduces,) = re.findall(r"`(python run_glue\.py[^`]*)`", " ".join(README.split()))
    assert "| distilbert" in typed(f"{reproduces} --tasks rte --num_seeds 1")
