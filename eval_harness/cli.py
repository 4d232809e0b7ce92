"""The harness's doors: their flags, and what is checked before anything heavy is imported."""

import sys

from angels_share.cli import DONE, Door, open_door
from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero, is_seed, not_negative
from angels_share.names import nearest
from eval_harness.commands.report import REPORT_DOOR
from eval_harness.commands.speed import SPEED_DOOR
from eval_harness.demo.world import DEMO_DOOR
from eval_harness.runs.settings import FINE_TUNING
from eval_harness.tables.formats import FORMATS
from eval_harness.tasks.registry import TASKS

_SWEEP = (
    Flag("num_seeds", "how many seeds: the first so many of 1, 2, 3, …", int, 5, check=above_zero),
    Flag("seeds", "these seeds instead", int, many=True, check=is_seed),
    Flag("results_dir", "where results are kept and looked for", default="results"),
    Flag(
        "rerun",
        "missing: only what has no valid result; always; never: only the tables",
        default="missing",
        choices=("missing", "always", "never"),
    ),
    Flag("limit", "at most so many training and evaluation examples", int, check=above_zero),
    Flag(
        "workers",
        "processes, each with one run at a time [one per GPU, else one]",
        int,
        check=above_zero,
    ),
    Flag("threads", "of each worker [its share of the cores]", int, check=above_zero),
    Flag(
        "choose",
        "which epoch counts; best looks at dev after each, and is marked",
        default="last",
        choices=("last", "best"),
    ),
)


_NO_CACHE = Flag(
    "no_teacher_cache",
    "ask the teacher at every step, rather than once for all epochs and seeds",
    bool,
)


def _glue(options: Options) -> int:
    from eval_harness.commands.glue import judge

    return judge(options)


GLUE_DOOR = Door(
    name="run_glue",
    summary="fine-tunes models on GLUE and IMDb over several seeds, and prints Table 1",
    flags=(
        Flag(
            "model",
            "models: short names, folders or Hub ids",
            many=True,
            required=True,
            alias="model_name_or_path",
        ),
        Flag(
            "tasks",
            "tasks; `all` is the nine of GLUE; a .yaml file is a task of one's own",
            default=["all"],
            many=True,
            alias="task_name",
        ),
        Flag("teacher", "distil from this model while fine-tuning: the result is marked (D)"),
        Flag("alpha_ce", "weight of the teacher's soft targets", float, 0.5, check=not_negative),
        Flag("alpha_task", "weight of the true labels", float, 0.5, check=not_negative),
        Flag("temperature", "softens both distributions", float, 2.0, check=above_zero),
        Flag("data_dir", "a folder of GLUE's own TSVs, or of parquet, csv or json [the Hub]"),
        Flag("data_revision", "the commit of the data sets on the Hub [the newest]"),
        Flag("max_seq_length", "tokens that are read [128; IMDb 512]", int, check=above_zero),
        Flag("predict_test", "also write the test splits' answers for GLUE's server", bool),
        _NO_CACHE,
        *_SWEEP,
    ),
    run=_glue,
    examples=(
        "python run_glue.py --model distilbert",
        "python run_glue.py --model bert distilbert --tasks cola rte --num_seeds 3 --workers 2",
        "python run_glue.py --model my-distil --data_dir glue_data --learning_rate 5e-5",
        "python run_glue.py --model distilbert --teacher bert --tasks rte mrpc",
    ),
    takes_training_flags=True,
)


def _squad(options: Options) -> int:
    from eval_harness.commands.squad import judge

    return judge(options)


SQUAD_DOOR = Door(
    name="run_squad_distill",
    summary="fine-tunes on SQuAD, plainly or with a second step of distillation (D)",
    flags=(
        Flag(
            "model",
            "models: short names, folders or Hub ids",
            many=True,
            required=True,
            alias="model_name_or_path",
        ),
        Flag("teacher", "distil from this model; fine-tuned first where it is no QA model yet"),
        Flag("alpha_ce", "weight of the teacher's soft targets", float, 0.5, check=not_negative),
        Flag("alpha_squad", "weight of the true answers", float, 0.5, check=not_negative),
        Flag("temperature", "softens both distributions", float, 2.0, check=above_zero),
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
        _NO_CACHE,
        *_SWEEP,
    ),
    run=_squad,
    examples=(
        "python run_squad_distill.py --model distilbert --teacher bert",
        "python run_squad_distill.py --model my-distil --train_file train-v1.1.json "
        "--validation_file dev-v1.1.json",
        "python run_squad_distill.py --model distilbert --version_2_with_negative --num_seeds 3",
    ),
    takes_training_flags=True,
)


def _tables(options: Options) -> int:
    from eval_harness.tables.write import write_tables

    for text in write_tables(options.results_dir, form=options.format):
        print(text)  # noqa: T201
    return DONE


TABLES_DOOR = Door(
    name="eval_harness tables",
    summary="writes Tables 1-4 into the results folder, and prints them",
    flags=(
        Flag("results_dir", "where results are", default="results"),
        Flag("format", "what they are written as", default="markdown", choices=tuple(FORMATS)),
    ),
    run=_tables,
    examples=("python -m eval_harness tables", "python -m eval_harness tables --format latex"),
)


def _tasks(options: Options) -> int:
    for task in TASKS:
        majority = "" if task.majority is None else f"{task.majority:.1f}"
        labels = ", ".join(task.labels) or (f"a number, {task.scale}" if task.scale else "")
        own = ", ".join(f"{name} {value}" for name, value in task.fine_tuning.items())
        print(f"{task.name:8} {task.title}: {task.citation}")  # noqa: T201
        rest = {
            "columns": "/".join(task.columns),
            "labels": labels,
            "score": " and ".join(task.primary) + ", higher is better",
            "commonest label scores": majority,
            "evaluated on": ", ".join(task.evaluation),
            "on the Hub": f"{task.hub}, {task.config}",
            "its own defaults": own,
        }
        for name, value in rest.items():
            if value:
                print(f"         {name}: {value}")  # noqa: T201
    shared = ", ".join(f"{name} {value}" for name, value in FINE_TUNING.items())
    print(f"\nFine-tuning of all (ours: the paper's was never published): {shared}")  # noqa: T201
    return DONE


TASKS_DOOR = Door(
    name="eval_harness tasks",
    summary="lists the tasks: columns, labels, score, majority, where they come from",
    flags=(),
    run=_tasks,
    examples=("python -m eval_harness tasks",),
)

ROOMS = {
    "tables": TABLES_DOOR,
    "report": REPORT_DOOR,
    "speed": SPEED_DOOR,
    "tasks": TASKS_DOOR,
    "demo": DEMO_DOOR,
}


def run_glue() -> int:
    """The entry point of `run_glue`."""
    return open_door(GLUE_DOOR)


def run_squad_distill() -> int:
    """The entry point of `run_squad_distill`."""
    return open_door(SQUAD_DOOR)


def main() -> int:
    """The entry point of `python -m eval_harness ROOM`."""
    return open_room(sys.argv[1:])


def open_room(argv: list[str]) -> int:
    """Opens the door that the first word names."""
    if argv and argv[0] in ROOMS:
        return open_door(ROOMS[argv[0]], argv[1:])
    listing = "\n".join(f"  {name:8} {door.summary}" for name, door in ROOMS.items())
    if not argv or argv[0] in ("-h", "--help"):
        print(f"python -m eval_harness ROOM [flags]\n\n{listing}")  # noqa: T201
        return DONE
    return open_door(_no_such_room(argv[0]), [])


def _no_such_room(word: str) -> Door:
    def run(options: Options) -> int:
        raise UserError(f"there is no {word!r} here{nearest(word, ROOMS)} ({', '.join(ROOMS)})")

    return Door("eval_harness", "", (), run, ())
