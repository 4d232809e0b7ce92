"""What runs need of the machine that executes them, and what of that it lacks. Imports no torch.

The rule for every executor: a machine has what the one with the command has, at the same places:
the same code and libraries, and the same folders of models and data, or the Hub's files, which it
fetches itself. What a sweep makes on its way, such as a fine-tuned teacher, isn't part of that.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from angels_share import __version__
from angels_share.errors import UserError
from angels_share.files import explain
from angels_share.provenance import ROOT, sources_hash, versions_of
from eval_harness.data.splits import load_for_run
from eval_harness.data.transfer import read_transfer_set
from eval_harness.runs.models import folder_of, identify
from eval_harness.runs.run import Model, Run

_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
"""Those whose version can change a result."""


def versions() -> dict[str, str]:
    """Return what must be the same on every machine: our code, and the libraries' versions."""
    return {
        "angels-share": f"{__version__} ({sources_hash(ROOT)})",
        **versions_of(_LIBRARIES),
    }


def representatives(runs: Iterable[Run], made: Path) -> list[Run]:
    """Return one run for each set of inputs, since seeds share theirs.

    Args:
        runs: the runs of a sweep.
        made: the folder of what the sweep makes itself.
    """
    return list({_inputs_of(run, made): run for run in runs}.values())


def lacking(wanted: Mapping[str, str], runs: Sequence[Run], made: Path) -> str | None:
    """Return what this machine lacks for some runs, or has differently, in a line; else None.

    Models and data are read and compared with what the runs were planned with.

    Args:
        wanted: `versions()` of the machine with the command.
        runs: the runs, one for each set of inputs.
        made: the folder of what the sweep makes itself.
    """
    here = versions()
    for name, version in wanted.items():
        if here[name] != version:
            return f"{name} is {here[name]} instead of {version}"
    try:
        return next(_faults(runs, made), None)
    except UserError as error:
        return str(error)
    except OSError as error:
        return ": ".join(filter(None, (str(error.filename or ""), explain(error))))


def is_made_here(folder: str, made: Path) -> bool:
    """Return whether a folder is among what the sweep makes."""
    return Path(folder).is_relative_to(made)


def _faults(runs: Sequence[Run], made: Path) -> Iterator[str]:
    for model in dict.fromkeys(run.model for run in runs):
        if not _is_the_same(model):
            yield f"{model.source}: holds another model than on the machine with the command"
    teachers = (run.method.folders.get("teacher") for run in runs if run.method)
    for folder in dict.fromkeys(filter(None, teachers)):
        if not is_made_here(folder, made) and not Path(folder).is_dir():
            yield f"{folder}: no such folder"
    for run in {_data_of(run): run for run in runs}.values():
        data = load_for_run(run)
        if data.content != run.settings.task["data"]:
            yield f"{data.source}: other data for {run.task.title} than on that machine"
        if not run.transfer_set:
            continue
        texts = read_transfer_set(run.task, run.transfer_set, data).facts.content
        if texts != run.settings.task["inputs"]["transfer_set"]:
            names = ", ".join(file.name for file in run.transfer_set)
            yield f"{names}: other texts than on that machine"


def _is_the_same(model: Model) -> bool:
    """Return whether the model is here with the content it was planned with; fetch the Hub's."""
    if model.revision is not None:
        return folder_of(model).is_dir()
    if not os.path.lexists(model.source):  # else it would be taken for a name on the Hub
        raise UserError(f"{model.source}: no such {'file' if model.is_onnx else 'folder'}")
    return identify(model.source).digest == model.digest


def _inputs_of(run: Run, made: Path) -> tuple[Any, ...]:
    teacher = run.method.folders.get("teacher") if run.method else None
    if teacher is not None and is_made_here(teacher, made):
        teacher = None
    return run.model, teacher, *_data_of(run)


def _data_of(run: Run) -> tuple[Any, ...]:
    return run.task.name, run.settings.task["data"], run.data_dir, run.transfer_set
