"""Timing models: in turn, each in its own process, on inputs that are what they are said to be."""

import collections
import json

import benches
import numpy as np
import pytest
import tiny
import torch
import worlds

from angels_share.cli import open_door
from angels_share.errors import RunFailed, UserError
from angels_share.tokenizing import load_tokenizer
from eval_harness import stsb_lengths
from eval_harness.data import load_task
from eval_harness.encoding import encode
from eval_harness.speed import timed
from eval_harness.speed_bench import Bench, _new, _parameters
from eval_harness.speed_door import SPEED_DOOR
from eval_harness.speed_orders import TASK, Order
from eval_harness.speed_remote import Remote
from eval_harness.speed_results import Setup, find_speeds

TINY = {
    "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
    "intermediate_size": 64, "vocab_size": 160, "max_position_embeddings": 64,
}  # fmt: skip


def order(name="bert", **more):
    given = {
        "key": f"{name}-00000000", "model": None, "config": TINY, "tokenizer": None, "texts": None,
        "lengths": [5, 9, 7, 9], "max_seq_length": 64, "batch_sizes": (1, 2), "device": "cpu",
        "bf16": False,
    }  # fmt: skip
    return Order(name, **{**given, **more})


def setup(**more):
    given = {
        "source": None, "content": None, "pairs": 4, "full": False, "repeats": 3, "seed": 1,
        "max_seq_length": 64, "threads": (1, 2), "batch_sizes": (1, 8), "dtype": "float32",
    }  # fmt: skip
    return Setup(**{**given, **more})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def test_models_take_turns_and_another_begins_each_time():
    """Prevents a machine that grows slower from making the later model the slower one."""
    calls = []
    names = ("a", "b", "c")
    session = timed(
        [order(name) for name in names], setup(), lambda each: benches.Quiet(each, calls)
    )
    passes = [call for call in calls if call[1:] == (2, 8)]
    assert "".join(name for name, *_ in passes) == "abcbcacab"
    at = calls.index(("a", 2, 1))
    assert calls[at - 3 : at] == [(name, "warm", 2) for name in names]
    assert sorted(calls[-3:]) == [(name, "closed") for name in names]
    assert [model.name for model in session.models] == list(names)
    timing = session.models[2].timing(2, 8)
    assert timing.passes == pytest.approx((0.064, 0.064, 0.064))
    assert timing.p99 == pytest.approx(16)  # ms of a batch


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("Refusing", UserError, "^bert: is none of ours$"),
        ("Failing", RunFailed, "^bert: ValueError: a kernel is missing$"),
        ("Dying", RunFailed, r"^bert: its process ended with status -9 \(out of memory\?\)$"),
    ],
)
def test_what_happens_over_there_is_told_here(kind, error, said):
    """Prevents a session that hangs, or goes on without one of its models."""
    with pytest.raises(error, match=said):
        timed([order()], setup(), lambda each: Remote(each, f"benches:{kind}"))


def test_every_model_has_its_own_process():
    """Prevents one model's memory from being counted as another's."""
    made = timed([order("a"), order("b")], setup(), lambda each: Remote(each, "benches:Quiet"))
    assert len({model.peak_bytes for model in made.models}) == 2  # their process ids


def test_batches_of_one_have_no_padding_and_larger_ones_are_of_like_lengths():
    """Prevents a time at batch size 1 that pays for padding, and pairs that aren't timed."""
    bench = Bench(order())
    shapes = {size: [tuple(batch["input_ids"].shape) for batch in batches]
              for size, batches in bench._batches.items()}  # fmt: skip
    assert shapes == {1: [(1, 5), (1, 9), (1, 7), (1, 9)], 2: [(2, 9), (2, 7)]}
    assert all(batch["attention_mask"].all() for batch in bench._batches[1])
    seconds = bench.timed(1, 2)
    assert len(seconds) == 2
    assert min(seconds) > 0


def test_synthetic_ids_are_known_and_never_padding():
    """Prevents an index error, and positions that are counted by padding's id from standing still.

    RoBERTa counts them so.
    """
    config = {**TINY, "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 66}
    bench = Bench(order(config=config, lengths=[64] * 50, batch_sizes=(1,)))
    ids = torch.cat([batch["input_ids"] for batch in bench._batches[1]])
    assert 1 not in ids
    assert (ids.min(), ids.max()) == (0, 159)


def test_sizes_of_a_model_from_a_folder(world):
    """Prevents a head that is counted as the body's, and a file size of something else."""
    words = ["--model", str(world / "distilbert"), "--synthetic", "--max_seq_length", "32"]
    facts = Bench(order_of(words)).facts()
    model = tiny.distilbert(1)
    body = sum(weight.numel() for weight in model.distilbert.parameters())
    assert facts["parameters"] == body
    assert facts["with_head"] == body + 32 * 32 + 32 + 32 + 1
    assert facts["file_bytes"] == (world / "distilbert" / "model.safetensors").stat().st_size
    assert facts["peak_bytes"] is None or facts["peak_bytes"] >= 0


@pytest.mark.parametrize(("kind", "millions"), [("bert", 109.48), ("distilbert", 66.36)])
def test_parameters_are_counted_as_the_paper_counts(kind, millions):
    """Prevents a count with heads, or without embeddings: the paper has 110 and 66."""
    with torch.device("meta"):
        model = _new(order(config={"model_type": kind})).model
    assert _parameters(model.base_model) == pytest.approx(millions * 1e6, rel=1e-4)


def test_weights_may_be_in_bfloat16():
    """Prevents a flag that is recorded and does nothing."""
    assert Bench(order(bf16=True))._model.dtype == torch.bfloat16
    assert Bench(order())._model.dtype == torch.float32


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


def order_of(words):
    """The first order of a command line."""
    from angels_share.flags import parse
    from eval_harness.speed_orders import orders

    return orders(parse(SPEED_DOOR.flags, words, takes_training_flags=False))[0][0]


def test_the_door_times_models_and_prints_the_table(world, tmp_path, capsys):
    """Prevents a command whose parts fit nowhere: a real process, data of the task's own files."""
    words = ["--model", str(world / "bert"), "--data_dir", str(world / "glue"), "--pairs", "10"]
    words += ["--repeats", "2", "--threads", "1", "--batch_sizes", "4"]
    assert open_door(SPEED_DOOR, [*words, "--results_dir", str(tmp_path)]) == 0
    (session,) = find_speeds(tmp_path).sessions
    assert (session.setup.source, session.setup.pairs) == ("STS-B", 10)
    (model,) = session.models
    assert model.name == "bert"
    assert not model.random_weights
    assert [(each.threads, each.batch_size) for each in model.timings] == [(1, 1), (1, 4)]
    captured = capsys.readouterr()
    assert "Table 3: size and speed" in captured.out
    assert f"{session.key}.json" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distlbert"], "did you mean 'distilbert'?"),
        (["bert", "--pairs", "5", "--full"], "--full is the whole dev set and --pairs a part"),
        (["CONFIG"], "a config has no tokenizer: add --synthetic"),
        (["BAD", "--synthetic"], 'it has no "model_type"'),
        (["CONFIG", "--synthetic", "--data_dir", "x"], "leave out --data_dir"),
        (["CONFIG", "--synthetic", "--pairs", "1501"], "STS-B's dev set has 1500"),
        (["CONFIG", "--synthetic", "--threads", "9999"], "this process may use"),
        (["FOLDER", "--data_dir", "nowhere"], "(--synthetic needs no data)"),
        (["bert", "--random_weights"], "(--synthetic needs no tokenizer)"),
        (["CONFIG", "--synthetic", "--device", "tpu"], "one of cpu, cuda is wanted"),
    ],
)
def test_mistakes_are_told_before_any_work(world, tmp_path, capsys, monkeypatch, words, said):
    """Prevents minutes of loading that end in what could have been said at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "small.json").write_text(json.dumps(TINY))
    (tmp_path / "bad.json").write_text("{}")
    stand_for = {"CONFIG": tmp_path / "small.json", "BAD": tmp_path / "bad.json",
                 "FOLDER": world / "bert"}  # fmt: skip
    given = [str(stand_for.get(word, word)) for word in words]
    status = open_door(SPEED_DOOR, ["--results_dir", str(tmp_path), "--model", *given])
    error = capsys.readouterr().err
    assert status == 2, error
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**TINY, "num_hiden_layers": 1}, "did you mean 'num_hidden_layers'?"),
        ({**TINY, "model_type": "brt"}, "unknown model_type 'brt'"),
        ({**TINY, "auto_map": {"AutoModel": "x.Y"}}, "names code of its own"),
        ({**TINY, "hidden_size": 33}, "no model can be made of its config"),
    ],
)
def test_configs_that_are_refused(config, said):
    """Fault 18: prevents a config's code from being run, and a misspelt size from meaning 768."""
    with pytest.raises(UserError, match="bert: ") as refused:
        Bench(order(config=config))
    assert said in str(refused.value)


def test_pairs_that_a_model_cannot_read():
    """Prevents an index error from deep inside a model."""
    with pytest.raises(UserError, match="bert reads 64 tokens and a pair has 87: --max_seq"):
        Bench(order(lengths=[87]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    """Prevents times of a CPU that pass for a GPU's."""
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU here"):
        Bench(order(device="cuda"))
