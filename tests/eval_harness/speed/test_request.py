"""What `speed` is asked for: which models under which names, and what they read."""

import collections
import json
import shutil

import numpy as np
import pytest
import worlds

from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.flags import parse
from angels_share.tokenizing import load_tokenizer
from eval_harness.commands.speed import COMMAND as SPEED
from eval_harness.data import stsb_lengths
from eval_harness.data.splits import load_task
from eval_harness.speed.request import TASK, requests
from eval_harness.training.encoding import encode

TINY = {
    "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
    "intermediate_size": 64, "vocab_size": 160, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def test_lengths_are_those_of_the_dev_set():
    """Prevents synthetic pairs that are shorter than the real ones, or other ones each time."""
    every = stsb_lengths.lengths(None, 1)
    assert (len(every), min(every), max(every)) == (1500, 11, 87)
    assert np.mean(every) == pytest.approx(31.47, abs=0.005)
    drawn = stsb_lengths.lengths(200, 1)
    assert drawn == stsb_lengths.lengths(200, 1) != stsb_lengths.lengths(200, 2)
    assert not collections.Counter(drawn) - collections.Counter(every)


def test_lengths_by_the_data_itself(real_data):
    """Prevents a histogram of some other data."""
    (dev,) = load_task(TASK, real_data / "data" / "hub").evaluation
    rows = encode(dev, load_tokenizer(str(real_data / "models" / "minilm-l6")), 512)
    assert sorted(rows.lengths.tolist()) == sorted(stsb_lengths.lengths(None, 1))


def asked(words):
    """Orders and setup of a command line."""
    return requests(parse(SPEED.flags, words, takes_training_flags=False))


def test_what_is_read_is_drawn_from_all(world):
    """Prevents the first so many pairs, which are of one source, or pairs of one length."""
    one, setup_of = asked(["--model", "bert", "--random_weights", "--synthetic"])
    assert one[0].lengths == stsb_lengths.lengths(200, 1)
    assert len(set(one[0].lengths)) > 30
    assert (setup_of.pairs, setup_of.batch_sizes) == (200, (1, 8, 32))
    words = ["--model", str(world / "bert"), "--data_dir", str(world / "glue")]
    every = asked([*words, "--full"])[0][0].texts
    (dev,) = load_task(TASK, world / "glue").evaluation
    assert every.texts == dev.texts
    (some, *_), setup_of = asked([*words, "--pairs", "10"])
    assert len(set(some.texts.ids)) == 10
    assert some.texts.ids != every.ids[:10]
    pairs = list(zip(*some.texts.texts, strict=True))
    assert pairs == [(dev.texts[0][int(n)], dev.texts[1][int(n)]) for n in some.texts.ids]
    assert setup_of.batch_sizes == (1, 8)  # 32 are not there


def test_a_batch_that_is_not_there(world):
    """Prevents the throughput of a batch of 10 under the name of 32."""
    words = ["--model", "bert", "--random_weights", "--synthetic", "--pairs", "10"]
    with pytest.raises(UserError, match="--batch_sizes 32: a pass has only 10 pairs: omit it"):
        asked([*words, "--batch_sizes", "8", "32"])


def test_only_the_dev_set_is_read(world, tmp_path):
    """Prevents a training file, torn or gone, which nobody reads here, from stopping a session."""
    shutil.copytree(world / "glue" / "STS-B", tmp_path / "STS-B")
    words = ["--model", str(world / "bert"), "--data_dir"]
    whole = asked([*words, str(world / "glue")])[1]
    (tmp_path / "STS-B" / "train.tsv").write_bytes(b"\xff")
    assert asked([*words, str(tmp_path)])[1] == whole
    (tmp_path / "STS-B" / "train.tsv").unlink()
    assert asked([*words, str(tmp_path)])[1] == whole
    lines = (tmp_path / "STS-B" / "dev.tsv").read_text().replace("angels", "barrels")
    (tmp_path / "STS-B" / "dev.tsv").write_text(lines)
    assert asked([*words, str(tmp_path)])[1].content != whole.content


def test_models_of_one_name_are_told_apart(tmp_path, monkeypatch):
    """Prevents rows that can't be told apart, and a model that is timed twice."""
    for folder, layers in (("a", 1), ("b", 2)):
        (tmp_path / folder / "student").mkdir(parents=True)
        text = json.dumps({**TINY, "num_hidden_layers": layers})
        (tmp_path / folder / "config.json").write_text(text)
        (tmp_path / folder / "student" / "config.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    words = ["a/config.json", "b/config.json", "./a/config.json", "a/student", "b/student"]
    found, _ = asked(["--random_weights", "--synthetic", "--model", *words])
    names = [each.name for each in found]
    assert names[:2] == ["a/config", "b/config"]
    assert names[2:] == [f"student {each.key.removeprefix('student-')}" for each in found[2:]]
    assert len(set(names)) == 4
    (tmp_path / "a" / "student").rename(tmp_path / "a" / "none")
    (only,), _ = asked(["--random_weights", "--synthetic", "--model", "a/none"])
    assert only.name == "a/none"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distlbert"], "did you mean 'distilbert'?"),
        (["bert", "--pairs", "5", "--full"], "--full is the whole dev set and --pairs a part"),
        (["CONFIG"], "a config has no tokenizer: add --synthetic"),
        (["BAD", "--synthetic"], 'it has no "model_type"'),
        (["NAN", "--synthetic"], "is not valid JSON"),
        (["DEEP", "--synthetic"], "is not valid JSON"),
        (["CONFIG", "--synthetic", "--data_dir", "x"], "leave out --data_dir"),
        (["CONFIG", "--synthetic", "--pairs", "1501"], "STS-B's dev set has 1500"),
        (["CONFIG", "--synthetic", "--threads", "9999"], "this process may use"),
        (["FOLDER", "--data_dir", "nowhere"], "(--synthetic needs no data)"),
        (["bert", "--random_weights"], "(--synthetic needs no tokenizer)"),
        (["CONFIG", "--synthetic", "--device", "tpu"], "expected one of cpu, cuda"),
    ],
)
def test_mistakes_are_told_before_any_work(world, tmp_path, capsys, monkeypatch, words, said):
    """Prevents minutes of loading that end in what could have been said at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "small.json").write_text(json.dumps(TINY))
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "nan.json").write_text('{"model_type": "bert", "layer_norm_eps": NaN}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    stand_for = {"FOLDER": world / "bert", "CONFIG": tmp_path / "small.json"}
    stand_for.update((name.upper(), tmp_path / f"{name}.json") for name in ("bad", "nan", "deep"))
    given = [str(stand_for.get(word, word)) for word in words]
    status = run_command(SPEED, ["--results_dir", str(tmp_path), "--model", *given])
    error = capsys.readouterr().err
    assert status == 2, error
    assert said in error
    assert error.count("\n") == 1
