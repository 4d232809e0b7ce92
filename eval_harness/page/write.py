"""Writes the page's folder: the page, the model's files, and the libraries that run it."""

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import replace_folder
from angels_share.tokenizing import load_tokenizer
from eval_harness.page.examples import our_examples, read_examples
from eval_harness.page.html import Content, page
from eval_harness.page.libraries import lay_beside, require_npm
from eval_harness.page.model import FILES, MASK, ExportedModel, exported_model

PAGE = "index.html"
_MODEL, _LIBRARIES = "model", "lib"
_OURS = ".angels-share-page"
"""The file by which a page is known: only what it replaces is replaced."""
_ABOUT = "`python -m eval_harness page` replaces index.html, lib and model beside this file.\n"


@dataclass(frozen=True)
class Request:
    """What a page is made of.

    Attributes:
        model: the folder of an exported model.
        folder: the folder that is written.
        name: what the page calls the model.
        examples: the file of the texts that it ships with; None for ours.
        text_columns: the columns of their text; empty for the usual ones.
        limit: how many of them are taken.
    """

    model: Path
    folder: Path
    name: str
    examples: Path | None
    text_columns: Sequence[str]
    limit: int


def write_page(request: Request) -> str:
    """Write a page's folder, complete or not at all, and return a line about it.

    Raises:
        UserError: the model, the examples or npm isn't there, or the folder holds something else.
        RunFailed: a library isn't the one that was pinned.
    """
    _require_own(request.folder)
    model = exported_model(request.model, request.name)
    require_npm()
    content = _content(request, model)
    folder = request.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as draft:
        new, archives = Path(draft) / "new", Path(draft) / "archives"
        for each in (new / _LIBRARIES, new / _MODEL / "onnx", archives):
            each.mkdir(parents=True)
        lay_beside(new / _LIBRARIES, archives)
        for name in FILES:
            shutil.copyfile(model.folder / name, new / _MODEL / name)
        (new / PAGE).write_text(page(content), encoding="utf-8")
        (new / _OURS).write_text(_ABOUT, encoding="utf-8")
        megabytes = sum(path.stat().st_size for path in new.rglob("*") if path.is_file()) / 1e6
        _keep_others(folder, new)
        replace_folder(new, folder, Path(draft) / "old")
    return (
        f"{folder / PAGE}: {model.name} in int8, {len(content.answers)} examples; "
        f"{megabytes:.0f} MB with all that it needs"
    )


def _require_own(folder: Path) -> None:
    """Refuse to replace a folder that isn't a page."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder}: a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _OURS).is_file():
        raise UserError(
            f"--output_dir {folder}: holds something else than a page; name another folder"
        )


def _keep_others(folder: Path, new: Path) -> None:
    """Copy what others put beside an older page, such as a site's CNAME, into the new one."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in (PAGE, _OURS, _MODEL, _LIBRARIES):
                place = new / path.name
                if path.is_dir() and not path.is_symlink():
                    shutil.copytree(path, place, symlinks=True)
                else:
                    shutil.copy2(path, place, follow_symlinks=False)


def _content(request: Request, model: ExportedModel) -> Content:
    tokenizer = load_tokenizer(str(model.folder))
    token = tokenizer.mask_token
    if model.head == MASK and token is None:
        raise UserError(f"{model.folder}: its tokenizer has no mask token, which it is to fill in")
    if request.examples is None:
        examples = our_examples(model, token)
    else:
        examples = read_examples(request.examples, model, request.text_columns, request.limit)
    from eval_harness.page.answers import LONGEST_ANSWER, torch_answers

    found = torch_answers(model, tokenizer, examples)
    return Content(
        model=model,
        examples=examples,
        answers=found.answers,
        max_tokens=found.max_tokens,
        mask=None if token is None else (str(token), int(tokenizer.mask_token_id)),
        special=[int(number) for number in tokenizer.all_special_ids],
        longest_answer=LONGEST_ANSWER,
        command=_command(request),
    )


def _command(request: Request) -> str:
    """Return the command without the paths of this machine: the page is for others."""
    folder = request.model.resolve().name
    words = ["python", "-m", "eval_harness", "page", folder]
    if request.name != folder:
        words += ["--name", request.name]
    if request.examples is not None:
        words += ["--examples", request.examples.name, "--limit", str(request.limit)]
        words += ["--text_columns", *request.text_columns] if request.text_columns else []
    return shlex.join(words)
