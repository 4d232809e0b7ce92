"""Helpers for the tests of sweeps: run one here or in another process, read its outcome."""

import json
import subprocess
import sys

import pytest
from work_for_sweeps import WORK, notes

from eval_harness.api import evaluate
from eval_harness.results.store import find
from eval_harness.sweep import scheduler
from eval_harness.sweep.local_workers import LocalWorkers


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Runs that other processes hold are tried again often."""
    monkeypatch.setattr(scheduler, "_POLL_SECONDS", 0.05)


def sweep(root, jobs, *, work=WORK, rerun="missing", **workers):
    """Runs a sweep with local workers."""
    executor = LocalWorkers(root, work, **workers)
    return scheduler.sweep(root, jobs, executor, rerun=rerun)


def seeds(runs):
    return sorted(one.seed for one in runs)


def reasons(outcome):
    return {failure.run.seed: failure.reason for failure in outcome.failed}


def numbers(folder):
    return sorted(note["seed"] for note in notes(folder))


def when_written(monkeypatch, part, do):
    """Calls `do` as soon as the sweep writes a line with `part`; returns all lines."""
    lines = []

    def write_line(text):
        lines.append(text)
        if part in text:
            do()

    monkeypatch.setattr(scheduler, "write_line", write_line)
    return lines


def evaluated(world, root, *, epochs=2, **given):
    """Sweeps six real runs, two of them teachers'; returns results and weights, to the last bit."""
    evaluate(
        world / "distilbert", ["rte", "cola"], seeds=2, teacher=world / "bert",
        data_dir=world / "glue", results_dir=root, save_models="all", threads=1,
        learning_rate=3e-3, num_train_epochs=epochs, per_device_train_batch_size=8,
        max_seq_length=32, **given,
    )  # fmt: skip
    found = find(root)
    assert found.invalid == ()
    scores = {
        key: (result.score, result.scores, result.predictions["sha256"])
        for key, result in found.by_key.items()
    }
    weights = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.glob("models/**/*.safetensors")
    }
    assert (len(scores), len(weights)) == (6, 6)
    return scores, weights


SWEEP = """
import json, os, signal, sys
from pathlib import Path
from work_for_sweeps import job
from sweeps import sweep
from eval_harness.sweep import scheduler
scheduler._POLL_SECONDS = 0.05
PRELUDE = None
if __name__ == "__main__":
    exec(PRELUDE)
    root, count, workers, do = sys.argv[1:]
    tasks = ("rte", "cola", "sst2", "mrpc")
    jobs = [job(tasks[n % 4], n, **json.loads(do)) for n in range(int(count))]
    out = sweep(Path(root), jobs, workers=int(workers))
    assert not out.failed, out.failed
    print(len(out.done), len(out.skipped))
"""


def another_sweep(tmp_path, count, workers, prelude="", **do):
    """A sweep in a process and process group of its own, like one on another machine."""
    script = tmp_path / "sweep_elsewhere.py"
    script.write_text(SWEEP.replace("None", repr(prelude)))
    words = [sys.executable, script, tmp_path, str(count), str(workers), json.dumps(do)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
