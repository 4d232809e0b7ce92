"""Make all four tables from nothing, with no network or download: `python examples/demo.py DIR`.

A made-up language is written to the folder. A small BERT is pre-trained on it and distilled into a
student of half its layers (and into Table 4's four others); all are evaluated on tasks shaped like
GLUE's, IMDb's and SQuAD's. Each stage is an ordinary command, which works in the same way on real
models and data; its output goes to a file in DIR/logs. After an interruption, run the same command
again: finished stages are skipped.

The seeds were fixed beforehand and are never chosen. Sizes were tuned on them until the tasks could
be learned within six minutes on two cores. In those trials models this small learned to compare two
texts only if they were pre-trained for long enough (attention to earlier text emerges late and
suddenly), saw each example only once, and in batches of at least 24.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import SIGNALS, lock_folder, run

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import DONE, RUN_FAILED, Command, run_command
from angels_share.errors import UserError
from angels_share.files import hash_of, sha256_of_file, write_json
from angels_share.flags import Flag, Options
from angels_share.student_record import is_complete

ROOT = Path(__file__).resolve().parent.parent
RECORD = "demo.json"
SEEDS = ("11", "22", "33")
TEACHER_STEPS = "3600"
STUDENT_STEPS = "240"

# fmt: off
PRETRAINING = (
    "--tokens_per_batch", "768",
    "--learning_rate", "3e-3",
    "--mlm_probability", "0.25",
    "--min_tokens", "6",
    "--validation_fraction", "0.01",
    "--seed", SEEDS[0],
    "--save_steps", "400",
    "--save_total_limit", "1",
    "--logging_steps", "50",
    "--report_to", "none",
)
FINE_TUNING = (
    "--learning_rate", "7e-4",
    "--num_train_epochs", "1",
    "--per_device_train_batch_size", "32",
)
# fmt: on
WORKERS = ("--workers", "2", "--threads", "1")
WINDOWS = ("--max_seq_length", "64", "--max_query_length", "24", "--doc_stride", "16")


@dataclass(frozen=True)
class Stage:
    """One command of the demo.

    Attributes:
        name: the name of its log.
        title: the description that is printed.
        words: the command line after `python`.
        is_done: returns whether its output is complete; always False for a command that finds that
            out itself within a second or two.
        output: the folder, if any, that later stages depend on and that must not change afterwards.
    """

    name: str
    title: str
    words: tuple[str, ...]
    is_done: Callable[[], bool] = lambda: False
    output: str = ""


def stages(folder: Path) -> list[Stage]:
    """Return all stages in order."""
    world, students = folder / "world", folder / "demo-student"
    teacher, student = folder / "demo-teacher", students / "none"
    results = ("--results_dir", str(folder / "results"))
    text = ("--corpus", f"{world}/corpus.txt", "--corpus_dir", f"{folder}/corpus", *PRETRAINING)
    glue = ("run_glue.py", "--data_dir", f"{world}/glue", *results, *FINE_TUNING, *WORKERS)
    squad = ("run_squad_distill.py", "--train_file", f"{world}/squad/train-v1.1.json",
             "--validation_file", f"{world}/squad/dev-v1.1.json", *WINDOWS, *results,
             *FINE_TUNING, *WORKERS, "--seeds", *SEEDS)  # fmt: skip
    harness = ("-m", "eval_harness")
    both = ("--model", str(teacher), str(student))
    others = [str(students / name) for name in ABLATIONS if name != FULL]
    return [
        Stage(
            "world", "the demo world: a corpus, and tasks that can be answered from it",
            (*harness, "demo", str(world)), output="world",
        ),
        Stage(
            "teacher", "a teacher of 4 layers, trained on the corpus alone",
            ("run_pretrain_distill.py", "--teacher", "none", "--student",
             f"{world}/teacher/config.json", "--student_init", "random", "--output_dir",
             str(teacher), "--max_steps", TEACHER_STEPS, *text, *_resume_flag(teacher)),
            lambda: is_complete(teacher), output="demo-teacher",
        ),
        Stage(
            "students", "students of 2 layers: one with the triple loss, and Table 4's four others",
            ("run_pretrain_distill.py", "--teacher", str(teacher), "--ablation", "all",
             "--output_dir", str(students), "--max_steps", STUDENT_STEPS, *text,
             "--resume_from_checkpoint"),
            lambda: all(is_complete(students / name) for name in ABLATIONS),
            output="demo-student",
        ),
        Stage(
            "glue", "GLUE and IMDb: teacher and student, three seeds",
            (*glue, *both, "--tasks", "all", "imdb", "--seeds", *SEEDS),
        ),
        Stage(
            "ablations", "GLUE: Table 4's other students, one seed",
            (*glue, "--model", *others, "--seeds", SEEDS[0]),
        ),
        Stage("squad", "SQuAD: teacher and student, three seeds", (*squad, *both)),
        Stage(
            "squad-d", "SQuAD: the student, distilled again while fine-tuning (D), three seeds",
            (*squad, "--model", str(student), "--teacher", str(teacher)),
        ),
        Stage(
            "speed", "inference speed: teacher and student side by side",
            (*harness, "speed", *both, "--data_dir", f"{world}/glue", "--pairs", "32",
             "--batch_sizes", "1", "32", *results),
            lambda: any((folder / "results/speed").glob("*.json")),
        ),
        Stage("tables", "Tables 1-4", (*harness, "tables", *results)),
        Stage("report", "the report", (*harness, "report", *results, "--students", str(student))),
    ]  # fmt: skip


def _resume_flag(folder: Path) -> tuple[str, ...]:
    return ("--resume_from_checkpoint",) if any(folder.glob("checkpoint-*")) else ()


def demo(options: Options) -> int:
    """Run the stages that are not done yet, and print the tables."""
    folder = Path(options.folder).expanduser().resolve()
    _prepare(folder)
    with lock_folder(folder) as lock:
        _require_unchanged(folder)
        started, todo = time.monotonic(), stages(folder)
        for number, stage in enumerate(todo, 1):
            line = f"[{number}/{len(todo)}] {stage.title}"
            if stage.is_done():
                print(f"{line}: already done")
            else:
                print(line, flush=True)
                status = _run(stage, folder, lock)
                if status != DONE:
                    return _explain_stop(stage, status, folder)
            _record_output(stage, folder)
        _show(folder, time.monotonic() - started)
    return DONE


# --- the folder


def _prepare(folder: Path) -> None:
    """Set up a new folder; refuse one that was not begun by this version of the demo."""
    # With a fixed path for the folder: the hash stays the same if it is moved, or has checkpoints.
    now = hash_of([stage.words for stage in stages(Path(os.devnull))])
    if not folder.exists() or not any(folder.iterdir()):
        write_json(folder / RECORD, {"commands": now, "made": {}})
    try:
        begun = json.loads((folder / RECORD).read_text(encoding="utf-8"))["commands"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds something else: name a new folder") from None
    if begun != now:
        raise UserError(
            f"{folder} was begun by another version of this demo: name a new folder, or remove "
            "this one"
        )
    (folder / "logs").mkdir(exist_ok=True)


def _require_unchanged(folder: Path) -> None:
    """Refuse to go on if a finished stage's output changed: later outputs were made from it."""
    for files in json.loads((folder / RECORD).read_text(encoding="utf-8"))["made"].values():
        for name, content in files.items():
            path = folder / name
            if not path.is_file() or sha256_of_file(path) != content:
                raise UserError(
                    f"{path} was removed or changed, and later outputs were made from it: name a "
                    f"new folder, or remove {folder}"
                )


def _record_output(stage: Stage, folder: Path) -> None:
    """Record the checksums of a stage's output, once."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if stage.output and stage.output not in record["made"]:
        paths = [path for path in (folder / stage.output).rglob("*") if path.is_file()]
        contents = {str(path.relative_to(folder)): sha256_of_file(path) for path in paths}
        record["made"][stage.output] = contents
        write_json(folder / RECORD, record)


# --- the commands


def _run(stage: Stage, folder: Path, lock: int) -> int:
    """Run a stage's command in the root of the repository; return its exit status."""
    started = time.monotonic()
    log = folder / "logs" / f"{stage.name}.txt"
    words = [sys.executable, *stage.words]
    status = run(words, log, lock, folder=ROOT, environment=_environment())
    if status == DONE:
        print(f"      {time.monotonic() - started:.0f} s", flush=True)
    return status


def _environment() -> dict[str, str]:
    """Return the commands' environment variables: no network, and one thread.

    Models this small are fastest on one: with two threads on two shared cores, a step of the
    teacher took 79 ms instead of 26.
    """
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def _explain_stop(stage: Stage, status: int, folder: Path) -> int:
    """Print why the demo stopped and how to continue; return its exit status."""
    again = shlex.join([sys.executable, str(Path(__file__).resolve()), str(folder)])
    if status - 128 in SIGNALS:
        print(f"interrupted; completed work is saved; to continue: {again}")
        return status
    print(f"{stage.title}: failed; see {folder}/logs/{stage.name}.txt; to continue: {again}")
    return RUN_FAILED


def _show(folder: Path, seconds: float) -> None:
    """Print the tables, each labelled as the demo's, and the folders."""
    results = folder / "results"
    for number in range(1, 5):
        print("\nDEMO WORLD: except for the paper's rows, no number below is about English.\n")
        print((results / f"table{number}.md").read_text(encoding="utf-8").rstrip())
    print(f"\nDemo world, {seconds:.0f} s. Everything is under {folder}:")
    outputs = (
        "world",
        "demo-teacher",
        "demo-student/none",
        "results",
        "results/report.html",
        "logs",
    )
    for name in outputs:
        if (folder / name).exists():
            print(f"  {folder / name}")


COMMAND = Command(
    name="demo",
    summary="makes a language, a teacher, its students, and all four tables",
    flags=(
        Flag(
            "folder",
            "output folder: new, or one that this demo began",
            required=True,
            metavar="DIR",
            first=True,
        ),
    ),
    run=demo,
    examples=("python examples/demo.py demo",),
)


if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
