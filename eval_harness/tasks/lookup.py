"""Tasks by name: the built-in ones, and custom ones by their YAML file."""

from collections.abc import Sequence

from angels_share.errors import UserError
from angels_share.names import nearest
from eval_harness.tasks.custom import read_task
from eval_harness.tasks.registry import GLUE, TASKS, Task


def task_named(name: str) -> Task:
    """Return a task by its name, or a custom task by its .yaml or .yml file.

    Raises:
        UserError: unknown name, with the nearest known one; or whatever `read_task` refuses.
    """
    if name.endswith((".yaml", ".yml")):
        return read_task(name)
    for task in TASKS:
        if name == task.name or _plain(name) in (_plain(task.name), _plain(task.title)):
            return task
    known = [task.name for task in TASKS]
    raise UserError(f"unknown task {name!r}{nearest(name, known)} (known: {', '.join(known)}, all)")


def _plain(name: str) -> str:
    """Return a name as people may type it, `STS-B` or `sts-b`, without what they vary."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def tasks_named(names: Sequence[str]) -> tuple[Task, ...]:
    """Return several tasks, each once and in the given order; `all` means the nine of GLUE.

    Raises:
        UserError: whatever `task_named` refuses, or two tasks of one name.
    """
    expanded = [each for name in names for each in (GLUE if name == "all" else (name,))]
    tasks = [task_named(name) for name in dict.fromkeys(expanded)]
    by_name: dict[str, Task] = {}
    for task in tasks:
        if by_name.setdefault(task.name, task) is not task:
            raise UserError(f"two tasks are called {task.name!r}: rename one in its file")
    return tuple(tasks)
