"""Tasks by the names that people type: the built-in ones, and YAML files of custom ones."""

from collections.abc import Sequence

from angels_share.errors import UserError
from angels_share.names import nearest
from eval_harness.tasks.custom import read_task
from eval_harness.tasks.registry import GLUE, TASKS, Task


def task_named(name: str) -> Task:
    """The row of a task, or a UserError that suggests the nearest one.

    A name that ends in .yaml or .yml is the file of a task of one's own.
    """
    if name.endswith((".yaml", ".yml")):
        return read_task(name)
    for task in TASKS:
        if name == task.name:
            return task
    known = [task.name for task in TASKS]
    raise UserError(f"unknown task {name!r}{nearest(name, known)} (known: {', '.join(known)}, all)")


def tasks_named(names: Sequence[str]) -> tuple[Task, ...]:
    """The rows of several tasks, each once and in the order given; `all` is the nine of GLUE."""
    wanted = [each for name in names for each in (GLUE if name == "all" else (name,))]
    tasks = [task_named(name) for name in dict.fromkeys(wanted)]
    called: dict[str, Task] = {}
    for task in tasks:
        if called.setdefault(task.name, task) is not task:
            raise UserError(f"two tasks are called {task.name!r}: rename one in its file")
    return tuple(tasks)
