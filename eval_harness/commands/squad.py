"""`run_squad_distill.py`: fine-tunes on SQuAD, plainly or with a teacher (D), and prints Table 2.

python run_squad_distill.py --model distilbert --teacher bert
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from angels_share.cli import Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero, not_negative
from angels_share.hub.push_flags import PUSH_FLAGS
from angels_share.tokenizing import load_tokenizer
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
from eval_harness.results.predictions import AnsweredQuestions
from eval_harness.results.store import load, path_of, read_predictions
from eval_harness.results.submission import write_answers
from eval_harness.runs.run import Run
from eval_harness.runs.settings import training_use
from eval_harness.squad.windows import require_room
from eval_harness.sweep.plan import Experiment, Plan, plan
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import TASKS, Task

_NO_SMOOTHING = "it applies to classes, not to answer spans"
_FILES = {"train": "train_file", "validation": "validation_file"}


def run(options: Options) -> int:
    """Do the missing runs, write tables and answers, print Table 2."""
    (planned,) = plans(options)
    if options.dry_run:
        return show(planned, options)
    places = destinations(planned, options)
    carried = carry_out(planned, options, ["table2"])
    for each in carried.runs:
        _write_answers(planned, each)
    print_saved(carried)
    return status_of(carried, push_chosen(planned, carried, places))


def plans(options: Options, tasks: Sequence[Task] | None = None) -> list[Plan]:
    """Return the plan of each task's experiment: SQuAD 1.1 and 2.0 take different flags.

    Args:
        options: the flags.
        tasks: the tasks, where they are not chosen by a flag.

    Raises:
        UserError: whatever `experiment` and `checked_plan` refuse.
    """
    return [
        checked_plan(experiment(options, task), dry_run=options.dry_run)
        for task in tasks or (_chosen(options),)
    ]


def experiment(options: Options, task: Task | None = None) -> Experiment:
    """Return the experiment that the flags describe.

    Args:
        options: the flags.
        task: SQuAD 1.1 or 2.0, where it is not chosen by a flag.

    Raises:
        UserError: missing file, or contradictory flags.
    """
    task = _with_files(task or _chosen(options), options)
    over_all = options.kd_over_all_positions
    if over_all and "pad_to_max_length" in options.given:
        raise UserError("--kd_over_all_positions pads every window: drop --pad_to_max_length")
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
        # The original padded every window, and its loss covered the padding.
        student_given={"pad_to_max_length": True} if over_all else {},
        **{**shared_settings(options), **evaluation_alone(options)},
    )


def checked_plan(experiment: Experiment, *, dry_run: bool = False) -> Plan:
    """Plan an experiment, and refuse lengths that leave no room for a context.

    Args:
        experiment: the experiment.
        dry_run: as in `plan`.

    Raises:
        UserError: lengths without room, or whatever `plan` refuses.
    """
    planned = plan(experiment, dry_run=dry_run)
    (task,) = experiment.tasks
    values = {**task.fine_tuning, **experiment.given}
    lengths = {name: values[name] for name in task.kind.lengths}
    for model in filter(None, (*planned.models, planned.teacher)):
        try:
            require_room(load_tokenizer(model.home, model.revision), **lengths)
        except UserError as error:
            raise UserError(f"{model.name}: {error}") from error
    return planned


def _chosen(options: Options) -> Task:
    return task_named("squad_v2" if options.version_2_with_negative else "squad")


def _with_files(task: Task, options: Options) -> Task:
    """Return the task with the files that the flags name."""
    files = {}
    for split, flag in _FILES.items():
        if (name := options.values[flag]) is not None:
            path = Path(name).expanduser()
            if not path.is_file():
                raise UserError(f"--{flag} {name}: no such file")
            files[split] = str(path.resolve())
    return replace(task, files=files)


def _given(task: Task, options: Options) -> Mapping[str, Any]:
    """Return the settings that the user gave, without those that equal the task's defaults."""
    if options.training.get("label_smoothing_factor"):
        raise UserError(f"--label_smoothing_factor: {_NO_SMOOTHING}")
    if "null_score_diff_threshold" in options.given and not task.allows_no_answer:
        raise UserError("--null_score_diff_threshold needs --version_2_with_negative")
    task_flags = {
        name: options.values[name]
        for name in task.fine_tuning
        if name in options.values and options.values[name] is not None
    }
    given = {**options.training, **task_flags}
    return {name: value for name, value in given.items() if task.fine_tuning.get(name) != value}


def _write_answers(planned: Plan, run: Run) -> None:
    """Write a run's answers in the format of SQuAD's own evaluation script."""
    result = load(path_of(planned.root, run.key))
    answered = read_predictions(planned.root, result, AnsweredQuestions)
    # The full hash, not the row's: one row of a table may cover several data sets.
    folder = submission_folder(planned.root, run, run.settings.hash)
    for written in write_answers(folder, run.task.name, answered):
        print(written)  # noqa: T201


_NAME = "run_squad_distill"
_OWN_FILES = "use --train_file and --validation_file, which are SQuAD's [the Hub]"

COMMAND = Command(
    name=_NAME,
    summary="fine-tunes on SQuAD, plainly or with a second step of distillation (D)",
    flags=(
        MODEL,
        Flag(
            "teacher",
            "distil from this model; fine-tuned on the task first unless it has a QA head",
        ),
        ALPHA_CE,
        Flag(
            "alpha_squad", "weight of the loss on the true answers", float, 0.5, check=not_negative
        ),
        TEMPERATURE,
        Flag(
            "kd_over_all_positions",
            "soft targets over padding and question too, as in the original; pads every window",
            bool,
        ),
        Flag("train_file", "training file: SQuAD JSON, or rows in parquet or json [the Hub]"),
        Flag("validation_file", "evaluation file, in the same formats [the Hub]"),
        DATA_REVISION,
        Flag("version_2_with_negative", "SQuAD 2.0: a question may have no answer", bool),
        Flag("max_seq_length", "maximum window length in tokens [384]", int, check=above_zero),
        Flag("doc_stride", "overlap of consecutive windows in tokens [128]", int, check=above_zero),
        Flag("max_query_length", "maximum question length in tokens [64]", int, check=above_zero),
        Flag("n_best_size", "start/end candidates per window [20]", int, check=above_zero),
        Flag("max_answer_length", "maximum answer length in tokens [30]", int, check=above_zero),
        Flag(
            "null_score_diff_threshold",
            "SQuAD 2.0: by how much 'no answer' must outscore the best answer [0]",
            float,
        ),
        Flag("pad_to_max_length", "pad every window to --max_seq_length", bool),
        EVAL_ONLY,
        NO_TEACHER_CACHE,
        *SWEEP,
        *PUSH_FLAGS,
    ),
    run=run,
    examples=(
        "python run_squad_distill.py --model distilbert --teacher bert",
        "python run_squad_distill.py --model my-distil --train_file train-v1.1.json "
        "--validation_file dev-v1.1.json",
        "python run_squad_distill.py --model distilbert --version_2_with_negative --num_seeds 3",
        "python run_squad_distill.py --model my-squad/onnx/model_quantized.onnx",
    ),
    training=training_use(
        [task for task in TASKS if task.kind.command == _NAME],
        {"label_smoothing_factor": _NO_SMOOTHING},
    ),
    instead={
        **OTHER_SCRIPTS,
        "data_dir": _OWN_FILES,
        "dataset_name": _OWN_FILES,
        "dataset_config_name": "use --version_2_with_negative for SQuAD 2.0",
        "tasks": "this is SQuAD; run_glue.py has the other tasks",
        "task_name": "this is SQuAD; run_glue.py has the other tasks",
        "do_predict": "the answers to --validation_file are always written; drop it",
        "predict_test": "the answers to --validation_file are always written; drop it",
        "test_file": "use --validation_file",
        "alpha_task": "use --alpha_squad",
        "transfer_set": "questions are learned with their answers; it is for run_glue.py's tasks",
        "version_2": "use --version_2_with_negative",
    },
)
