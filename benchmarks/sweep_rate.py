"""Runs per hour of a sweep: one worker of one thread, two of one thread, one of two threads.

    DISTIL_DATA=folder python -m benchmarks.sweep_rate

Each sweep does the same small runs (tiny-bert on WNLI, whole) through `run_glue`'s own sweep,
worker processes, claims and result files included. Their start is paid once and left out: of N
workers the N earliest results aren't counted, and time begins with the last of those. A worker that
was slow to start may not have made one of them; its start is then in the rate.
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
    """Runs an hour from the result that is the workers' number to the last; all the seconds."""
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
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    root = os.environ.get("DISTIL_DATA")
    if not root:
        raise SystemExit("DISTIL_DATA names no folder of real data")
    jobs = jobs_for(Path(root), arguments.runs)
    print(f"{arguments.runs} runs of tiny-bert on WNLI, load {os.getloadavg()[0]:.1f}")
    for turn in range(arguments.turns):
        found = {}
        for workers, threads in ((1, 1), (2, 1), (1, 2)):
            found[workers, threads], seconds = rate(jobs, workers, threads)
            print(
                f"turn {turn + 1}: {workers} worker(s) of {threads} thread(s): "
                f"{found[workers, threads]:6.0f} runs/h, {seconds:.1f} s with the start"
            )
        print(f"turn {turn + 1}: two of one thread / one of one: {found[2, 1] / found[1, 1]:.2f}")


if __name__ == "__main__":
    main()
