"""Runs per hour of a sweep: one worker of one thread, two of one thread, one of two threads.

    DISTIL_DATA=folder python -m benchmarks.sweep_rate

Each sweep does the same small runs (tiny-bert on all of WNLI) as `run_glue` does them: scheduler,
worker processes, leases and result files included. The workers' start is paid once and left out: of
N workers, the N earliest results aren't counted, and time begins with the last of those. If a slow
worker made none of them, its start is included in the rate.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from eval_harness.data.splits import load_task
from eval_harness.runs.models import identify
from eval_harness.runs.run import Run
from eval_harness.runs.settings import settings_of
from eval_harness.sweep.local_workers import LocalWorkers
from eval_harness.sweep.queue import Job
from eval_harness.sweep.scheduler import sweep
from eval_harness.tasks.lookup import task_named


def jobs_for(root: Path, count: int) -> list[Job]:
    task, folder = task_named("wnli"), root / "data" / "hub"
    data = load_task(task, folder, limit=None)
    settings = settings_of(task, {"learning_rate": 1e-4}, content=data.content, limit=None)
    model = identify(str(root / "models" / "tiny-bert"))
    return [Job(Run(model, task, seed, settings, data_dir=str(folder))) for seed in range(count)]


def rate(jobs: list[Job], workers: int, threads: int) -> tuple[float, float]:
    """Sweep; return runs per hour after the workers' start, and the seconds of the whole sweep."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        root, work = Path(folder), "eval_harness.training.runner:run_task"
        outcome = sweep(root, jobs, LocalWorkers(root, work, workers=workers, threads=threads))
        seconds = time.perf_counter() - started
        assert not outcome.failed, outcome.failed
        written = sorted(path.stat().st_mtime for path in Path(folder).glob("runs/**/seed-*.json"))
    begun = written[workers - 1]
    return 3600 * (len(written) - workers) / (written[-1] - begun), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=12, help="runs of each sweep [12]")
    parser.add_argument("--turns", type=int, default=2, help="sweeps of each kind [2]")
    arguments = parser.parse_args()
    root = os.environ.get("DISTIL_DATA")
    if not root:
        raise SystemExit("set DISTIL_DATA to a folder of real data")
    jobs = jobs_for(Path(root), arguments.runs)
    print(f"{arguments.runs} runs of tiny-bert on WNLI, load {os.getloadavg()[0]:.1f}")
    for turn in range(arguments.turns):
        rates = {}
        for workers, threads in ((1, 1), (2, 1), (1, 2)):
            rates[workers, threads], seconds = rate(jobs, workers, threads)
            print(
                f"turn {turn + 1}: {workers} worker(s) of {threads} thread(s): "
                f"{rates[workers, threads]:6.0f} runs/h, {seconds:.1f} s with the workers' start"
            )
        print(f"turn {turn + 1}: two of one thread / one of one: {rates[2, 1] / rates[1, 1]:.2f}")


if __name__ == "__main__":
    main()
