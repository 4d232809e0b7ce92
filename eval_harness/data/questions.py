"""A task of questions: its splits from named files, a folder or the Hub. Imports no torch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import hash_of
from eval_harness.data.sources import DataSource, find_source, names_of
from eval_harness.data.splits import TaskData, overlap_of
from eval_harness.data.squad_files import Questions, of_columns, read_squad
from eval_harness.tasks.registry import Task


def read(
    task: Task, data_dir: Path | None, *, limit: int | None, revision: str | None, test: bool
) -> TaskData[Questions]:
    """Read each split from the file that the task names, else from where the task lies."""
    assert not test, "questions have no test split here"
    names = ("train", *task.evaluation)
    elsewhere = [name for name in names if name not in task.files]
    if revision is not None and not elsewhere:
        raise UserError(f"revision {revision} is the Hub's, and {task.title} is read from files")
    origin = None
    if elsewhere:
        origin = find_source(replace(task, files={}), data_dir, elsewhere, revision)
    train, *evaluation = [_asked(task, name, origin, limit) for name in names]
    files = [Path(task.files[name]) for name in names if name in task.files]
    called = [names_of(file.parent for file in files), origin.name if origin else None]
    return TaskData(
        task=task,
        train=train,
        evaluation=tuple(evaluation),
        test=(),
        source=", ".join([*(file.name for file in files), *([origin.source] if origin else [])]),
        revision=origin.revision if origin else None,
        # Answers bear the questions' ids, so what is evaluated is told apart by them too.
        content=hash_of([train.content, [(part.content, *part.ids) for part in evaluation]], 16),
        limit=limit,
        overlap=overlap_of(_pairs(train), [pair for part in evaluation for pair in _pairs(part)]),
        name=" and ".join(filter(None, dict.fromkeys(called))) or None,
    )


def _asked(task: Task, name: str, origin: DataSource | None, limit: int | None) -> Questions:
    for_training = name == "train"
    if name in task.files:
        where: str = task.files[name]
        questions = read_squad(Path(where), limit=limit, for_training=for_training)
    else:
        assert origin is not None
        where = f"{origin.source}: {name}"
        questions = of_columns(origin.read(name), limit=limit, for_training=for_training)
    if not task.allows_no_answer and not all(questions.answers):
        number = next(n for n, answers in enumerate(questions.answers) if not answers)
        raise UserError(
            f"{where}: question {questions.ids[number]} has no answer, which {task.title} doesn't "
            "know: --version_2_with_negative takes SQuAD 2.0's rules"
        )
    return replace(questions, name=name)


def _pairs(questions: Questions) -> Iterator[tuple[str, str]]:
    for text, place in zip(questions.texts, questions.context_of, strict=True):
        yield questions.contexts[place], text
