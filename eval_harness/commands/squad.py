"""What `run_squad_distill.py` does: questions and models in; results, Table 2 and answers out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from angels_share.cli import DONE, RUN_FAILED
from angels_share.errors import UserError
from angels_share.flags import Options
from angels_share.tokenizing import load_tokenizer
from eval_harness.results.store import load, path_of, read_answers
from eval_harness.results.submission import write_answers
from eval_harness.runs.run import Run
from eval_harness.squad.windows import require_room
from eval_harness.sweep.plan import Plan, Wanted, carry_out, submission_folder
from eval_harness.sweep.plan import plan as plan_of
from eval_harness.tasks.registry import Task, task_named

_LENGTHS = ("max_seq_length", "doc_stride", "max_query_length")
_FILES = {"train": "train_file", "validation": "validation_file"}


def plan(options: Options) -> Plan:
    """Looks up all that a command names, so that a mistake shows before any work.

    Raises:
        UserError: an unknown name, data that can't be read, a flag that isn't for here.
    """
    task = _task(options)
    if options.kd_over_all_positions and "pad_to_max_length" in options.given:
        raise UserError("--kd_over_all_positions pads every window: leave --pad_to_max_length out")
    given = _given(task, options)
    what = plan_of(
        options,
        Wanted(
            program="run_squad_distill",
            tasks=(task,),
            given=given,
            distil=_distil(options),
            # As the original's windows, which were padded, and whose padding took part.
            student_given={"pad_to_max_length": True} if options.kd_over_all_positions else {},
            data_revision=options.data_revision,
        ),
    )
    lengths = {name: {**task.fine_tuning, **given}[name] for name in _LENGTHS}
    for model in filter(None, (*what.models, what.teacher)):
        try:
            require_room(load_tokenizer(model.source, model.revision), **lengths)
        except UserError as error:
            raise UserError(f"{model.name}: {error}") from error
    return what


def _task(options: Options) -> Task:
    """SQuAD 1.1 or 2.0, from the files that were named."""
    files = {}
    for split, flag in _FILES.items():
        if (name := options.values[flag]) is not None:
            path = Path(name).expanduser()
            if not path.is_file():
                raise UserError(f"--{flag} {name}: there is no such file")
            files[split] = str(path.resolve())
    row = task_named("squad_v2" if options.version_2_with_negative else "squad")
    return replace(row, files=files)


def _given(task: Task, options: Options) -> dict[str, Any]:
    """What the user set, without what the task has by default."""
    if options.training.get("label_smoothing_factor"):
        raise UserError("--label_smoothing_factor is of classes: an answer has one place")
    if "null_score_diff_threshold" in options.given and not task.allows_no_answer:
        raise UserError("--null_score_diff_threshold wants --version_2_with_negative")
    own = {
        name: options.values[name]
        for name in task.fine_tuning
        if name in options.values and options.values[name] is not None
    }
    given = {**options.training, **own}
    return {name: value for name, value in given.items() if task.fine_tuning.get(name) != value}


def _distil(options: Options) -> Mapping[str, Any]:
    weights = {
        "alpha_ce": options.alpha_ce,
        "alpha_task": options.alpha_squad,
        "temperature": options.temperature,
    }
    return {**weights, **({"kd_over_all_positions": True} if options.kd_over_all_positions else {})}


def judge(options: Options) -> int:
    """Does the runs that are missing, writes the tables and answers, prints Table 2."""
    what = plan(options)
    outcome, runs = carry_out(what, ["table2"])
    for run in runs:
        _write_answers(what, run)
    return RUN_FAILED if outcome.failed else DONE


def _write_answers(what: Plan, run: Run) -> None:
    """A run's answers as SQuAD's own evaluation reads them."""
    answered = read_answers(what.root, load(path_of(what.root, run.key)))
    # By all settings: the same row of a table may be of several data sets.
    folder = submission_folder(what, run, run.settings.hash)
    for written in write_answers(folder, run.task.name, answered):
        print(written)  # noqa: T201
