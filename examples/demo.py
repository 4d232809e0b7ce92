"""All four tables from nothing, with no network and no download: `python examples/demo.py DIR`.

A made-up language is written to the folder, a small BERT is pre-trained on it, distilled into one
of half its layers (and into Table 4's four others), and all of them are judged on tasks shaped like
GLUE's, IMDb's and SQuAD's. Each stage is a command that anybody could give, with real models and
real data in the place of these; what it says goes to a file in DIR/logs. Running it again goes on
where it was interrupted: what is finished is not done twice.

The seeds were fixed beforehand and are never chosen. Sizes are still being tuned: the aim is that
the tasks are learned, the teacher's best, within six minutes on two cores.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from angels_share.cli import DONE, INTERRUPTED, TERMINATED, Door, open_door
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from distil_trainer.recipe import ABLATIONS

HERE = Path(__file__).resolve().parent.parent
SEEDS = ("11", "22", "33")
TEACHER_STEPS = "3000"
STUDENT_STEPS = "400"

PRETRAINING = (
    "--tokens_per_batch", "768", "--learning_rate", "3e-3", "--mlm_probability", "0.25",
    "--min_tokens", "6", "--validation_fraction", "0.01", "--seed", SEEDS[0],
    "--save_steps", "400", "--save_total_limit", "1", "--logging_steps", "50",
    "--report_to", "none",
)  # fmt: skip
FINE_TUNING = (
    "--learning_rate", "1e-3", "--num_train_epochs", "5", "--per_device_train_batch_size", "16",
)  # fmt: skip
WORKERS = ("--workers", "2", "--threads", "1")
WINDOWS = ("--max_seq_length", "64", "--max_query_length", "24", "--doc_stride", "16")


@dataclass(frozen=True)
class Stage:
    """A command and what it is for.

    Attributes:
        name: what its log is called.
        title: what the reader is told.
        words: what stands behind `python` on the command line.
        is_done: whether its output is there already; a command that finds that out itself within a
            second or two says no.
    """

    name: str
    title: str
    words: tuple[str, ...]
    is_done: Callable[[], bool] = lambda: False


def stages(folder: Path) -> list[Stage]:
    """The whole way, in order."""
    world, students = folder / "world", folder / "demo-student"
    teacher, student = folder / "demo-teacher", students / "none"
    results = ("--results_dir", str(folder / "results"))
    text = ("--corpus", f"{world}/corpus.txt", "--corpus_dir", f"{folder}/corpus", *PRETRAINING)
    glue = ("run_glue.py", "--data_dir", f"{world}/glue", "--tasks", "all", "imdb", *results,
            *FINE_TUNING, *WORKERS)  # fmt: skip
    squad = ("run_squad_distill.py", "--train_file", f"{world}/squad/train-v1.1.json",
             "--validation_file", f"{world}/squad/dev-v1.1.json", *WINDOWS, *results,
             *FINE_TUNING, *WORKERS, "--seeds", *SEEDS)  # fmt: skip
    room = ("-m", "eval_harness")
    both = ("--model", str(teacher), str(student))
    others = [str(students / name) for name in ABLATIONS if name != "none"]
    return [
        Stage(
            "world", "the world: a text, and tasks that can be answered from it",
            (*room, "demo", str(world)), (world / "world.json").is_file,
        ),
        Stage(
            "teacher", "a teacher of 4 layers, from the text alone",
            ("run_pretrain_distill.py", "--teacher", "none", "--student",
             f"{world}/teacher/config.json", "--student_init", "random", "--output_dir",
             str(teacher), "--max_steps", TEACHER_STEPS, *text, *_resumed(teacher)),
            lambda: _is_complete(teacher),
        ),
        Stage(
            "students", "a student of 2 layers by the triple loss, and Table 4's four others",
            ("run_pretrain_distill.py", "--teacher", str(teacher), "--ablation", "all",
             "--output_dir", str(students), "--max_steps", STUDENT_STEPS, *text,
             "--resume_from_checkpoint"),
            lambda: all(_is_complete(students / name) for name in ABLATIONS),
        ),
        Stage(
            "glue", "GLUE and IMDb: teacher and student, three seeds",
            (*glue, *both, "--seeds", *SEEDS),
        ),
        Stage(
            "ablations", "GLUE: Table 4's others, one seed",
            (*glue, "--model", *others, "--seeds", SEEDS[0]),
        ),
        Stage("squad", "SQuAD: teacher and student, three seeds", (*squad, *both)),
        Stage(
            "squad-d", "SQuAD: the student taught once more (D), three seeds",
            (*squad, "--model", str(student), "--teacher", str(teacher)),
        ),
        Stage(
            "speed", "speed: teacher and student side by side",
            (*room, "speed", *both, "--data_dir", f"{world}/glue", "--pairs", "50", *results),
            lambda: any((folder / "results/speed").glob("*.json")),
        ),
        Stage("tables", "Tables 1-4", (*room, "tables", *results)),
        Stage("report", "the report", (*room, "report", *results, "--students", str(student))),
    ]  # fmt: skip


def _is_complete(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "distil.json").read_text())["status"] == "complete")
    except FileNotFoundError:
        return False


def _resumed(folder: Path) -> tuple[str, ...]:
    return ("--resume_from_checkpoint",) if any(folder.glob("checkpoint-*")) else ()


def demo(options: Options) -> int:
    """Does what isn't done, and prints the tables."""
    folder = Path(options.folder).expanduser().resolve()
    _require_own(folder)
    started, todo = time.monotonic(), stages(folder)
    for number, stage in enumerate(todo, 1):
        line = f"[{number}/{len(todo)}] {stage.title}"
        if stage.is_done():
            print(f"{line}: done before")
            continue
        print(line, flush=True)
        status = _run(stage, folder / "logs" / f"{stage.name}.txt")
        if status != DONE:
            return _stopped(stage, status, folder)
    _show(folder, time.monotonic() - started)
    return DONE


def _require_own(folder: Path) -> None:
    """A folder that is new, or one that this began."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "logs").is_dir():
        raise UserError(f"{folder} holds something else: name a folder that is new")
    (folder / "logs").mkdir(parents=True, exist_ok=True)


def _run(stage: Stage, log: Path) -> int:
    """Runs a stage's command: its bar is seen, what it prints goes to the log.

    A signal is the command's to answer, which keeps what is complete; here it is waited for.
    """
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(  # noqa: S603  (our own commands, and no shell)
            [sys.executable, *stage.words], cwd=HERE, stdout=stream, env=_environment()
        )
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGINT, lambda *_: None)  # a terminal tells the command itself
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if status == DONE:
        print(f"      {time.monotonic() - started:.0f} s", flush=True)
    return status


def _environment() -> dict[str, str]:
    """What the commands run with: no network, and one thread, as models this small are fastest.

    A second thread made a step of the teacher three times slower on two shared cores (26 and
    79 ms).
    """
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def _stopped(stage: Stage, status: int, folder: Path) -> int:
    again = f"python examples/demo.py {folder}"
    if status in (INTERRUPTED, TERMINATED):
        print(f"interrupted; what is complete is kept, and this goes on: {again}")
        return status
    print(f"{stage.title}: failed; {folder}/logs/{stage.name}.txt says more; after it: {again}")
    return 1


def _show(folder: Path, seconds: float) -> None:
    """The tables, labelled, and where everything is."""
    results = folder / "results"
    for number in range(1, 5):
        print("\nDEMO WORLD: nothing below is about English, but for the paper's rows.\n")
        print((results / f"table{number}.md").read_text(encoding="utf-8").rstrip())
    print(f"\nDemo world, {seconds:.0f} s. Everything is under {folder}:")
    kept = ("world", "demo-teacher", "demo-student/none", "results", "results/report.html", "logs")
    for name in kept:
        if (folder / name).exists():
            print(f"  {folder / name}")


DOOR = Door(
    name="demo",
    summary="a made-up language, a teacher, its students, and all four tables",
    flags=(Flag("folder", "where everything goes", required=True, metavar="DIR", first=True),),
    run=demo,
    examples=("python examples/demo.py demo",),
)


if __name__ == "__main__":
    sys.exit(open_door(DOOR))
