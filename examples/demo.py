"""All four tables from nothing, with no network and no download: `python examples/demo.py DIR`.

A made-up language is written to the folder, a small BERT is pre-trained on it, distilled into one
of half its layers (and into Table 4's four others), and all of them are judged on tasks shaped like
GLUE's, IMDb's and SQuAD's. Each stage is a command that anybody could give, with real models and
real data in the place of these; what it says goes to a file in DIR/logs. Running it again goes on
where it was interrupted: what is finished is not done twice.

The seeds were fixed beforehand and are never chosen. Sizes were tuned on them until the tasks could
be learned within six minutes on two cores. In those trials models this small learned to compare two
texts where they had been pre-trained for long enough (the ways to look back through a text come
late, and all at once), saw each example only once, and in batches of 24 or more.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import SIGNALS, alone_in, run

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import DONE, RUN_FAILED, Command, run_command
from angels_share.errors import UserError
from angels_share.files import hash_of, sha256_of_file, write_json
from angels_share.flags import Flag, Options
from angels_share.student_record import is_complete

HERE = Path(__file__).resolve().parent.parent
RECORD = "demo.json"
SEEDS = ("11", "22", "33")
TEACHER_STEPS = "3600"
STUDENT_STEPS = "240"

PRETRAINING = (
    "--tokens_per_batch", "768", "--learning_rate", "3e-3", "--mlm_probability", "0.25",
    "--min_tokens", "6", "--validation_fraction", "0.01", "--seed", SEEDS[0],
    "--save_steps", "400", "--save_total_limit", "1", "--logging_steps", "50",
    "--report_to", "none",
)  # fmt: skip
FINE_TUNING = (
    "--learning_rate", "7e-4", "--num_train_epochs", "1", "--per_device_train_batch_size", "32",
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
        makes: the folder that later stages build on, which nobody may change after it.
    """

    name: str
    title: str
    words: tuple[str, ...]
    is_done: Callable[[], bool] = lambda: False
    makes: str = ""


def stages(folder: Path) -> list[Stage]:
    """The whole way, in order."""
    world, students = folder / "world", folder / "demo-student"
    teacher, student = folder / "demo-teacher", students / "none"
    results = ("--results_dir", str(folder / "results"))
    text = ("--corpus", f"{world}/corpus.txt", "--corpus_dir", f"{folder}/corpus", *PRETRAINING)
    glue = ("run_glue.py", "--data_dir", f"{world}/glue", *results, *FINE_TUNING, *WORKERS)
    squad = ("run_squad_distill.py", "--train_file", f"{world}/squad/train-v1.1.json",
             "--validation_file", f"{world}/squad/dev-v1.1.json", *WINDOWS, *results,
             *FINE_TUNING, *WORKERS, "--seeds", *SEEDS)  # fmt: skip
    room = ("-m", "eval_harness")
    both = ("--model", str(teacher), str(student))
    others = [str(students / name) for name in ABLATIONS if name != FULL]
    return [
        Stage(
            "world", "the world: a text, and tasks that can be answered from it",
            (*room, "demo", str(world)), makes="world",
        ),
        Stage(
            "teacher", "a teacher of 4 layers, from the text alone",
            ("run_pretrain_distill.py", "--teacher", "none", "--student",
             f"{world}/teacher/config.json", "--student_init", "random", "--output_dir",
             str(teacher), "--max_steps", TEACHER_STEPS, *text, *_resumed(teacher)),
            lambda: is_complete(teacher), makes="demo-teacher",
        ),
        Stage(
            "students", "a student of 2 layers by the triple loss, and Table 4's four others",
            ("run_pretrain_distill.py", "--teacher", str(teacher), "--ablation", "all",
             "--output_dir", str(students), "--max_steps", STUDENT_STEPS, *text,
             "--resume_from_checkpoint"),
            lambda: all(is_complete(students / name) for name in ABLATIONS),
            makes="demo-student",
        ),
        Stage(
            "glue", "GLUE and IMDb: teacher and student, three seeds",
            (*glue, *both, "--tasks", "all", "imdb", "--seeds", *SEEDS),
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
            (*room, "speed", *both, "--data_dir", f"{world}/glue", "--pairs", "32",
             "--batch_sizes", "1", "32", *results),
            lambda: any((folder / "results/speed").glob("*.json")),
        ),
        Stage("tables", "Tables 1-4", (*room, "tables", *results)),
        Stage("report", "the report", (*room, "report", *results, "--students", str(student))),
    ]  # fmt: skip


def _resumed(folder: Path) -> tuple[str, ...]:
    return ("--resume_from_checkpoint",) if any(folder.glob("checkpoint-*")) else ()


def demo(options: Options) -> int:
    """Does what isn't done, and prints the tables."""
    folder = Path(options.folder).expanduser().resolve()
    _begin(folder)
    with alone_in(folder) as lock:
        return _do_all(folder, lock)


def _do_all(folder: Path, lock: int) -> int:
    _require_unchanged(folder)
    started, todo = time.monotonic(), stages(folder)
    for number, stage in enumerate(todo, 1):
        line = f"[{number}/{len(todo)}] {stage.title}"
        if stage.is_done():
            print(f"{line}: done before")
        else:
            print(line, flush=True)
            status = _run(stage, folder, lock)
            if status != DONE:
                return _stopped(stage, status, folder)
        _remember(stage, folder)
    _show(folder, time.monotonic() - started)
    return DONE


# The folder


def _begin(folder: Path) -> None:
    """A folder that is new, or one that this very demo began."""
    now = hash_of([stage.words for stage in stages(Path(os.devnull))])  # wherever the folder is
    if not folder.exists() or not any(folder.iterdir()):
        write_json(folder / RECORD, {"commands": now, "made": {}})
    try:
        begun = json.loads((folder / RECORD).read_text(encoding="utf-8"))["commands"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds something else: name a folder that is new") from None
    if begun != now:
        raise UserError(
            f"{folder} was begun by another version of this demo: name a folder that is new, or "
            "remove it"
        )
    (folder / "logs").mkdir(exist_ok=True)


def _require_unchanged(folder: Path) -> None:
    """Refuses to go on from another world or teacher than what is there was made from."""
    for files in json.loads((folder / RECORD).read_text(encoding="utf-8"))["made"].values():
        for name, content in files.items():
            path = folder / name
            if not path.is_file() or sha256_of_file(path) != content:
                raise UserError(
                    f"{path} is gone or changed, and what came after it was made from it: name a "
                    f"folder that is new, or remove {folder}"
                )


def _remember(stage: Stage, folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if stage.makes and stage.makes not in record["made"]:
        paths = [path for path in (folder / stage.makes).rglob("*") if path.is_file()]
        contents = {str(path.relative_to(folder)): sha256_of_file(path) for path in paths}
        record["made"][stage.makes] = contents
        write_json(folder / RECORD, record)


# The commands


def _run(stage: Stage, folder: Path, lock: int) -> int:
    """Runs a stage's command, in the root of the repository."""
    started = time.monotonic()
    log = folder / "logs" / f"{stage.name}.txt"
    words = [sys.executable, *stage.words]
    status = run(words, log, lock, folder=HERE, environment=_environment())
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
    again = shlex.join([sys.executable, str(Path(__file__).resolve()), str(folder)])
    if status - 128 in SIGNALS:
        print(f"interrupted; what is complete is kept, and this goes on: {again}")
        return status
    print(f"{stage.title}: failed; {folder}/logs/{stage.name}.txt says more; after it: {again}")
    return RUN_FAILED


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


DOOR = Command(
    name="demo",
    summary="a made-up language, a teacher, its students, and all four tables",
    flags=(Flag("folder", "where everything goes", required=True, metavar="DIR", first=True),),
    run=demo,
    examples=("python examples/demo.py demo",),
)


if __name__ == "__main__":
    sys.exit(run_command(DOOR))
