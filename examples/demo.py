"""Show what distillation keeps, from nothing, with no network: `python examples/demo.py DIR`.

A made-up language is written to the folder. A small BERT is pre-trained on it and distilled into
students of half its layers: by the full triple loss, without each of its terms, and from a random
start; one more is trained without a teacher. Of each there are three, with pre-training seeds 11,
22 and 33, all of the same number of tokens. They are measured as they are (`probe`), and three of
them fine-tuned on a few hundred examples of tasks shaped like GLUE's, IMDb's and SQuAD's.

Each stage is an ordinary command, which works in the same way on real models and data; its output
goes to a file in DIR/logs. After an interruption, run the same command again: what is finished is
not done again. All seeds were fixed beforehand; the sizes were chosen on others (1, 2 and 3), by a
rule that looks at the teacher alone: see results/README.md.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands import SIGNALS, Job, Runner, bar_of, lock_folder
from summary import Summary

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import DONE, RUN_FAILED, Command, run_command
from angels_share.errors import UserError
from angels_share.files import hash_of, sha256_of_file, write_json
from angels_share.flags import Flag, Options
from angels_share.student_record import is_complete

ROOT = Path(__file__).resolve().parent.parent
RECORD = "demo.json"
WORLD_SEED = "11"
PRETRAINING_SEEDS = ("11", "22", "33")
FINE_TUNING_SEEDS = ("11", "22", "33", "44", "55")
TEACHER_STEPS = "2400"
STUDENT_STEPS = "120"
TASKS = ("cola", "mnli")
PROBED = ("stsb", "wnli")
NO_TEACHER = "no teacher"
"""The folder of the students without distillation, and their name."""

# fmt: off
PRETRAINING = (
    "--tokens_per_batch", "768",
    "--learning_rate", "3e-3",
    "--mlm_probability", "0.25",
    "--min_tokens", "6",
    "--validation_fraction", "0.01",
    "--save_steps", "400",
    "--save_total_limit", "1",
    "--logging_steps", "50",
    "--report_to", "none",
)
FINE_TUNING = (
    "--learning_rate", "1e-3",
    "--num_train_epochs", "5",
    "--per_device_train_batch_size", "16",
)
# fmt: on


@dataclass(frozen=True)
class Stage:
    """One command of the demo.

    Attributes:
        name: the name of its log.
        title: the description that is printed.
        words: the command line after `python`.
        is_done: returns whether its output is complete; always False for a command that finds that
            out itself within a second or two.
        output: folders that later stages depend on and that must not change afterwards.
        needs: the stages whose output it reads.
        slots: how many cores it keeps busy; 2 also where nothing may run beside it.
        seconds: what it took on one machine: the bar needs the ratios.
        bars: how many progress bars it shows, one after the other.
        share: returns how much of it is done, where the bars don't tell.
    """

    name: str
    title: str
    words: tuple[str, ...]
    is_done: Callable[[], bool] = lambda: False
    output: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    slots: int = 1
    seconds: float = 1.0
    bars: int = 1
    share: Callable[[], float] | None = None


def stages(folder: Path) -> list[Stage]:
    """Return all stages, in the order in which they are started if what they need is there."""
    world, teacher = folder / "world", folder / "demo-teacher"
    students, alone = folder / "student", folder / "student" / NO_TEACHER
    first, *others = PRETRAINING_SEEDS
    student, random_start = (students / f"seed-{first}" / name for name in (FULL, "random-init"))
    results = ("--results_dir", str(folder / "results"))
    text = ("--corpus", f"{world}/corpus.txt", "--corpus_dir", f"{folder}/corpus", *PRETRAINING)
    random_config = ("--teacher", "none", "--student_init", "random", "--student")
    glue = ("--data_dir", f"{world}/glue", *results)
    squad = ("run_squad_distill.py", "--train_file", f"{world}/squad/train-v1.1.json",
             "--validation_file", f"{world}/squad/dev-v1.1.json", *results,
             *FINE_TUNING, "--workers", "1", "--threads", "1", "--seeds",
             *PRETRAINING_SEEDS)  # fmt: skip
    harness = ("-m", "eval_harness")
    ablations = list(ABLATIONS)

    def distilled(*seeds: str) -> tuple[str, ...]:
        return ("run_pretrain_distill.py", "--teacher", str(teacher), "--ablation", "all",
                "--output_dir", str(students), "--max_steps", STUDENT_STEPS, *text,
                "--resume_from_checkpoint", "--seeds", *seeds)  # fmt: skip

    def are_complete(*seeds: str) -> bool:
        found = [students / f"seed-{seed}" / name for seed in seeds for name in ablations]
        return all(map(is_complete, found))

    def done(pattern: str, count: int, before: int = 0) -> Callable[[], float]:
        files = (folder / "results").glob
        return lambda: (sum(1 for _ in files(pattern)) - before) / count

    def of_every_seed(name: str) -> list[str]:
        return [str(students / f"seed-{seed}" / name) for seed in PRETRAINING_SEEDS]

    probed = [path for name in ablations for path in of_every_seed(name)]
    probed += [str(alone / f"seed-{seed}") for seed in PRETRAINING_SEEDS]
    return [
        Stage(
            "world", "a made-up world: its text, and tasks that can be answered from it",
            (*harness, "demo", str(world), "--seed", WORLD_SEED), output=("world",), slots=2,
            seconds=1,
        ),
        Stage(
            "teacher", "a teacher of 4 layers, pre-trained on the text",
            ("run_pretrain_distill.py", *random_config, f"{world}/teacher/config.json",
             "--output_dir", str(teacher), "--seed", first, "--max_steps", TEACHER_STEPS, *text,
             *_resume_flag(teacher)),
            lambda: is_complete(teacher), output=("demo-teacher",), needs=("world",), seconds=69,
        ),
        Stage(
            "no-teacher", "students of 2 layers without a teacher, three seeds",
            ("run_pretrain_distill.py", *random_config, f"{world}/student/config.json",
             "--tokenizer", f"{world}/teacher", "--output_dir", str(alone), "--max_steps",
             STUDENT_STEPS, *text, "--resume_from_checkpoint", "--seeds", *PRETRAINING_SEEDS),
            lambda: all(is_complete(alone / f"seed-{seed}") for seed in PRETRAINING_SEEDS),
            output=(f"student/{NO_TEACHER}",), needs=("world",), seconds=11, bars=3,
        ),
        Stage(
            "students-1", "distilled students: triple loss, and four without a part; seed 11",
            distilled(first), lambda: are_complete(first), output=(f"student/seed-{first}",),
            needs=("teacher",), seconds=25, bars=5,
        ),
        Stage(
            "students-2", "the same with seeds 22 and 33",
            distilled(*others), lambda: are_complete(*others),
            output=tuple(f"student/seed-{seed}" for seed in others),
            needs=("teacher",), seconds=43, bars=10,
        ),
        Stage(
            "few-shot", "300 examples of GLUE and IMDb: teacher, student, random start; five seeds",
            ("run_glue.py", *glue, *FINE_TUNING, "--model", str(teacher), str(student),
             str(random_start), "--tasks", *TASKS, "imdb", "--seeds", *FINE_TUNING_SEEDS,
             "--workers", "1", "--threads", "1", "--save_models", "best"),
            needs=("students-1",), seconds=49, share=done("runs/*/[cmi]*/*/seed-*.json", 45),
        ),
        Stage(
            "squad", "SQuAD: teacher and student, three seeds",
            (*squad, "--model", str(teacher), str(student)), needs=("students-1",), seconds=15,
            share=done("runs/*/squad/*/seed-*.json", 6),
        ),
        Stage(
            "squad-d", "SQuAD: the student, distilled again while fine-tuning (D), three seeds",
            (*squad, "--model", str(student), "--teacher", str(teacher)), needs=("squad",),
            seconds=12, share=done("runs/*/squad/*/seed-*.json", 3, before=6),
        ),
        Stage(
            "probe", "all of them as they are: held-out text, minimal pairs, frozen features",
            (*harness, "probe", "--teacher", str(teacher), "--model", *probed, "--text",
             f"{world}/held-out.txt", "--pairs",
             *(f"{world}/pairs/{name}.jsonl" for name in ("agreement", "kinds", "reference")),
             "--tasks", *PROBED, *glue, "--batch_size", "128"),
            needs=("students-1", "students-2", "no-teacher"), seconds=18,
            share=done("probes/*/*.json", 4 * (len(probed) + 1)),
        ),
        Stage(
            "speed", "inference speed: teacher and student side by side",
            (*harness, "speed", "--model", str(teacher), str(student), *glue, "--pairs", "32",
             "--batch_sizes", "1", "32", "--threads", "1"),
            lambda: any((folder / "results/speed").glob("*.json")),
            needs=("students-1",), slots=2, seconds=6,
        ),
        Stage(
            "edge", "the student as ONNX with 8-bit weights, and what that costs",
            ("examples/demo_edge.py", str(folder)), needs=("few-shot",), seconds=22,
        ),
        Stage(
            "report", "the tables, and the page with charts",
            (*harness, "report", *results, "--students", str(student)),
            needs=("few-shot", "squad-d", "probe", "speed", "edge"), seconds=3,
        ),
    ]  # fmt: skip


def _resume_flag(folder: Path) -> tuple[str, ...]:
    return ("--resume_from_checkpoint",) if any(folder.glob("checkpoint-*")) else ()


def demo(options: Options) -> int:
    """Run the stages that are not done yet, and print what came out."""
    folder = Path(options.folder).expanduser().resolve()
    _prepare(folder)
    with lock_folder(folder) as lock:
        _require_unchanged(folder)
        started, todo = time.monotonic(), stages(folder)
        before = _cpu_seconds()
        failed = _run(todo, folder, lock)
        if failed is not None:
            return _explain_stop(*failed, folder)
        _show(folder, time.monotonic() - started, _cpu_seconds() - before)
    return DONE


def _cpu_seconds() -> float:
    """Return the processor time of the commands so far."""
    times = os.times()
    return times.children_user + times.children_system


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
    for output in stage.output:
        if output not in record["made"]:
            paths = [path for path in (folder / output).rglob("*") if path.is_file()]
            contents = {str(path.relative_to(folder)): sha256_of_file(path) for path in paths}
            record["made"][output] = contents
            write_json(folder / RECORD, record)


# --- the commands


def _run(todo: list[Stage], folder: Path, lock: int) -> tuple[Stage, int] | None:
    """Run the commands of all stages; return the one that stopped it, and its exit status."""
    numbers = {stage.name: number for number, stage in enumerate(todo, 1)}
    by_name = {stage.name: stage for stage in todo}
    left = [stage for stage in todo if not stage.is_done()]
    for stage in todo:
        if stage not in left:
            print(f"[{numbers[stage.name]}/{len(todo)}] {stage.title}: already done", flush=True)
            _record_output(stage, folder)
    jobs = [
        Job(stage.name, [sys.executable, *stage.words],
            tuple(name for name in stage.needs if by_name.get(name) in left), stage.slots,
            stage.seconds, stage.bars, stage.share)
        for stage in left
    ]  # fmt: skip
    runner = Runner(jobs, folder / "logs", lock, folder=ROOT, environment=_environment())
    with bar_of("demo") as bar:

        def finished(job: Job, seconds: float) -> None:
            stage = by_name[job.name]
            _record_output(stage, folder)
            bar.clear()
            print(f"[{numbers[job.name]}/{len(todo)}] {stage.title}: {seconds:.0f} s", flush=True)

        def watched(share: float, running: str) -> None:
            bar.set_postfix_str(running, refresh=False)
            bar.update(100 * share - bar.n)

        failed = runner.run(finished, watched)
    return None if failed is None else (by_name[failed[0].name], failed[1])


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
    log = folder / "logs" / f"{stage.name}.txt"
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]:
        sys.stderr.write(f"  {line}\n")
    print(f"{stage.title}: failed; see {log}; to continue: {again}")
    return RUN_FAILED


def _show(folder: Path, seconds: float, cpu: float) -> None:
    """Print what came out, on one screen, and where the rest is."""
    print(f"\n{Summary(folder / 'results', NO_TEACHER).text()}\n")
    print(_edge(folder))
    used = f", {cpu:.0f} CPU seconds" if cpu else ""
    print(f"{seconds:.0f} s{used}. In {folder}:")
    print("  results/report.html   the page: charts, and all tables")
    print("  results/table*.md     Table 0 and the paper's Tables 1-4")
    print("  student, demo-teacher the models; world: their data; logs: what each command said")


def _edge(folder: Path) -> str:
    """Return what the exported student costs, or why there is none."""
    said = (folder / "logs" / "edge.txt").read_text(encoding="utf-8", errors="replace")
    lines = said.splitlines()
    if skipped := [line for line in lines if line.startswith("skipped: ")]:
        return f"As a file for other programs: {skipped[-1]}\n"
    table = [line for line in lines if line.startswith("|")]
    return "\n".join(["The student's median seed on MNLI, as a file:", "", *table, ""])


COMMAND = Command(
    name="demo",
    summary="makes a language, a teacher and its students, and shows what distillation keeps",
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
