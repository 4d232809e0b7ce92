"""Timing models: in turn, each in its own process, on inputs that are what they are said to be."""

import json
import os

import benches
import pytest
import tiny
import torch
import worlds
from benches import TINY, request, setup

from angels_share.cli import run_command
from angels_share.errors import RunFailed, UserError
from angels_share.flags import parse
from eval_harness.commands.speed import COMMAND as SPEED
from eval_harness.results.speed import find_speeds
from eval_harness.speed.bench import Bench, new_model, parameters_of
from eval_harness.speed.bench_process import BenchProcess
from eval_harness.speed.request import requests
from eval_harness.speed.session import timed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def test_models_take_turns_and_another_begins_each_time():
    """Prevents a machine that grows slower from making the later model the slower one."""
    calls = []
    names = ("a", "b", "c")
    session = timed(
        [request(name) for name in names], setup(), lambda each: benches.Quiet(each, calls)
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


class Varying(benches.Quiet):
    """Two batches in a pass, each pass slower than the one before; its threads had to wait."""

    def __init__(self, request, waited):
        super().__init__(request)
        self.passes, self.share = 0, waited

    def timed(self, threads, batch_size):
        self.passes += 1
        return [0.010 * self.passes, 0.030 * self.passes]

    def waited(self):
        return self.share


def test_what_is_made_of_times(monkeypatch):
    """Prevents one percentile under the name of another, and a median that is no middle.

    Also a busy machine that passes for a quiet one.
    """
    monkeypatch.setattr("os.getloadavg", lambda: (1.234, 9.0, 9.0))
    asked = setup(repeats=4, threads=(1,), batch_sizes=(1,))
    waits = {"a": 0.25, "b": 0.5, "c": None}
    session = timed([request(name) for name in waits], asked, lambda each: Varying(
        each, waits[each.name]))  # fmt: skip
    timing = session.models[0].timing(1)
    assert timing.passes == pytest.approx((0.04, 0.08, 0.12, 0.16))
    assert timing.seconds == pytest.approx(0.10)
    # Of 10, 20, 30, 30, 40, 60, 90 and 120 ms.
    assert (timing.p50, timing.p90, timing.p99) == pytest.approx((35, 99, 117.9))
    assert (session.load, session.waited) == (1.23, 0.5)
    quiet = timed([request()], asked, benches.Quiet)
    assert quiet.waited is None


def test_a_machine_without_a_name_is_no_other(monkeypatch):
    """Prevents two machines whose processors have no name from overwriting each other's times."""
    made = {**benches.PROVENANCE, "machine": {**benches.PROVENANCE["machine"], "processor": ""}}
    monkeypatch.setattr(benches, "PROVENANCE", made)
    keys = set()
    for host in ("one", "two"):
        monkeypatch.setattr("platform.node", lambda host=host: host)
        session = timed([request()], setup(), benches.Quiet)
        assert session.machine.processor.startswith("unknown processor ")
        keys.add(session.key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("end", "status", "how"),
    [(KeyboardInterrupt(), 130, "interrupted"), (SystemExit(143), 143, "terminated")],
)
def test_a_session_that_is_stopped(tmp_path, capsys, monkeypatch, end, status, how):
    """Prevents a promise that times are kept of which nothing is."""

    def stop(*_):
        raise end

    (tmp_path / "small.json").write_text(json.dumps(TINY))
    monkeypatch.setattr("eval_harness.commands.speed.timed", stop)
    words = ["--model", str(tmp_path / "small.json"), "--synthetic"]
    assert run_command(SPEED, [*words, "--results_dir", str(tmp_path)]) == status
    said = f"eval_harness speed: {how}; times of a part of a session are not kept\n"
    assert capsys.readouterr().err == said
    assert not find_speeds(tmp_path).sessions


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("Refusing", UserError, "^bert: is none of ours$"),
        ("Failing", RunFailed, "^bert: ValueError: a kernel is missing$"),
        ("Dying", RunFailed, r"^bert: its process was killed by signal 9 \(out of memory\?\)$"),
    ],
)
def test_what_happens_over_there_is_told_here(kind, error, said):
    """Prevents a session that hangs, or goes on without one of its models."""
    with pytest.raises(error, match=said):
        timed([request()], setup(), lambda each: BenchProcess(each, f"benches:{kind}"))


def test_every_model_has_its_own_process():
    """Prevents one model's memory from being counted as another's."""
    made = timed(
        [request("a"), request("b")], setup(), lambda each: BenchProcess(each, "benches:Quiet")
    )
    assert len({model.peak_bytes for model in made.models}) == 2  # their process ids


def test_batches_of_one_have_no_padding_and_larger_ones_are_of_like_lengths():
    """Prevents a time at batch size 1 that pays for padding, and pairs that aren't timed."""
    bench = Bench(request())
    shapes = {size: [tuple(batch["input_ids"].shape) for batch in batches]
              for size, batches in bench._batches.items()}  # fmt: skip
    assert shapes == {1: [(1, 5), (1, 9), (1, 7), (1, 9)], 2: [(2, 9), (2, 7)]}
    assert all(batch["attention_mask"].all() for batch in bench._batches[1])


@pytest.fixture
def runs(monkeypatch):
    """A bench, and what its model ran since: shape and number of threads of each."""
    before = torch.get_num_threads()
    bench, ran = Bench(request(batch_sizes=(1, 2, 3))), []
    bench._model.register_forward_pre_hook(
        lambda _model, _args, inputs: ran.append(
            (*inputs["input_ids"].shape, torch.get_num_threads())
        ),
        with_kwargs=True,
    )
    yield bench, ran
    torch.set_num_threads(before)


def test_a_pass_runs_the_model_on_every_batch(runs):
    """Prevents a time of nothing, or one of another number of threads than it is said to be."""
    bench, ran = runs
    seconds = bench.timed(2, 1)
    assert ran == [(1, 5, 2), (1, 9, 2), (1, 7, 2), (1, 9, 2)]
    assert len(seconds) == 4
    assert min(seconds) > 0
    ran.clear()
    assert len(bench.timed(1, 3)) == 2
    assert ran == [(3, 9, 1), (1, 5, 1)]


def test_every_shape_is_run_before_it_is_timed(runs):
    """Prevents a time with what a kernel does once for each shape."""
    bench, ran = runs
    bench.warm(2)
    assert sorted(ran) == [(1, 5, 2), (1, 5, 2), (1, 7, 2), (1, 9, 2), (2, 7, 2), (2, 9, 2),
                           (3, 9, 2)]  # fmt: skip


def test_the_share_that_threads_waited(runs, monkeypatch):
    """Prevents a neighbour that begins midway from going unnoticed."""
    bench, _ = runs
    bench._seconds = lambda batch: 0.5
    told = iter([1.0, 2.0, 2.0, 5.0])
    monkeypatch.setattr("eval_harness.speed.bench._seconds_waited", lambda: next(told))
    assert bench.waited() is None
    bench.timed(1, 1)  # 1 s of 2
    bench.timed(2, 1)  # 3 s of 2 by each of two threads
    assert bench.waited() == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_a_system_that_tells_nothing_of_waits(monkeypatch):
    """Prevents a failure where there is no /proc."""

    def no_folder(_):
        raise FileNotFoundError("/proc/self/task")

    monkeypatch.setattr("eval_harness.speed.bench.Path.iterdir", no_folder)
    bench = Bench(request())
    bench.timed(1, 1)
    assert bench.waited() is None


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux tells")
def test_the_peak_is_of_weights_and_a_pass():
    """Prevents a peak of what loading took, or of the libraries; one without the pass, or none.

    Tensors so large (77 MB between the layers) are given back to the system at once.
    """
    config = {**TINY, "hidden_size": 128, "intermediate_size": 150_000}
    weights = 4 * 150_000 * 128 * 2
    peak = Bench(request(config=config, lengths=[5, 64])).facts()["peak_bytes"]
    assert weights + 4 * 64 * 150_000 < peak < 2 * weights


def test_synthetic_ids_are_known_and_never_padding():
    """Prevents an index error, and positions that are counted by padding's id from standing still.

    RoBERTa counts them so.
    """
    config = {**TINY, "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 66}
    bench = Bench(request(config=config, lengths=[64] * 50, batch_sizes=(1,)))
    ids = torch.cat([batch["input_ids"] for batch in bench._batches[1]])
    assert 1 not in ids
    assert (ids.min(), ids.max()) == (0, 159)


def test_sizes_of_a_model_from_a_folder(world):
    """Prevents a head that is counted as the body's, and a file size of something else."""
    words = ["--model", str(world / "distilbert"), "--synthetic", "--max_seq_length", "32"]
    facts = Bench(request_of(words)).facts()
    model = tiny.distilbert(1)
    body = sum(weight.numel() for weight in model.distilbert.parameters())
    assert facts["parameters"] == body
    assert facts["with_head"] == body + 32 * 32 + 32 + 32 + 1
    assert facts["file_bytes"] == (world / "distilbert" / "model.safetensors").stat().st_size
    assert facts["file_dtype"] == "float32"


def test_the_size_of_weights_in_several_files(tmp_path):
    """Prevents the size of one shard, or 0 where shards have names of their own."""
    folder = tiny.folder(tmp_path / "sharded", tiny.bert(2), tiny.wordpiece())
    (folder / "model.safetensors").unlink()
    tiny.bert(2).save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    index = folder / "model.safetensors.index.json"
    text = index.read_text()
    for number, shard in enumerate(shards):
        text = text.replace(shard.name, f"part-{number}.safetensors")
        shards[number] = shard.rename(folder / f"part-{number}.safetensors")
    index.write_text(text)
    words = ["--model", str(folder), "--synthetic", "--max_seq_length", "32"]
    facts = Bench(request_of(words)).facts()
    assert facts["file_bytes"] == sum(shard.stat().st_size for shard in shards)


def test_the_type_is_that_of_the_file(tmp_path):
    """Prevents half the megabytes from passing for a smaller model: a float16 file of the same."""
    folder = tiny.folder(tmp_path / "half", tiny.bert(2).half(), tiny.wordpiece())
    words = ["--model", str(folder), "--synthetic", "--max_seq_length", "32"]
    facts = Bench(request_of(words)).facts()
    assert facts["file_dtype"] == "float16"
    words[1] = str(folder / "config.json")
    config = Bench(request_of(words)).facts()
    assert (config["file_bytes"], config["file_dtype"]) == (None, None)


@pytest.mark.parametrize(("kind", "millions"), [("bert", 109.48), ("distilbert", 66.36)])
def test_parameters_are_counted_as_the_paper_counts(kind, millions):
    """Prevents a count with heads, or without embeddings: the paper has 110 and 66."""
    with torch.device("meta"):
        model = new_model(request(config={"model_type": kind})).model
    assert parameters_of(model.base_model) == pytest.approx(millions * 1e6, rel=1e-4)


def test_weights_may_be_in_bfloat16():
    """Prevents a flag that is recorded and does nothing."""
    assert Bench(request(bf16=True))._model.dtype == torch.bfloat16
    assert Bench(request())._model.dtype == torch.float32


def request_of(words):
    """The first request of a command line."""
    return requests(parse(SPEED.flags, words, takes_training_flags=False))[0][0]


def test_the_command_times_models_and_prints_the_table(world, tmp_path, capsys):
    """Prevents a command whose parts fit nowhere: a real process, data of the task's own files."""
    words = ["--model", str(world / "bert"), "--data_dir", str(world / "glue"), "--pairs", "10"]
    words += ["--repeats", "2", "--threads", "1", "--batch_sizes", "4"]
    assert run_command(SPEED, [*words, "--results_dir", str(tmp_path)]) == 0
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
    ("config", "said"),
    [
        ({**TINY, "num_hiden_layers": 1}, "did you mean 'num_hidden_layers'?"),
        ({**TINY, "model_type": "brt"}, "unknown model_type 'brt'"),
        ({**TINY, "auto_map": {"AutoModel": "x.Y"}}, "refers to custom code"),
        ({**TINY, "hidden_size": 33}, "cannot build a model from its config"),
        ({**TINY, "hidden_size": "32"}, "cannot build a model from its config"),
        ({**TINY, "hidden_size": 0}, "cannot build a model from its config"),
        ({**TINY, "vocab_size": None}, "cannot build a model from its config"),
        ({**TINY, "vocab_size": 1}, "vocab_size 1: must be at least 2"),
        ({**TINY, "vocab_size": -1}, "vocab_size -1: must be at least 2"),
        ({**TINY, "pad_token_id": 500}, "pad_token_id 500: must be below vocab_size 160"),
        ({**TINY, "pad_token_id": -1}, "pad_token_id -1: must be below vocab_size 160"),
        ({**TINY, "num_hidden_layers": -1}, "num_hidden_layers -1: must be at least 1"),
        ({"model_type": "bart"}, "bart is an encoder-decoder"),
        ({"model_type": "t5"}, "t5 is an encoder-decoder"),
        ({"model_type": "clip"}, "cannot build a model from its config"),
    ],
)
def test_configs_that_are_refused(config, said):
    """Fault 18: prevents a config's code from being run, and a misspelt size from meaning 768."""
    with pytest.raises(UserError, match="bert: ") as refused:
        Bench(request(config=config))
    assert said in str(refused.value)


def test_pairs_that_a_model_cannot_read():
    """Prevents an index error from deep inside a model."""
    with pytest.raises(UserError, match="bert reads 64 tokens and a pair has 87: pass --max_seq"):
        Bench(request(lengths=[87]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    """Prevents times of a CPU that pass for a GPU's."""
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU here"):
        Bench(request(device="cuda"))
