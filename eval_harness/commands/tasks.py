"""`python -m eval_harness tasks`: the tasks, and the defaults of fine-tuning on them."""

from angels_share.cli import DONE, Command
from angels_share.flags import Options
from eval_harness.runs.settings import FINE_TUNING
from eval_harness.tasks.registry import TASKS


def run(_options: Options) -> int:
    """Print every task: columns, labels, metrics, majority baseline, source, defaults."""
    for task in TASKS:
        majority = "" if task.majority is None else f"{task.majority:.1f}"
        labels = ", ".join(task.labels) or (f"a number, {task.scale}" if task.scale else "")
        defaults = ", ".join(f"{name} {value}" for name, value in task.fine_tuning.items())
        print(f"{task.name:8} {task.title}: {task.citation}")  # noqa: T201
        details = {
            "columns": "/".join(task.columns),
            "labels": labels,
            "score": " and ".join(task.primary)
            + (", the mean over the splits" if task.averages else "")
            + (", higher is better" if task.higher_is_better else ", lower is better"),
            "majority class scores": majority,
            "evaluated on": ", ".join(task.evaluation),
            "on the Hub": f"{task.hub}, {task.config}" if task.hub else "",
            "files of its own": ", ".join(task.column_files.names.values())
            if task.column_files
            else "",
            "task defaults": defaults,
        }
        for name, value in details.items():
            if value:
                print(f"         {name}: {value}")  # noqa: T201
    shared = ", ".join(f"{name} {value}" for name, value in FINE_TUNING.items())
    print(f"\nDefaults of all tasks (ours; the paper's were never published): {shared}")  # noqa: T201
    return DONE


COMMAND = Command(
    name="eval_harness tasks",
    summary="lists the tasks: columns, labels, metrics, majority baseline, sources, defaults",
    flags=(),
    run=run,
    examples=("python -m eval_harness tasks",),
)
