"""`run_squad_distill.py`: fine-tunes on SQuAD, plainly or with a teacher (D), and prints Table 2.

python run_squad_distill.py --model distilbert --teacher bert
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from angels_share.cli import DONE, RUN_FAILED, Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero, not_negative
from angels_share.tokenizing import load_tokenizer
from eval_harness.commands.carry_out import carry_out, submission_folder
from eval_harness.commands.sweep_flags import (
    ALPHA_CE,
    MODEL,
    NO_TEACHER_CACHE,
    SWEEP,
    TEMPERATURE,
    shared_settings,
)
from eval_harness.results.predictions import AnsweredQuestions
from eval_harness.results.store import load, path_of, read_predictions
from eval_harness.results.submission import write_answers
from eval_harness.runs.run import Run
from eval_harness.squad.windows import require_room
from eval_harness.sweep.plan import Experiment, Plan, plan
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import Task

_FILES = {"train": "train_file", "validation": "validation_file"}


def run(options: Options) -> int:
    """Make the runs that are missing, write the tables and answers, print Table 2."""
    planned = checked_plan(experiment(options))
    outcome, runs = carry_out(planned, options, ["table2"])
    for each in runs:
        _write_answers(planned, each)
    return RUN_FAILED if outcome.failed else DONE


def experiment(options: Options) -> Experiment:
    """Return what the flags ask for.

    Raises:
        UserError: a file that isn't there, or flags that contradict each other.
    """
    task = _task(options)
    over_all = options.kd_over_all_positions
    if over_all and "pad_to_max_length" in options.given:
        raise UserError("--kd_over_all_positions pads every window: leave --pad_to_max_length out")
    return Experiment(
        program=_NAME,
        tasks=(task,),
        given=_given(task, options),
        distillation={
            "alpha_ce": options.alpha_ce,
            "alpha_task": options.alpha_squad,
            "temperature": options.temperature,
            **({"kd_over_all_positions": True} if over_all else {}),
        },
        # As the original's windows, which were padded, and whose padding took part.
        student_given={"pad_to_max_length": True} if over_all else {},
        **shared_settings(options),
    )


def checked_plan(wanted: Experiment) -> Plan:
    """Plan an experiment, and refuse lengths that leave no room for a context.

    Raises:
        UserError: likewise, and whatever planning refuses.
    """
    planned = plan(wanted)
    (task,) = wanted.tasks
    values = {**task.fine_tuning, **wanted.given}
    lengths = {name: values[name] for name in task.kind.lengths}
    for model in filter(None, (*planned.models, planned.teacher)):
        try:
            require_room(load_tokenizer(model.source, model.revision), **lengths)
        except UserError as error:
            raise UserError(f"{model.name}: {error}") from error
    return planned


def _task(options: Options) -> Task:
    """Return SQuAD 1.1 or 2.0, with the files that were named."""
    files = {}
    for split, flag in _FILES.items():
        if (name := options.values[flag]) is not None:
            path = Path(name).expanduser()
            if not path.is_file():
                raise UserError(f"--{flag} {name}: there is no such file")
            files[split] = str(path.resolve())
    row = task_named("squad_v2" if options.version_2_with_negative else "squad")
    return replace(row, files=files)


def _given(task: Task, options: Options) -> Mapping[str, Any]:
    """Return what the user set, without what the task has by default."""
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


def _write_answers(planned: Plan, run: Run) -> None:
    """Write a run's answers as SQuAD's own evaluation reads them."""
    result = load(path_of(planned.root, run.key))
    answered = read_predictions(planned.root, result, AnsweredQuestions)
    # By all settings: the same row of a table may be of several data sets.
    folder = submission_folder(planned.root, run, run.settings.hash)
    for written in write_answers(folder, run.task.name, answered):
        print(written)  # noqa: T201


_NAME = "run_squad_distill"

COMMAND = Command(
    name=_NAME,
    summary="fine-tunes on SQuAD, plainly or with a second step of distillation (D)",
    flags=(
        MODEL,
        Flag("teacher", "distil from this model; fine-tuned first where it is no QA model yet"),
        ALPHA_CE,
        Flag("alpha_squad", "weight of the true answers", float, 0.5, check=not_negative),
        TEMPERATURE,
        Flag(
            "kd_over_all_positions",
            "soft targets over padding and question too, as the original's; pads every window",
            bool,
        ),
        Flag("train_file", "SQuAD JSON, or parquet, json, to train on [the Hub's]"),
        Flag("validation_file", "the same, to evaluate on [the Hub's]"),
        Flag("data_revision", "the commit of the data set on the Hub [the newest]"),
        Flag(
            "version_2_with_negative",
            "SQuAD 2.0: a question may have no answer",
            bool,
        ),
        Flag("max_seq_length", "tokens of a window [384]", int, check=above_zero),
        Flag("doc_stride", "tokens that windows share [128]", int, check=above_zero),
        Flag("max_query_length", "tokens of the longest question [64]", int, check=above_zero),
        Flag("n_best_size", "starts and ends that are paired [20]", int, check=above_zero),
        Flag("max_answer_length", "tokens of the longest answer [30]", int, check=above_zero),
        Flag(
            "null_score_diff_threshold",
            "SQuAD 2.0: by how much no answer must be the better one [0]",
            float,
        ),
        Flag("pad_to_max_length", "every window padded to max_seq_length", bool),
        NO_TEACHER_CACHE,
        *SWEEP,
    ),
    run=run,
    examples=(
        "python run_squad_distill.py --model distilbert --teacher bert",
        "python run_squad_distill.py --model my-distil --train_file train-v1.1.json "
        "--validation_file dev-v1.1.json",
        "python run_squad_distill.py --model distilbert --version_2_with_negative --num_seeds 3",
    ),
    takes_training_flags=True,
)
