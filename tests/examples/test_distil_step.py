"""`python -m benchmarks.distil_step`: what it compares, its workers, its tables; no peer needed."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import distil_step, peers, setting, turns, worker
from benchmarks.variants import ours as our_variant
from benchmarks.variants import textbook

TINY = setting.SIZES["tiny", "cpu"]
BY_NAME = {variant.name: variant for variant in peers.VARIANTS}
PEER = peers.Variant("stranger", "Stranger", ("ce",), package="stranger==1.0")


class InProcess:
    """A worker's models without its process."""

    def __init__(self, name, **flags):
        settings = {"ragged": False, "restrict": False, **flags}
        self.worker = worker.Worker(BY_NAME[name], "tiny", "cpu", **settings)

    def ask(self, do, **arguments):
        return getattr(self.worker, do)(**arguments)


class Told:
    """A worker that answers what it was told to, or fails."""

    def __init__(self, name, journal, *, fails_at=None):
        self.name, self.journal, self.fails_at, self.asked, self.ended = (
            name, journal, fails_at, 0, False,
        )  # fmt: skip

    def ask(self, do):
        assert do == "step"
        self.asked += 1
        self.journal.append(self.name)
        if self.asked == self.fails_at:
            raise turns.VariantFailedError("out of memory")
        return {"seconds": self.asked}

    def end(self):
        self.ended = True


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """Peers' environments, empty; returns a function that gives one an interpreter."""
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)

    def interpreter(script):
        PEER.python.parent.mkdir(parents=True)
        PEER.python.write_text(f"#!/bin/sh\n{script}\n")
        PEER.python.chmod(0o755)

    return interpreter


def checked(name, case):
    processes = {each: InProcess(each) for each in ("ours", name)}
    return distil_step._compare(processes, BY_NAME[name], case)


@pytest.mark.parametrize("case", ["full", "ragged", "restricted"])
@pytest.mark.parametrize("name", ["textbook", "plain_trainer"])
def test_variants_compute_the_same(name, case, capsys):
    """Prevents a speed-up over what computes something else."""
    assert checked(name, case)
    shown = capsys.readouterr().out
    compared = name == "textbook" or case == "full"
    assert shown.rstrip().endswith("| ok |") == compared
    assert ("not compared: soft targets" in shown) == (not compared)


def test_another_weight_is_seen(monkeypatch, capsys):
    """Prevents a check that can't fail: here the soft targets weigh a thousandth more."""
    right = textbook._kl
    monkeypatch.setattr(textbook, "_kl", lambda *rest: right(*rest) * 1.001)
    assert not checked("textbook", "full")
    assert "DIFFERENT loss" in capsys.readouterr().out


def test_other_rows_are_seen(monkeypatch, capsys):
    """Prevents a check in which soft targets weigh so little that their rows don't matter."""
    right = textbook.loss
    monkeypatch.setattr(
        textbook, "loss", lambda *rest, restrict: right(*rest, restrict=not restrict)
    )
    assert not checked("textbook", "restricted")
    assert "DIFFERENT loss, norm" in capsys.readouterr().out


def test_other_weights_are_seen(capsys):
    """Prevents two libraries' versions that initialise differently from being compared."""
    processes = {each: InProcess(each) for each in ("ours", "textbook")}
    right = processes["textbook"].ask
    processes["textbook"].ask = lambda *rest, **named: {**right(*rest, **named), "weights": 1.0}
    assert not distil_step._compare(processes, BY_NAME["textbook"], "full")
    assert "DIFFERENT weights" in capsys.readouterr().out


def test_a_loss_that_is_no_number_is_seen(monkeypatch):
    """Prevents NaN from passing, as it is not above the tolerance."""
    monkeypatch.setattr(textbook, "_kl", lambda *_: torch.tensor(float("nan")))
    assert not checked("textbook", "full")


@pytest.mark.parametrize("name", ["ours", "textbook", "plain_trainer"])
def test_steps_train_the_student_alone(name, monkeypatch):
    """Prevents a timed step that does less than a step: each parameter must change."""
    pairs = []
    make_pair = setting.make_pair

    def kept(*arguments, **named):
        pairs.append(make_pair(*arguments, **named))
        return pairs[-1]

    monkeypatch.setattr(worker, "make_pair", kept)
    asked = InProcess(name, ragged=True)
    found = [asked.ask("step") for _ in range(2)]
    before = make_pair(TINY, BY_NAME[name].attention, "cpu")
    for one, other in zip(pairs[0].student.parameters(), before.student.parameters(), strict=True):
        assert not torch.equal(one, other)
    for one, other in zip(pairs[0].teacher.parameters(), before.teacher.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(0 < each["tokens"] <= each["padded"] and each["seconds"] > 0 for each in found)
    assert found[0]["tokens"] != found[1]["tokens"]  # each step is another batch


def test_operations_are_those_of_the_textbook():
    """Prevents a share of the rate that counts more products than the result needs."""
    lengths = setting.make_lengths(TINY, ragged=False)
    batch = setting.make_batch(TINY, lengths, range(TINY.sequences))
    pair = setting.make_pair(TINY, "eager", "cpu")
    with FlopCounterMode(display=False) as counter:
        textbook.loss(pair, batch, setting.Recipe(), restrict=False).backward()
    assert TINY.operations(batch.lengths, TINY.tokens) == counter.get_total_flops()


def test_every_batching_sees_the_same_sequences_once():
    """Prevents one variant from getting easier work than another."""
    lengths = setting.make_lengths(TINY, ragged=True)
    for batches in (setting.random_batches, setting.grouped_batches, our_variant.token_batches):
        numbers = np.concatenate(list(batches(TINY, lengths)))
        assert sorted(numbers.tolist()) == list(range(len(lengths)))
    alone, third = setting.make_batch(TINY, lengths, [7]), setting.make_batch(TINY, lengths, [1, 7])
    width = lengths[7]
    for one, other in zip(alone, third, strict=True):
        assert torch.equal(one[0, :width], other[1, :width])


def test_a_worker_answers_line_by_line():
    """Prevents a benchmark that waits for ever for an answer that was never written."""
    requests = io.StringIO('{"do": "add", "one": 1, "two": 2}\n{"do": "add", "one": 2, "two": 2}\n')
    answers = io.StringIO()
    adder = SimpleNamespace(add=lambda one, two: {"sum": one + two})
    worker.serve(adder, requests, answers)
    assert answers.getvalue() == '{"sum": 3}\n{"sum": 4}\n'


def test_a_peer_that_is_not_installed_is_skipped(environments):
    """Prevents one peer that can't be installed from hiding the others' results."""
    with turns.started([PEER], [], {}) as (processes, skipped, answers):
        assert not processes
        assert not answers
    assert skipped == {"stranger": "not installed: `make bench-peers` installs it"}


def test_a_peer_that_breaks_is_skipped_with_its_last_words(environments):
    """Prevents a traceback, or silence, where one line says why a peer is missing."""
    environments("echo 'Traceback' >&2; echo 'ModuleNotFoundError: No module' >&2; exit 1")
    with turns.started([PEER], [], {}) as (processes, skipped, _):
        assert not processes
    assert skipped == {"stranger": "ModuleNotFoundError: No module"}


def test_a_request_to_one_that_has_ended_names_the_reason(environments):
    """Prevents a broken pipe from being all that is said of a peer that ran out of memory."""
    environments("echo '{\"threads\": 1}'; echo 'MemoryError: 3 GB' >&2")
    process = turns.Process(PEER, [], {})
    try:
        assert process.answer() == {"threads": 1}
        process._process.wait(10)
        with pytest.raises(turns.VariantFailedError, match="MemoryError: 3 GB"):
            process.ask("step")
    finally:
        process.end()


def test_workers_get_the_allocator_s_settings_and_end(environments):
    """Prevents a run with memory kept that measures the allocator as it is; leaves no process."""
    environments(
        'printf \'{"kept": "%s", "flags": "%s"}\\n\' "$MALLOC_TOP_PAD_" "$*"; exec sleep 60'
    )
    settings = turns.KEPT_MEMORY
    with turns.started([PEER], ["mini", "cpu"], settings) as (processes, _, answers):
        child = processes["stranger"]._process
        assert answers["stranger"]["kept"] == settings["MALLOC_TOP_PAD_"]
        assert answers["stranger"]["flags"] == "-m benchmarks.worker stranger mini cpu"
    assert child.poll() is not None


def test_turns_alternate_and_a_failure_drops_one_variant():
    """Prevents the same one from always going first, and one failure from ending all."""
    journal, skipped = [], {}
    told = {name: Told(name, journal) for name in ("ours", "plain")}
    told["weak"] = weak = Told("weak", journal, fails_at=2)
    steps, rates = turns.take_turns(told, skipped, 2, lambda: float(len(journal)))
    assert journal[:6] == ["ours", "plain", "weak", "weak", "plain", "ours"]
    assert journal[6:] == ["ours", "plain", "plain", "ours"]
    assert skipped == {"weak": "out of memory"}
    assert weak.ended
    assert list(steps) == ["ours", "plain"]
    assert [each["seconds"] for each in steps["plain"]] == [1, 2, 3, 4]
    assert rates == [0.0, 3.0, 6.0, 8.0]


def test_without_ours_there_is_no_comparison():
    """Prevents a table of ratios to nothing."""
    with pytest.raises(turns.VariantFailedError, match="out of memory"):
        turns.take_turns({"ours": Told("ours", [], fails_at=1)}, {}, 1, lambda: 0.0)


def step(seconds, tokens=100, peak=5_000_000):
    return {"seconds": seconds, "tokens": tokens, "operations": 1e9, "peak": peak}


def test_the_table_is_of_ratios_within_turns():
    """Prevents a ratio of medians, which a neighbour's load in one turn would shift."""
    steps = {
        "ours": [step(9.0), step(9.0), step(1.0), step(2.0), step(4.0)],
        "plain_trainer": [step(50.0, peak=8_000_000), step(50.0), *map(step, (2.0, 10.0, 12.0))],
    }
    steps["plain_trainer"][3]["tokens"] = 200  # 10 s for 200 tokens: 2.5 times ours
    summary = distil_step.summarize(steps, [1e9, 5e8, 4e9])
    found = summary["plain_trainer"]
    assert found["over_ours"] == {"median": 2.5, "lowest": 2.0, "highest": 3.0}
    assert found["seconds_per_token"] == {"median": 0.05, "lowest": 0.02, "highest": 0.12}
    assert summary["ours"]["share_of_rate"] == 0.5
    versions = {"ours": {"torch": "2"}, "plain_trainer": {"torch": "2"}}
    lines = distil_step.table(summary, versions, {"modelopt": "no wheel"}, ragged=True).splitlines()
    assert lines[2] == "| ours |  | ce + mlm + cos | 1 | 20,000 | 5 | 50% |"
    assert lines[3].startswith("| a plain Trainer |  | ce + mlm, padding too | 2.50 (2.00 to 3.00)")
    assert lines[3].endswith("| 50,000 | 8 | 10% |")
    assert lines[4] == "skipped: NVIDIA ModelOpt: no wheel"


def test_every_variant_without_a_package_can_begin():
    """Prevents a variant that a flag asks for, and that is always skipped."""
    for name in [each.name for each in peers.VARIANTS if each.package is None]:
        assert len(next(InProcess(name).worker._numbers))
    options = SimpleNamespace(peers=False, restrict=False, compile=True)
    chosen, _ = distil_step.chosen_variants(options)
    assert [each.name for each in chosen] == ["ours", "compiled", "textbook", "plain_trainer"]


def test_what_cannot_restrict_is_left_out():
    """Prevents `--restrict` from comparing all soft targets with those of masked tokens."""
    options = SimpleNamespace(peers=True, restrict=True, compile=False)
    chosen, refused = distil_step.chosen_variants(options)
    assert [each.name for each in chosen] == ["ours", "textbook", "textbrewer", "modelopt"]
    assert set(refused) == {"plain_trainer", "torchdistill"}


def test_pip_s_reason_is_remembered(environments, monkeypatch, tmp_path):
    """Prevents half an environment from passing for a peer, and its reason from being lost."""
    monkeypatch.setattr(peers.venv, "create", lambda *_, **__: environments("exit 0"))
    commands = []

    def pip(command, **_):
        commands.append(command)
        failed = "stranger==1.0" in command and len(commands) < 3
        words = "WARNING: old\nERROR: No matching distribution found for stranger==1.0\n"
        return subprocess.CompletedProcess(command, int(failed), stderr=words)

    monkeypatch.setattr(peers.subprocess, "run", pip)
    reason = "pip: No matching distribution found for stranger==1.0"
    assert peers.install(PEER, "") == reason
    assert peers.why_absent(PEER) == reason
    monkeypatch.setattr(peers.venv, "create", lambda *_, **__: None)
    assert peers.install(PEER, "http://index") is None  # tried again, and this time it works
    assert peers.why_absent(PEER) is None
    assert commands[2][-2:] == ["--index-url", "http://index"]
    assert all(str(peers.ROOT / "constraints.txt") in command for command in commands)


@pytest.mark.slow
def test_the_command_measures_and_writes(run_script, tmp_path):
    """Prevents a benchmark that works in parts only: real processes, table and JSON."""
    flags = ["--size", "tiny", "--ragged", "--turns", "1", "--keep_memory"]
    file = tmp_path / "out.json"
    ended = run_script("-m", "benchmarks.distil_step", *flags, "--json", str(file), timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "| a plain Trainer |" in ended.stdout
    found = json.loads(file.read_text())
    assert set(found["variants"]) == {"ours", "textbook", "plain_trainer"}
    assert found["about"]["environment"]["MALLOC_TOP_PAD_"] == turns.KEPT_MEMORY["MALLOC_TOP_PAD_"]
    assert found["about"]["threads"] == int(found["about"]["environment"]["OMP_NUM_THREADS"])


@pytest.mark.slow
def test_the_check_runs_from_the_command_line(run_script):
    """Prevents a check that nobody can start."""
    ended = run_script("-m", "benchmarks.distil_step", "--check", timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert ended.stdout.count("| ok |") == 4


def test_nonsense_is_one_line(monkeypatch, capsys):
    """Prevents a traceback for a wrong flag."""
    for flags in (["--turns", "0"], ["--size", "tiny", "--device", "cuda"]):
        monkeypatch.setattr(sys, "argv", ["distil_step", *flags])
        with pytest.raises(SystemExit) as ended:
            distil_step.main()
        assert ended.value.code == 2
        assert "error:" in capsys.readouterr().err
