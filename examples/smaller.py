"""From a teacher to a file that runs anywhere: `python examples/smaller.py OUT --teacher bert ...`.

Teacher, fine-tuned; student of half its layers, distilled on the task (D); the student cut to its
most important parts, which learns from the teacher once more; ONNX; int8. Each is evaluated as it
is on the same task, and the last screen says what each step cost. After an interruption run the
same command again: what is finished is not done again.
"""

import json
import sys
from pathlib import Path
from typing import Any

from commands import lock_folder

from angels_share.cli import DONE, Command, run_command
from angels_share.errors import RunFailed, UserError
from angels_share.files import (
    require_writable_folder,
    sha256_of_file,
    write_atomically,
    write_json,
)
from angels_share.flags import Flag, Options, above_zero
from angels_share.hub.locate import locate
from angels_share.model_files import ONNX, ONNX_INT8, WEIGHTS
from angels_share.student_record import add_step
from distil_trainer.commands import export, prune
from eval_harness.commands import lineage
from eval_harness.data.splits import load_task
from eval_harness.tasks.lookup import task_named

RECORD = "smaller.json"
"""The flags that the folder was begun with."""
_LABELS = ("teacher", "student (D)", "cut, (D) again", "ONNX", "int8")


def _share(value: float) -> str | None:
    return None if 0 < value <= 1 else "must be above 0 and at most 1"


def run(options: Options) -> int:
    """Go the whole way, or what is left of it; return the exit status."""
    out = require_writable_folder(options.out, "OUT")
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out):
        _require_same(options, out / RECORD)
        return _go(options, out)


def _require_same(options: Options, record: Path) -> None:
    """Refuse other flags than those that a folder was begun with: what is there would stay."""
    asked = _asked(options)
    if not record.exists():
        return
    begun = json.loads(record.read_text(encoding="utf-8"))
    for name in asked:
        if begun.get(name) != asked[name]:
            raise UserError(
                f"{record.parent} was begun with --{name} {begun.get(name)}, not {asked[name]}: "
                "name another folder"
            )


def _asked(options: Options) -> dict[str, Any]:
    return {name: value for name, value in options.values.items() if name != "out"}


def _go(options: Options, out: Path) -> int:
    task = task_named(options.task)
    if task.kind.name != "texts":
        raise UserError(f"--task {task.name}: {task.title} has no labelled texts to score a cut on")
    data_dir = Path(options.data_dir).expanduser() if options.data_dir else None
    rows = load_task(task, data_dir, limit=options.limit)
    assert rows.train is not None
    locate(options.teacher)
    if options.ffn == options.width == 1:
        raise UserError("--ffn 1 --width 1: nothing would be cut; set one of them below 1")
    write_json(out / RECORD, _asked(options))  # now that they can be used
    train, dev = (out / f"{name}.jsonl" for name in ("train", "dev"))
    columns = list(task.columns)
    for path, split in ((train, rows.train), (dev, rows.evaluation[0])):
        lines = [json.dumps(dict(zip(columns, texts, strict=True))) for texts in split.rows]
        write_atomically(path, "\n".join([*lines, ""]))
    count = len(rows.train)
    seeds = f"{options.num_seeds} seed{'s' if options.num_seeds > 1 else ''}"
    _say(
        f"{task.title}: 3 fine-tunings of {count:,} examples, {seeds} of each student and 1 of the "
        f"teacher, a cut scored on {min(count, options.rows):,} texts, 2 exported files; "
        f"`run_glue.py --model {options.teacher} --tasks {task.name} --dry_run` says how long a "
        "fine-tuning takes"
    )
    way = _Way(options, out, task.name, data_dir)
    teacher = way.tuned(options.teacher, seeds=1)
    student = way.tuned(str(options.student or way.half()), teacher=teacher)
    cut = way.tuned(str(way.cut(student, train, columns)), teacher=teacher)
    files = way.exported(cut, dev, columns)
    models = [teacher, student, cut, *map(str, files)]
    way.judge(models)
    words = [*models, "--labels", *_LABELS, "--tasks", task.name, "--results_dir", way.results]
    return run_command(lineage.COMMAND, words)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Way:
    """The steps, each of which finds out by itself whether it is done."""

    def __init__(self, options: Options, out: Path, task: str, data_dir: Path | None) -> None:
        self.options, self.out, self.task = options, out, task
        self.results = str(out / "results")
        shared = {"data_dir": data_dir, "limit": options.limit, "results_dir": self.results}
        self.shared: dict[str, Any] = {k: v for k, v in shared.items() if v is not None}

    def tuned(self, model: str, *, teacher: str | None = None, seeds: int | None = None) -> str:
        """Fine-tune a model, and return the folder of the one that is kept."""
        from eval_harness.api import evaluate

        _say(f"fine-tune {Path(model).name}{' from its teacher' if teacher else ''}")
        more: dict[str, Any] = {"learning_rate": self.options.learning_rate}
        results = evaluate(
            model,
            self.task,
            seeds=seeds or self.options.num_seeds,
            teacher=teacher,
            save_models="best",
            **self.shared,
            **{name: value for name, value in more.items() if value is not None},
        )
        (folder,) = results.saved_models().values()
        return str(folder)

    def half(self) -> Path:
        """Make a student of half of the teacher's layers, and return its folder."""
        folder = self.out / "half"
        if not (folder / "config.json").exists():
            from angels_share.files import replace_folder
            from angels_share.tokenizing import load_tokenizer
            from angels_share.untrusted import quiet_transformers
            from distil_trainer import load_model, make_student

            draft = self.out / ".half"
            student = make_student(load_model(self.options.teacher))
            with quiet_transformers():
                student.save_pretrained(draft)
            step = {
                "what": "halved",
                "file": WEIGHTS,
                "from": {"name": Path(self.options.teacher).name},
                "sha256": sha256_of_file(draft / WEIGHTS),
            }
            add_step(draft, step)
            load_tokenizer(self.options.teacher).save_pretrained(draft)
            replace_folder(draft, folder, self.out / ".half-before")
        return folder

    def cut(self, model: str, train: Path, columns: list[str]) -> Path:
        """Cut a model, and return the folder of what is left."""
        folder = self.out / f"cut-{Path(model).name}"
        if not (folder / "distil.json").exists():
            shares = {"ffn": self.options.ffn, "width": self.options.width}
            words = [model, "--output_dir", str(folder), "--data", str(train)]
            words += ["--rows", str(self.options.rows), "--text_columns", *columns]
            for name, share in shares.items():
                words += [f"--{name}", str(share)]
            _require(run_command(prune.COMMAND, words), "prune")
        return folder

    def exported(self, model: str, dev: Path, columns: list[str]) -> list[Path]:
        """Export a model in float32 and int8, and return the two files."""
        folder = self.out / f"edge-{Path(model).name}"
        files = [folder / name for name in (ONNX, ONNX_INT8)]
        if not all(file.exists() for file in files):
            words = [model, "--output_dir", str(folder), "--quantize", "int8", "--check", str(dev)]
            words += ["--text_columns", *columns]
            _require(run_command(export.COMMAND, words), "export")
        return files

    def judge(self, models: list[str]) -> None:
        """Evaluate models as they are."""
        from eval_harness.api import evaluate

        _say(f"evaluate {len(models)} models as they are")
        evaluate(models, self.task, eval_only=True, **self.shared)


def _require(status: int, name: str) -> None:
    """Stop where a command failed; it has said why."""
    if status != DONE:
        raise RunFailed(f"{name} ended with status {status}")


COMMAND = Command(
    name="smaller",
    summary="goes from a teacher to int8: fine-tuned, halved, distilled, cut, exported, judged",
    flags=(
        Flag("out", "folder for everything", required=True, first=True),
        Flag("teacher", "short name, folder or Hub id", required=True),
        Flag("task", "task of texts with labels, such as sst2", required=True),
        Flag("data_dir", "folder with the task's data [the Hub]", metavar="DIR"),
        Flag("student", "its student [half of its layers]"),
        Flag("ffn", "share of feed-forward neurons that the cut keeps", float, 0.5, check=_share),
        Flag("width", "share of the hidden size that it keeps", float, 1.0, check=_share),
        Flag("rows", "texts that it is scored on", int, 512, check=above_zero),
        Flag("num_seeds", "seeds of each student", int, 1, check=above_zero),
        Flag("learning_rate", "of all fine-tunings [the task's]", float, check=above_zero),
        Flag("limit", "maximum number of examples per split", int, check=above_zero),
    ),
    run=run,
    examples=(
        "python examples/smaller.py smaller --teacher bert --task sst2",
        "python examples/smaller.py smaller --teacher my-model --task rte --data_dir glue_data",
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
