"""Data of question-answering tasks, from named files, a folder or the Hub. Imports no torch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import hash_of
from eval_harness.data.sources import DataSource, find_source, stand_in_name
from eval_harness.data.splits import TaskData, overlap_of
from eval_harness.data.squad_files import Questions, questions_from_columns, read_squad
from eval_harness.tasks.registry import Task


def read(
    task: Task,
    data_dir: Path | None,
    *,
    limit: int | None,
    revision: str | None,
    test: bool,
    train: bool = True,
) -> TaskData[Questions]:
    """Read each split from the file that the task names for it, else from the folder or the Hub.

    Args:
        task: what to read.
        data_dir: the folder of the splits without a file; None for the Hub.
        limit: the maximum number of questions per split.
        revision: the commit of the Hub's data set; None for the newest.
        test: must be False: these tasks have no test split.
        train: whether to read the training split.

    Raises:
        UserError: see `load_task`.
    """
    assert not test, "question-answering tasks have no test split"
    names = (*(("train",) if train else ()), *task.evaluation)
    elsewhere = [name for name in names if name not in task.files]
    if revision is not None and not elsewhere:
        raise UserError(f"revision {revision}: {task.title} is read from files, not from the Hub")
    origin = None
    if elsewhere:
        origin = find_source(replace(task, files={}), data_dir, elsewhere, revision)
    splits = [_read_split(task, name, origin, limit) for name in names]
    learned, evaluation = (splits[0], splits[1:]) if train else (None, splits)
    files = [Path(task.files[name]) for name in names if name in task.files]
    stand_ins = [stand_in_name(file.parent for file in files), origin.name if origin else None]
    return TaskData(
        task=task,
        train=learned,
        evaluation=tuple(evaluation),
        test=(),
        source=", ".join([*(file.name for file in files), *([origin.source] if origin else [])]),
        revision=origin.revision if origin else None,
        # Saved answers are keyed by the questions' ids, so the evaluated ids are part of the hash.
        content=hash_of(
            [learned and learned.content, [(part.content, *part.ids) for part in evaluation]], 16
        ),
        limit=limit,
        overlap=overlap_of(
            _pairs(learned) if learned else (),
            [pair for part in evaluation for pair in _pairs(part)],
        ),
        name=" and ".join(filter(None, dict.fromkeys(stand_ins))) or None,
    )


def _read_split(task: Task, name: str, origin: DataSource | None, limit: int | None) -> Questions:
    for_training = name == "train"
    if name in task.files:
        where: str = task.files[name]
        questions = read_squad(Path(where), limit=limit, for_training=for_training)
    else:
        assert origin is not None
        where = f"{origin.source}: {name}"
        questions = questions_from_columns(
            origin.read(name), limit=limit, for_training=for_training
        )
    if not task.allows_no_answer and not all(questions.answers):
        number = next(n for n, answers in enumerate(questions.answers) if not answers)
        raise UserError(
            f"{where}: question {questions.ids[number]} has no answer, but {task.title} requires "
            "one; use --version_2_with_negative for SQuAD 2.0"
        )
    return replace(questions, name=name)


def _pairs(questions: Questions) -> Iterator[tuple[str, str]]:
    for text, context in zip(questions.texts, questions.context_of, strict=True):
        yield questions.contexts[context], text
