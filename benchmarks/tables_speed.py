"""CPU time of `python -m eval_harness tables` over many results, imports included.

    python -m benchmarks.tables_speed
    python -m benchmarks.tables_speed --results 10000 --rounds 3

The results are those of made-up models, nine tasks and five seeds each, in `publish`'s format, with
four predictions and twenty losses; none has a teacher, so no interval is computed. The files are in
the page cache when they are read: this measures the CPU, not the disk.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval_harness.results.predictions import ClassPredictions
from eval_harness.results.record import TaskResult, to_text
from eval_harness.results.store import path_of, publish
from eval_harness.runs.run import Model, Settings
from eval_harness.runs.settings import FINE_TUNING
from eval_harness.tasks.registry import GLUE

ROOT = Path(__file__).parent.parent
SEEDS = (11, 22, 33, 44, 55)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=int, default=10_000, help="results [10,000]")
    parser.add_argument("--rounds", type=int, default=3, help="measurements [3]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(ROOT / "results" / "reference", root / "reference")
        write_results(root, arguments.results)
        rounds = [tables(root) for _ in range(arguments.rounds)]
    cpu, wall = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{arguments.results:,} results, {os.cpu_count()} cores, medians of {len(rounds)}")
    print(f"tables          {cpu:12.2f} s of CPU, {wall:.2f} s elapsed")


def tables(root: Path) -> tuple[float, float]:
    """Run the command in a fresh process; return its CPU and elapsed seconds."""
    before, start = cpu_of_children(), time.perf_counter()
    command = [sys.executable, "-m", "eval_harness", "tables", "--results_dir", str(root)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return cpu_of_children() - before, time.perf_counter() - start


def cpu_of_children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_results(root: Path, count: int) -> None:
    """Write results as `publish` does, but without a flush to the disk for each.

    One is published, and its predictions are those of the others.
    """
    sample = make_result(0, GLUE[0], SEEDS[0])
    publish(root, sample, make_predictions())
    written = path_of(root, sample.key)
    template = json.loads(written.read_text())
    data = written.with_name(template["predictions"]["name"]).read_bytes()
    shutil.rmtree(root / "runs")
    for number in range(count):
        model, rest = divmod(number, len(GLUE) * len(SEEDS))
        result = make_result(model, GLUE[rest // len(SEEDS)], SEEDS[rest % len(SEEDS)])
        path = path_of(root, result.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        predictions = path.with_name(
            template["predictions"]["name"].replace(written.stem, path.stem)
        )
        predictions.write_bytes(data)
        named = {**template["predictions"], "name": predictions.name}
        path.write_text(to_text(replace(result, predictions=named)))


def make_result(number: int, task: str, seed: int) -> TaskResult:
    """Return the result of a made-up model."""
    score = 0.5 + (number * 7 + seed) % 40 / 100
    row = {
        "recipe": 1,
        "overrides": {},
        "limit": None,
        "dtype": "float32",
        "choose": "last",
        "method": None,
    }
    own = {
        "version": 1,
        "labels": ["no", "yes"],
        "measures": ["accuracy"],
        "columns": ["sentence"],
        "data": f"{task:0<16}",
        "values": dict(FINE_TUNING),
        "inputs": {},
    }
    return TaskResult(
        model=Model(f"model-{number}", f"model-{number}", f"{number:08x}", f"models/{number}"),
        task=task,
        seed=seed,
        settings=Settings(row, own),
        score=score,
        scores={"validation": {"accuracy": score, "score": score}},
        marks=[],
        data={"source": "nyu-mll/glue", "revision": "0" * 40, "content": own["data"]},
        provenance={
            "version": "0.1.0",
            "commit": "0" * 40,
            "libraries": {"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6"},
            "threads": 1,
            "device": "cpu",
            "seeds": list(SEEDS),
        },
        times={"total": 60.5, "train": 50.25, "evaluate": 3.5},
        history=[{"step": step, "loss": 0.6931471805599453} for step in range(20)],
        finished="2026-01-01T00:00:00+00:00",
    )


def make_predictions() -> ClassPredictions:
    labels = np.zeros(4, dtype=np.int64)
    return ClassPredictions(["validation"] * 4, list("0123"), labels, np.zeros((4, 2), np.float32))


if __name__ == "__main__":
    main()
