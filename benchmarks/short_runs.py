"""A sweep of short runs against a script that is started for each of them.

    DISTIL_DATA=folder python -m benchmarks.short_runs
    DISTIL_DATA=folder python -m benchmarks.short_runs --script transformers/.../run_glue.py

Ten seeds of tiny-bert on 320 examples of MRPC, one epoch: `run_glue.py --seeds ...` with as many
threads in all, and the same seeds one process each of a script that uses the stock Trainer,
`benchmarks/plain_glue.py` or transformers' own, padding to a batch's longest text. Data, start,
evaluation and result files are included; nothing is saved of the models' training. With `--workers
2` both do two runs at a time, each with half of the threads.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from angels_share.hardware import cores, limit_spinning
from benchmarks import machine
from eval_harness.data.splits import load_task
from eval_harness.tasks.lookup import task_named

ROOT = Path(__file__).parent.parent
AS_OURS = (
    *("--weight_decay", "0.01", "--warmup_steps", "0.1", "--save_strategy", "no"),
    *("--per_device_eval_batch_size", "64"),
)
"""What our commands do by themselves, and scripts with the stock Trainer don't."""


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--script", help="run_glue.py of transformers [benchmarks/plain_glue.py]")
    parser.add_argument("--model", help="model folder [tiny-bert of DISTIL_DATA]")
    parser.add_argument("--runs", type=int, default=10, help="seeds [10]")
    parser.add_argument("--limit", type=int, default=320, help="examples of each split [320]")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, of both [1]")
    parser.add_argument("--turns", type=int, default=3, help="of both [3]")
    options = parser.parse_args()
    root = real_data()
    model = str(Path(options.model or root / "models" / "tiny-bert").resolve())
    script = [str(Path(options.script or ROOT / "benchmarks" / "plain_glue.py").resolve())]
    print(f"{machine.describe('cpu')}; {options.runs} runs of {Path(model).name}, {script[0]}")
    with tempfile.TemporaryDirectory() as scratch:
        files = write_files(Path(scratch), root / "data" / "hub", options.limit)
        times: dict[str, list[float]] = {"a process each": [], "run_glue.py --seeds": []}
        for turn in range(options.turns):
            seeds = [str(100 * turn + number) for number in range(1, options.runs + 1)]
            out = Path(scratch) / f"turn-{turn}"
            each = [alone(script, model, files, seed, out / seed) for seed in seeds]
            threads = str(max(1, cores() // options.workers))
            took = seconds(
                each,
                Path(script[0]).parent,  # where `evaluate` finds metrics without a network
                at_a_time=options.workers,
                OMP_NUM_THREADS=threads,
                HF_DATASETS_CACHE=str(out / "cache"),
            )
            times["a process each"].append(took)
            ours = together(model, seeds, root, options.workers, options.limit, out / "results")
            times["run_glue.py --seeds"].append(seconds([ours], ROOT))
    ours = statistics.median(times["run_glue.py --seeds"])
    for name, found in times.items():
        median = statistics.median(found)
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:20} {median:7.1f} s ({spread}), {median / ours:.2f} of ours")


def write_files(folder: Path, data_dir: Path, limit: int) -> dict[str, str]:
    """Write the limited splits as csv, the way that a script without our readers takes them."""
    task = task_named("mrpc")
    data = load_task(task, data_dir, limit=limit)
    files = {}
    for name, part in (("train", data.train), ("validation", data.evaluation[0])):
        files[name] = str(folder / f"{name}.csv")
        with Path(files[name]).open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow([*task.columns, "label"])
            writer.writerows(
                [*texts, int(label)] for texts, label in zip(part.rows, part.labels, strict=True)
            )
    return files


def alone(script: list[str], model: str, files: dict[str, str], seed: str, out: Path) -> list[str]:
    """Return the command of one run as a process of its own."""
    return [
        *(sys.executable, *script, "--model_name_or_path", model, "--output_dir", str(out)),
        *("--train_file", files["train"], "--validation_file", files["validation"]),
        *("--do_train", "--do_eval", "--max_seq_length", "128", "--pad_to_max_length", "False"),
        *("--per_device_train_batch_size", "32", "--learning_rate", "1e-4"),
        *("--num_train_epochs", "1", "--seed", seed, *AS_OURS),
    ]


def together(
    model: str, seeds: list[str], root: Path, workers: int, limit: int, out: Path
) -> list[str]:
    """Return the command of all runs."""
    return [
        *(sys.executable, str(ROOT / "run_glue.py"), "--model", model, "--tasks", "mrpc"),
        *("--seeds", *seeds, "--limit", str(limit), "--num_train_epochs", "1"),
        *("--workers", str(workers)),
        *("--learning_rate", "1e-4", "--data_dir", str(root / "data" / "hub" / "glue")),
        *("--results_dir", str(out)),
    ]


def seconds(
    commands: list[list[str]], folder: Path, *, at_a_time: int = 1, **variables: str
) -> float:
    """Return the seconds of commands in a folder; show what one said if it fails."""

    def run(command: list[str]) -> None:
        environment = {**os.environ, **variables}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")

    start = time.perf_counter()
    with ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(run, commands))
    return time.perf_counter() - start


def real_data() -> Path:
    """Return the folder of real data, and let OpenMP spin in every process as in ours."""
    limit_spinning()
    return Path(os.environ.get("DISTIL_DATA") or sys.exit("set DISTIL_DATA to real data")).resolve()


if __name__ == "__main__":
    main()
