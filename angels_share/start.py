"""Where every command starts: it says in one line what this Python lacks, or runs the command.

Python 3.6 can read this file, the packages' `__init__` and the scripts that lead here, so that an
old Python can say which one is needed. Nothing else of ours is imported before that is known.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

OLDEST = (3, 11)
BAD_INPUT = 2
PACKAGES = (
    "torch", "transformers", "accelerate", "datasets", "evaluate", "huggingface_hub", "filelock",
    "numpy", "pandas", "pyarrow", "yaml", "safetensors", "sklearn", "scipy", "tabulate",
    "tokenizers", "tqdm",
)  # fmt: skip
"""What pyproject.toml says is needed, by the names that are imported."""

_OURS = ("angels_share", "distil_trainer", "eval_harness")
_MARK = 'PROJECT = "angels-share"'
"""A line of distil_trainer's `__init__`: the package index has another package of that name."""


def run_glue() -> int:
    """Run `run_glue`."""
    return start("eval_harness.cli:run_glue")


def run_squad_distill() -> int:
    """Run `run_squad_distill`."""
    return start("eval_harness.cli:run_squad_distill")


def run_pretrain_distill() -> int:
    """Run `run_pretrain_distill`."""
    return start("distil_trainer.cli:run_pretrain_distill")


def distil_trainer() -> int:
    """Run `python -m distil_trainer COMMAND`."""
    return start("distil_trainer.cli:distil_trainer")


def eval_harness() -> int:
    """Run `python -m eval_harness COMMAND`."""
    return start("eval_harness.cli:eval_harness")


def start(entry: str) -> int:
    """Run a function, `module:name`, and return its status, 2 if this Python can't run it."""
    module, _, name = entry.partition(":")
    fault = _too_old() or _other_project()
    if not fault:
        try:
            status = getattr(import_module(module), name)()
        except ModuleNotFoundError as error:
            fault = not_installed(error)
            if not fault:
                raise
        else:
            assert isinstance(status, int)
            return status
    sys.stderr.write(f"{name}: {fault}\n")
    return BAD_INPUT


def not_installed(error: ModuleNotFoundError) -> str:
    """Return the line about a package that isn't installed; "" if the import itself is wrong.

    Modules of ours, modules that an installed package lacks, and names that we never declared are
    faults of the code and must show as such.
    """
    name = (error.name or "").partition(".")[0]
    return lacking() if name in PACKAGES and find_spec(name) is None else ""


def lacking() -> str:
    """Return the line about all packages that aren't installed, or ""."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not missing:
        return ""
    what = f"the package '{missing[0]}' isn't"
    if len(missing) > 1:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        what = f"{len(missing)} packages ({shown}) aren't"
    return (
        f"{what} installed for {sys.executable}: activate the environment (. .venv/bin/activate; "
        "`make setup` makes it), or install with: python -m pip install ."
    )


def _too_old() -> str:
    """Return the line about a Python that is too old, or ""."""
    if sys.version_info >= OLDEST:
        return ""
    needed, seen = (".".join(map(str, each[:2])) for each in (OLDEST, sys.version_info))
    return (
        f"needs Python {needed} or newer, and {sys.executable} is {seen}: activate the environment "
        f"(. .venv/bin/activate; `make setup PYTHON=python{needed}` makes it)"
    )


def _other_project() -> str:
    """Return the line about a `distil_trainer` that isn't ours, or ""; it is not imported."""
    found = find_spec("distil_trainer")
    if found is None:
        return ""  # importing it will say so
    again = "install ours again: python -m pip install --force-reinstall --no-deps ."
    if found.origin is None:  # what is left when the other project has replaced ours and gone
        where = ", ".join(found.submodule_search_locations or ())
        return f"{where} has no __init__.py, so it isn't our distil_trainer; {again}"
    with open(found.origin, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        if _MARK in file.read():
            return ""
    return (
        f"{found.origin} is another project's distil_trainer: python -m pip uninstall "
        f"distil-trainer, then {again}"
    )
