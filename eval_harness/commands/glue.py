"""`run_glue.py`: fine-tunes models on all tasks but SQuAD, custom ones too; prints their tables.

python run_glue.py --model distilbert
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from angels_share.cli import Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero, not_negative
from angels_share.hub.push_flags import PUSH_FLAGS
from eval_harness.commands.carry_out import (
    carry_out,
    print_saved,
    push_chosen,
    show,
    status_of,
    submission_folder,
)
from eval_harness.commands.shared_flags import (
    ALPHA_CE,
    DATA_DIR,
    DATA_REVISION,
    EVAL_ONLY,
    MODEL,
    NO_TEACHER_CACHE,
    OTHER_SCRIPTS,
    SWEEP,
    TEMPERATURE,
    evaluation_alone,
    shared_settings,
)
from eval_harness.publish.models import destinations
from eval_harness.results.predictions import ClassPredictions
from eval_harness.results.store import load, path_of, read_predictions
from eval_harness.results.submission import write_submission
from eval_harness.runs.language_models import settings_for
from eval_harness.runs.run import Run
from eval_harness.runs.settings import training_use
from eval_harness.sweep.plan import Experiment, Plan, lacks_outputs, plan
from eval_harness.tables.perplexity import PSEUDO_TABLE
from eval_harness.tasks.kinds import PERPLEXITY
from eval_harness.tasks.lookup import tasks_named
from eval_harness.tasks.registry import PERPLEXITY_TABLE, TASKS, Task


def run(options: Options) -> int:
    """Do the missing runs, write tables and submissions, print the tables of these tasks."""
    (planned,) = plans(options)
    _say_context(planned)
    if options.dry_run:
        return show(planned, options)
    places = destinations(planned, options)
    carried = carry_out(planned, options, _tables_of(planned))
    if options.predict_test:
        for task in planned.tasks:
            _write_submissions(planned, task, [run for run in carried.runs if run.task == task])
    print_saved(carried)
    return status_of(carried, push_chosen(planned, carried, places))


def _tables_of(planned: Plan) -> set[str]:
    tables: set[str] = {task.table for task in planned.tasks}
    return tables | ({PSEUDO_TABLE} if PERPLEXITY_TABLE in tables else set())


def plans(options: Options, tasks: Sequence[Task] | None = None) -> list[Plan]:
    """Return the plan of the experiment that the flags describe.

    Args:
        options: the flags.
        tasks: the tasks, where they are not named by a flag.

    Raises:
        UserError: whatever `experiment` and `plan` refuse.
    """
    return [plan(experiment(options, tasks), dry_run=options.dry_run)]


def experiment(options: Options, tasks: Sequence[Task] | None = None) -> Experiment:
    """Return the experiment that the flags describe.

    Args:
        options: the flags.
        tasks: the tasks, where they are not named by a flag.

    Raises:
        UserError: unknown task, task of another command, or contradictory flags.
    """
    tasks = tasks_named(options.tasks) if tasks is None else tuple(tasks)
    for task in tasks:
        if task.kind.command != _NAME:
            raise UserError(f"--tasks {task.name}: run {task.title} with {task.kind.command}.py")
        if task.averages and options.choose == "best":
            raise UserError(
                f"--choose best: {task.title} is judged on test sets alone, where no epoch may be "
                "chosen"
            )
        if options.teacher and task.kind == PERPLEXITY:
            raise UserError(
                f"--teacher: {task.title} is plain text, on which run_pretrain_distill.py distils; "
                "its students are judged here without --teacher"
            )
    _check_transfer_set(options)
    folder = Path(options.data_dir).expanduser().resolve() if options.data_dir else None
    weights = ("alpha_ce", "alpha_task", "temperature")
    return Experiment(
        program=_NAME,
        tasks=tasks,
        given={**options.training, **_lengths(options, tasks)},
        distillation={name: options.values[name] for name in weights},
        transfer_set=tuple(options.transfer_set or ()),
        data_dir=str(folder) if folder else None,
        predict_test=options.predict_test,
        **{**shared_settings(options), **evaluation_alone(options)},
    )


def _check_transfer_set(options: Options) -> None:
    """Refuse texts without labels where nobody answers them."""
    if options.transfer_set and not options.teacher:
        raise UserError(
            "--transfer_set needs --teacher: unlabelled text has only a teacher's soft targets"
        )
    if options.transfer_set and options.alpha_ce == 0:
        raise UserError(
            "--alpha_ce 0 switches off the soft targets, which are all that --transfer_set has"
        )


def _lengths(options: Options, tasks: Sequence[Task]) -> dict[str, int]:
    """Return the given lengths; refuse one that no task has."""
    names = ("max_seq_length", "context", "stride")
    given = {name: options.values[name] for name in names if options.values[name] is not None}
    for name in given:
        if not any(name in task.kind.lengths for task in tasks):
            instead = "--context" if name == "max_seq_length" else "--max_seq_length"
            raise UserError(f"--{name}: none of these tasks has it; theirs is {instead}")
    return given


def _say_context(planned: Plan) -> None:
    """Say where a model reads less at a time than the default."""
    for task in planned.tasks:
        if task.kind != PERPLEXITY:
            continue
        for model in planned.models:
            given = planned.experiment.given_for(task)
            wanted = {**task.fine_tuning, **given}
            found = settings_for(model, wanted, given)
            if (found["context"], found["stride"]) != (wanted["context"], wanted["stride"]):
                sys.stderr.write(
                    f"{_NAME}: {model.name} on {task.title}: context {found['context']}, stride "
                    f"{found['stride']}: as much as fits at a time\n"
                )


def _write_submissions(planned: Plan, task: Task, runs: Iterable[Run]) -> None:
    """Write GLUE server submissions, one folder per model, setting and seed."""
    if task.glue is None:
        sys.stderr.write(f"{_NAME}: {task.title} is not one of GLUE's tasks: no submission file\n")
        return
    tests = planned.experiment.load(task).test
    for run in runs:
        if lacks_outputs(planned.root, run):
            continue  # an older result without test predictions: the sweep has reported it
        result = load(path_of(planned.root, run.key))
        predictions = read_predictions(planned.root, result, ClassPredictions)
        folder = submission_folder(planned.root, run, run.settings.row_hash)
        for part in tests:
            chosen = [name == part.name for name in predictions.split]
            print(write_submission(folder, task, part, predictions.logits[chosen]))  # noqa: T201


_NAME = "run_glue"
_OWN_FILES = "use --data_dir; for a task of your own, --tasks my.yaml names its files"

COMMAND = Command(
    name=_NAME,
    summary="fine-tunes models on GLUE and other tasks, custom ones too, over several seeds",
    flags=(
        MODEL,
        Flag(
            "tasks",
            "tasks to evaluate; `all` means the nine of GLUE; a .yaml file is a custom task",
            default=["all"],
            many=True,
            alias="task_name",
        ),
        Flag("teacher", "distil from this model while fine-tuning; the result is marked (D)"),
        ALPHA_CE,
        Flag("alpha_task", "weight of the loss on the true labels", float, 0.5, check=not_negative),
        TEMPERATURE,
        Flag(
            "transfer_set",
            "texts without labels, of which only the teacher's soft targets are learned: .txt (a "
            "text a line), files with the task's text columns, or a Hub data set's train split",
            many=True,
        ),
        DATA_DIR,
        DATA_REVISION,
        Flag(
            "max_seq_length",
            "maximum sequence length in tokens [128; IMDb 512]",
            int,
            check=above_zero,
        ),
        Flag(
            "context",
            "perplexity: tokens that a model reads at a time, as a block of training has [1024, or "
            "as many as it can]",
            int,
            check=above_zero,
        ),
        Flag(
            "stride",
            "perplexity: tokens by which the window moves: each but a document's first sees at "
            "least context - stride before it [512]",
            int,
            check=above_zero,
        ),
        EVAL_ONLY,
        Flag("predict_test", "also predict the test splits, as files for GLUE's server", bool),
        NO_TEACHER_CACHE,
        *SWEEP,
        *PUSH_FLAGS,
    ),
    run=run,
    examples=(
        "python run_glue.py --model distilbert",
        "python run_glue.py --model bert distilbert --tasks cola rte --num_seeds 3 --workers 2",
        "python run_glue.py --model my-distil --data_dir glue_data --learning_rate 5e-5",
        "python run_glue.py --model distilbert --teacher bert --tasks rte mrpc",
        "python run_glue.py --model distilbert --teacher bert --tasks sst2 --transfer_set more.txt",
        "python run_glue.py --model distilbert-cased --tasks conll2003 --data_dir conll",
        "python run_glue.py --model distilmbert --tasks xnli",
        "python run_glue.py --model distilgpt2 --tasks wikitext-2-raw --eval_only",
        "python run_glue.py --model my-sst2/onnx/model_quantized.onnx --tasks sst2",
    ),
    training=training_use([task for task in TASKS if task.kind.command == _NAME]),
    instead={
        **OTHER_SCRIPTS,
        "train_file": _OWN_FILES,
        "validation_file": _OWN_FILES,
        "test_file": _OWN_FILES,
        "dataset_name": "use --tasks: one of `python -m eval_harness tasks`, or a .yaml file",
        "dataset_config_name": "use --tasks, which knows the configuration",
        "alpha_squad": "use --alpha_task",
        "pad_to_max_length": "batches are as wide as their longest example",
    },
)
