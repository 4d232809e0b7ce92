"""Repeat the study of results/README.md: `evidence.py tiny --folder DIR --data DATA`.

A teacher's language-model head is trained on Wikipedia; students of half its layers are distilled
from it by the triple loss, without each of its parts, and without a teacher, three pre-training
seeds each, all on the same number of tokens. They are measured as they are (`probe`); then they are
fine-tuned, the student of pre-training seed i with seed i, on the tasks that the teacher can do.
Sizes, seeds and rules were written down before anything ran: results/plan-2026-11-28.md. The part
of MiniLM ends with questions: its students of the triple loss, fine-tuned plainly and by (D), as
results/plan-questions-2026-11-28.md has it.

Each stage is an ordinary command, and its output goes to a file in DIR/logs. After an interruption,
run the same command again: what is finished is not done again.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from commands import SIGNALS, Job, Runner, bar_of, lock_folder
from evidence_text import SWAPS

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import DONE, RUN_FAILED, Command, run_command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from angels_share.student_record import is_complete
from eval_harness.data.splits import load_task
from eval_harness.intervals.differences import RESAMPLES, Difference, Scores, difference, holm
from eval_harness.results.store import find
from eval_harness.runs.models import identify
from eval_harness.tables.compared import Entry, compare_rows
from eval_harness.tables.comparison import scores_by_seed
from eval_harness.tables.table0 import LEVEL, difference_text
from eval_harness.tables.write import load_results
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.metrics import compute_metrics

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ("11", "22", "33")
NO_TEACHER, NOT_TOLD = "no-teacher", "can't be told"
KINDS = (*ABLATIONS, NO_TEACHER)
TASKS = ("cola", "mrpc", "rte", "sst2", "stsb")
PROBED = ("sst2", "stsb")
LIMIT = 4000
# fmt: off
PRETRAINING = (
    "--max_seq_length", "128", "--tokens_per_batch", "2048", "--gradient_accumulation_steps", "1",
    "--learning_rate", "5e-4", "--validation_fraction", "0.002", "--save_steps", "500",
    "--save_total_limit", "1", "--logging_steps", "50", "--eval_strategy", "steps",
    "--report_to", "none",
)
AT_MASKS = "--restrict_ce_to_mask"
"""The soft targets are learned at masked tokens alone."""
FINE_TUNING = ("--learning_rate", "2e-4", "--num_train_epochs", "3", "--limit", str(LIMIT))
# fmt: on


@dataclass(frozen=True)
class Part:
    """A teacher, and how long it and its students are trained.

    Attributes:
        weights: the folder of the teacher's weights, below DATA/models.
        teacher_steps: updates of the teacher's head and body.
        student_steps: updates of each student.
        has_choices: whether the choices are made in it, too.
        has_questions: whether its students learn to answer questions.
    """

    weights: str
    teacher_steps: int
    student_steps: int
    has_choices: bool = False
    has_questions: bool = False


PARTS = {
    "tiny": Part("tiny-bert", teacher_steps=6000, student_steps=1000, has_choices=True),
    "minilm": Part("minilm-l6", teacher_steps=600, student_steps=200, has_questions=True),
}

CHOICES = {
    "fold": ("--fold_token_types", AT_MASKS),
    "all-tokens": (),
    "other-layer": ("--student_layers", "1", AT_MASKS),
    "relations": ("--alpha_rel", "1", AT_MASKS),
}
"""What is changed alone in the triple loss, in the part of the teacher with two layers."""


# fmt: off
QUESTIONS = {
    "tydiqa": (),
    "standin": ("--limit", "2000"),
}
"""Data sets of questions, and how many are taken of each of their two files."""
ANSWERING = ("--learning_rate", "1e-4", "--num_train_epochs", "2")
# fmt: on


class Places:
    """Where a part's files are.

    Args:
        folder: of the study.
        name: of the part.
        data: of models, tasks and corpus.
        results: of result files.
    """

    def __init__(self, folder: Path, name: str, data: Path, results: Path) -> None:
        self.text, home = folder / "text", folder / name
        self.corpus, self.teacher = home / "corpus", home / f"{name}-teacher"
        self.students = home / f"{name}-distil"
        self.hub, self.results = data / "data" / "hub", results
        self.squad, self.tydiqa = data / "data" / "squad", folder / "tydiqa"
        self.wikipedia = data / "data" / "corpus" / "wikipedia-2015.parquet"
        self.weights = data / "models" / PARTS[name].weights

    def student(self, kind: str, seed: str) -> Path:
        """Return the folder of a student."""
        if kind not in ABLATIONS:
            return self.students / kind / f"seed-{seed}"
        return self.students / f"seed-{seed}" / kind

    def questions(self, data: str) -> tuple[Path, Path]:
        """Return the files of one data set of questions: to train on, and to evaluate."""
        if data == "tydiqa":
            return self.tydiqa / "train.json", self.tydiqa / "dev.json"
        return self.squad / f"{data}-train.json", self.squad / f"{data}-dev.json"

    def answers(self, data: str) -> Path:
        """Return the results folder of one data set of questions: each has tables of its own."""
        return self.results.with_name(f"{self.results.name}-{data}")


def pretraining(at: Places, steps: int, evaluations: int = 1) -> list[str]:
    """Return what every command that trains begins with."""
    return [sys.executable, "run_pretrain_distill.py", "--corpus", f"{at.text}/train.jsonl",
            "--corpus_dir", str(at.corpus), *PRETRAINING, "--max_steps", str(steps),
            "--eval_steps", str(steps // evaluations)]  # fmt: skip


def models(part: Part, at: Places) -> Iterator[Job]:
    """Yield the commands that make the models which are not there."""
    if not (at.text / "train.jsonl").is_file():
        divide = ("examples/evidence_text.py", str(at.text), "--corpus", str(at.wikipedia))
        yield Job("text", (sys.executable, *divide), slots=2, seconds=20)
    if not is_complete(at.teacher):
        resumed = ["--resume_from_checkpoint"] if any(at.teacher.glob("checkpoint-*")) else []
        yield Job(
            "teacher",
            (*pretraining(at, part.teacher_steps, 5), "--teacher", "none", "--student",
             str(at.weights), "--output_dir", str(at.teacher), "--seed", SEEDS[0], *resumed),
            ("text",), slots=2, seconds=part.teacher_steps,
        )  # fmt: skip
    student = [*pretraining(at, part.student_steps), "--resume_from_checkpoint"]
    for seed in SEEDS:
        if not all(is_complete(at.student(kind, seed)) for kind in ABLATIONS):
            yield Job(
                f"students-{seed}",
                (*student, "--teacher", str(at.teacher), "--ablation", "all", "--seeds", seed,
                 "--output_dir", str(at.students), AT_MASKS),
                ("teacher",), seconds=5 * part.student_steps, bars=len(ABLATIONS),
            )  # fmt: skip
        if not is_complete(at.student(NO_TEACHER, seed)):
            config = at.student(FULL, SEEDS[0]) / "config.json"
            yield Job(
                f"{NO_TEACHER}-{seed}",
                (*student, "--teacher", "none", "--student_init", "random", "--student",
                 str(config), "--tokenizer", str(at.teacher), "--output_dir",
                 str(at.students / NO_TEACHER), "--seeds", seed),
                (f"students-{SEEDS[0]}",), seconds=part.student_steps,
            )  # fmt: skip


def choices(part: Part, at: Places) -> Iterator[Job]:
    """Yield the commands that make the students of other choices which are not there."""
    for kind, flags in CHOICES.items():
        if not all(is_complete(at.student(kind, seed)) for seed in SEEDS):
            yield Job(
                kind,
                (*pretraining(at, part.student_steps), "--resume_from_checkpoint", "--teacher",
                 str(at.teacher), "--output_dir", str(at.students / kind), "--seeds", *SEEDS,
                 *flags),
                seconds=3 * part.student_steps, bars=3,
            )  # fmt: skip


def measurements(at: Places, kinds: Sequence[str]) -> Iterator[Job]:
    """Yield the commands that measure all models as they are, and fine-tune the teacher."""
    students = [str(at.student(kind, seed)) for kind in kinds for seed in SEEDS]
    pairs = [f"{at.text}/pairs/{kind}.jsonl" for kind in SWAPS]
    yield Job(
        "probe",
        (sys.executable, "-m", "eval_harness", "probe", "--teacher", str(at.teacher), "--model",
         *students, "--text", f"{at.text}/held-out.jsonl", "--pairs", *pairs, "--tasks", *PROBED,
         "--data_dir", str(at.hub), "--results_dir", str(at.results)),
        seconds=20 * len(students),
    )  # fmt: skip
    yield Job("teacher-tasks", fine_tuned(at, [at.teacher], TASKS, SEEDS), seconds=300)


def fine_tuning(at: Places) -> Iterator[Job]:
    """Yield the commands that fine-tune the students, that of a seed with this seed."""
    tasks = [task for task in TASKS if tells(at, task)]
    for seed in SEEDS if tasks else ():
        students = [at.student(kind, seed) for kind in KINDS]
        yield Job(f"student-tasks-{seed}", fine_tuned(at, students, tasks, [seed]))


def teachers_answering(at: Places) -> Iterator[Job]:
    """Yield the commands that fine-tune the teacher on questions, once, for all students."""
    if not at.questions("tydiqa")[1].is_file():  # the one that is written last
        source = at.squad / "tydiqa-en-train.json"
        divide = ("examples/evidence_questions.py", str(at.tydiqa), "--questions", str(source))
        yield Job("tydiqa", (sys.executable, *divide))
    for data in QUESTIONS:
        yield Job(
            f"{data}-teacher",
            (*answering(at, data, at.teacher, SEEDS[0]), "--save_models", "all"),
            (data,),  # only TyDi QA is divided by a job
            seconds=1200,
        )


def students_answering(at: Places) -> Iterator[Job]:
    """Yield the commands that fine-tune students on questions, with and without the teacher."""
    for data in QUESTIONS:
        teacher = saved_teacher(at, data)
        for seed in SEEDS:
            plain = answering(at, data, at.student(FULL, seed), seed)
            yield Job(f"{data}-plain-{seed}", plain, seconds=600)
            yield Job(f"{data}-distil-{seed}", (*plain, "--teacher", str(teacher)), seconds=700)


def saved_teacher(at: Places, data: str) -> Path:
    """Return the folder of the teacher that was fine-tuned on a data set of questions."""
    key = identify(str(at.teacher)).key
    saved = at.answers(data) / "models" / key / "squad"
    found = sorted(saved.glob(f"*/seed-{SEEDS[0]}"))
    if len(found) != 1:
        raise UserError(
            f"{saved}: {len(found)} teachers of seed {SEEDS[0]} instead of one: leave only the one "
            "that this command has made there"
        )
    return found[0]


def told_of_answers(at: Places) -> Iterator[str]:
    """Yield a line for each data set of questions: by how much (D) is better, and if that counts.

    Holm's correction is over all data sets, also where the teacher leads on one alone.
    """
    found = {data: differences_on(at, data) for data in QUESTIONS}
    known = {data: of_d.p for data, (_, of_d) in found.items() if of_d.p is not None}
    # A difference without an interval counts among those that are corrected for.
    ranked = holm([*known.values(), *[1.0] * (len(found) - len(known))])
    adjusted = dict(zip(known, ranked, strict=False))
    for data, (lead, of_d) in found.items():
        leads = lead.half is not None and lead.value > lead.half
        told = leads and adjusted.get(data, 1.0) < LEVEL
        yield (
            f"{data}: the teacher leads by {difference_text(lead, 1, told=False)}, (D) adds "
            f"{difference_text(of_d, 1, told=told)}, p {adjusted.get(data, 1.0):.3f} after "
            f"correction: {'told' if told else NOT_TOLD}"
        )


def differences_on(at: Places, data: str) -> tuple[Difference, Difference]:
    """Return the teacher minus its plain students, and students by (D) minus plain, in F1."""
    root = at.answers(data)
    rows = load_results(find(root), root).rows
    teacher = identify(str(at.teacher)).key
    students = {identify(str(at.student(FULL, seed))).key for seed in SEEDS}
    entries = {
        name: Entry(name, row, root)
        for row in rows
        for name, keys, has_method in (
            ("teacher", {teacher}, False), ("plain", students, False), ("distilled", students, True)
        )
        if row.keys == keys and bool(row.settings.get("method")) == has_method
    }  # fmt: skip
    found = compare_rows([entries[name] for name in ("plain", "teacher", "distilled")], ["squad"])
    return found.differences["squad", "teacher"], found.differences["squad", "distilled"]


def answering(at: Places, data: str, model: Path, seed: str) -> tuple[str, ...]:
    """Return the command that fine-tunes a model on questions."""
    train, validation = at.questions(data)
    return (sys.executable, "run_squad_distill.py", "--model", str(model), "--seeds", seed,
            "--train_file", str(train), "--validation_file", str(validation),
            *QUESTIONS[data], *ANSWERING, "--workers", "1", "--threads", "1", "--results_dir",
            str(at.answers(data)))  # fmt: skip


def fine_tuned(
    at: Places, models: Sequence[Path], tasks: Sequence[str], seeds: Sequence[str]
) -> tuple[str, ...]:
    """Return the command that fine-tunes models."""
    return (sys.executable, "run_glue.py", "--model", *map(str, models), "--tasks", *tasks,
            "--seeds", *seeds, "--workers", "1", "--threads", "1", *FINE_TUNING, "--data_dir",
            str(at.hub), "--results_dir", str(at.results))  # fmt: skip


def tells(at: Places, name: str) -> bool:
    """Return whether the teacher beats one answer for all by more than its interval; print it."""
    key, task = identify(str(at.teacher)).key, task_named(name)
    rows = load_results(find(at.results), at.results).rows
    row = next(row for row in rows if row.model.key == key and name in row.cells)
    labels = load_task(task, at.hub, limit=LIMIT, train=False).evaluation[0].labels
    most = labels.mean() if task.is_regression else np.bincount(labels).argmax()
    with np.errstate(all="ignore"):  # the correlation of a constant is none, which counts as 0
        constant = 100 * np.nan_to_num(
            compute_metrics(task, np.full_like(labels, most), labels)["score"]
        )
    base = Scores(np.array([constant]), np.full((1, RESAMPLES), constant), (None,), len(labels))
    found = difference(scores_by_seed(row, [name], at.results), base)
    is_told = found is not None and found.half is not None and found.value > found.half
    beyond = "no results" if found is None else difference_text(found, 1, told=False)
    print(f"{name}: beyond one answer for all ({constant:.1f}) the teacher has {beyond}: {is_told}")
    return is_told


def run(options: Options) -> int:
    """Run what is not done of a part."""
    folder, data, results = (
        Path(each).expanduser().resolve()
        for each in (options.folder, options.data, options.results_dir)
    )
    part, at = PARTS[options.part], Places(folder, options.part, data, results)
    for needed in (at.weights, at.hub, at.wikipedia, *([at.squad] if part.has_questions else [])):
        if not needed.exists():
            raise UserError(
                f"{needed} is missing: DATA holds models/, data/hub, data/corpus and data/squad"
            )
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with lock_folder(folder) as lock:
        stages = [models(part, at), measurements(at, KINDS), fine_tuning(at)]
        if part.has_choices:
            stages += [choices(part, at), measurements(at, (*KINDS, *CHOICES))]
        if part.has_questions:
            stages += [teachers_answering(at), students_answering(at)]
        for stage in stages:
            status = _run(options.part, list(stage), folder / "logs", lock)
            if status != DONE:
                return status
    if part.has_questions:
        print(*told_of_answers(at), sep="\n")
    return DONE


def _run(name: str, todo: Sequence[Job], logs: Path, lock: int) -> int:
    left = {job.name for job in todo}
    todo = [replace(job, needs=[each for each in job.needs if each in left]) for job in todo]
    for job in todo:
        print(shlex.join(job.words), flush=True)
    # Models this small are fastest on one thread, and two commands run side by side.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    runner = Runner(todo, logs, lock, folder=ROOT, environment=environment)
    with bar_of(name) as bar:

        def watched(share: float, running: str) -> None:
            bar.set_postfix_str(running, refresh=False)
            bar.update(100 * share - bar.n)

        failed = runner.run(lambda job, took: bar.write(f"{job.name}: {took:.0f} s"), watched)
    if failed is None:
        return DONE
    job, status = failed
    print(f"{job.name} stopped: {logs / job.name}.txt; run the same command to go on")
    return status if status - 128 in SIGNALS else RUN_FAILED


COMMAND = Command(
    name="evidence",
    summary="repeats the study of the triple loss that results/README.md tells of",
    flags=(
        Flag("part", "teacher of the part", required=True, first=True, choices=tuple(PARTS)),
        Flag("folder", "folder for models and logs", required=True, metavar="DIR"),
        Flag("data", "folder of models, GLUE, SQuAD and the corpus", required=True, metavar="DATA"),
        Flag("results_dir", "folder that results are saved to", default="results", metavar="DIR"),
    ),
    run=run,
    examples=("python examples/evidence.py tiny --folder study --data data",),
)


if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
