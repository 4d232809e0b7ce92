"""The page: one HTML file with its style and scripts in it. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Protocol

from angels_share import __version__
from eval_harness.page.examples import Examples
from eval_harness.page.model import CLASSES, MASK, NUMBER, SPAN, TOKENS, ExportedModel
from eval_harness.report.html import digest_of, style

_BROWSER = Path(__file__).parent / "browser"
_IMPORTS = {
    "transformers": "./lib/transformers.web.min.js",
    "onnxruntime-web/webgpu": "./lib/ort.wasm.min.mjs",
    "onnxruntime-common": "./lib/ort.wasm.min.mjs",
}
"""What the modules call each other, and the files that they mean."""
_EXPLAINED = {
    CLASSES: "The class with the highest probability.",
    NUMBER: "The number that the model gives; two are the same if they are to one decimal.",
    TOKENS: "Tokens with a label other than O. The probability is that of the least certain token; "
    "two answers are the same if every token's label is.",
    MASK: "The likeliest token. Of several the probability is that of the least certain.",
    SPAN: "The likeliest span of the context; its probability is that of its start times that of "
    "its end.",
}


class Answered(Protocol):
    """What the page needs of an `answers.Answer`, without importing torch."""

    @property
    def text(self) -> str:
        """The answer."""

    @property
    def key(self) -> tuple[int, ...]:
        """What makes it the same as another."""

    @property
    def probability(self) -> float | None:
        """Of the answer; None for a number."""


@dataclass(frozen=True)
class Content:
    """The content of the page.

    Attributes:
        model: the model.
        examples: the texts that it ships with.
        answers: what torch answers to them.
        max_tokens: the most tokens that the model reads.
        mask: the mask token and its id, if the tokenizer has one.
        special: the ids of the tokenizer's special tokens.
        longest_answer: the most tokens of an answer to a question.
        command: the command that wrote the page.
    """

    model: ExportedModel
    examples: Examples
    answers: Sequence[Answered]
    max_tokens: int
    mask: tuple[str, int] | None
    special: Sequence[int]
    longest_answer: int
    command: str


def page(content: Content) -> str:
    """Return the whole page; equal contents give equal bytes."""
    model, names = content.model, content.examples.names
    script, local = _read("page.js"), _read("local.js")
    imports = json.dumps({"imports": _IMPORTS})
    return Template(_read("page.html")).substitute(
        title=escape(model.name),
        megabytes=f"{model.bytes / 1e6:.1f}",
        digests=" ".join(map(digest_of, (imports, local, script))),
        importmap=imports,
        style=style() + _read("page.css"),
        fields="\n".join(map(_field, names, content.examples.rows[0])),
        head="".join(f'<th scope="col">{escape(name)}</th>' for name in names),
        rows="\n".join(map(_row, content.examples.rows, content.answers)),
        explained=escape(_EXPLAINED[model.head]),
        facts="\n".join(
            f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
            for name, text in _facts(content).items()
        ),
        command=escape(content.command),
        version=escape(__version__),
        data=json.dumps(_data(content), ensure_ascii=True).replace("<", "\\u003c"),
        local=local,
        script=script,
    )


def _read(name: str) -> str:
    return (_BROWSER / name).read_text(encoding="utf-8")


def _field(name: str, text: str) -> str:
    label = escape(name)
    # A line feed that begins a text area's content is dropped by browsers: one more keeps it.
    return (
        f'<label for="box-{label}">{label}</label>\n'
        f'<textarea id="box-{label}" rows="3" required>\n{escape(text)}</textarea>'
    )


def _row(texts: Sequence[str], answer: Answered) -> str:
    first, *others = map(escape, texts)
    share = (
        f' <span class="probability">{100 * answer.probability:.1f} %</span>'
        if answer.probability is not None
        else ""
    )
    rest = "".join(f"<td>{text}</td>" for text in [*others, escape(answer.text) + share, "", ""])
    return f'<tr><th scope="row">{first}</th>{rest}</tr>'


def _facts(content: Content) -> Mapping[str, str]:
    model = content.model
    facts = {
        "Model": f"{model.name} ({model.architecture})",
        "Task": model.task,
        "Weights": f"int8, {model.bytes / 1e6:.1f} MB, sha256 {model.sha256[:12]}",
        "Reads": f"{content.max_tokens} tokens at most",
        "Licence": model.licence or "not stated",
        "Examples": content.examples.where or "sentences that come with Angel's Share",
    }
    return {name: text for name, text in facts.items() if text}


def _data(content: Content) -> dict[str, Any]:
    token, number = content.mask or (None, None)
    return {
        "head": content.model.head,
        "labels": content.model.labels,
        "max_tokens": content.max_tokens,
        "mask": token,
        "mask_id": number,
        "special": sorted(content.special),
        "longest_answer": content.longest_answer,
        "examples": [
            {"texts": texts, "key": answer.key, "probability": answer.probability}
            for texts, answer in zip(content.examples.rows, content.answers, strict=True)
        ],
    }
