"""The demo world's examples as files: GLUE's and SQuAD's own formats, and the Hub's columns.

Their quirks are reproduced: CoLA has no header and marks unacceptable sentences with an asterisk,
MRPC begins with a byte order mark and is tokenized, SST-2 is in lower case and ends in a space,
MNLI has two dev files.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

from eval_harness.demo.examples import Example, Paragraph

FOLDERS = {
    "cola": "CoLA",
    "mnli": "MNLI",
    "mrpc": "MRPC",
    "qnli": "QNLI",
    "qqp": "QQP",
    "rte": "RTE",
    "sst2": "SST-2",
    "stsb": "STS-B",
    "wnli": "WNLI",
}

_PARSES = ("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse")
_MNLI = ("index", "promptID", "pairID", "genre", *_PARSES, "sentence1", "sentence2")
_STSB = ("index", "genre", "filename", "year", "old_index", "source1", "source2")
_HEADERS = {
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "qnli": ("index", "question", "sentence", "label"),
    "qqp": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "sst2": ("sentence", "label"),
    "stsb": (*_STSB, "sentence1", "sentence2", "score"),
    "wnli": ("index", "sentence1", "sentence2", "label"),
}
_TEST_HEADERS = {
    "cola": ("index", "sentence"),
    "mnli": _MNLI,
    "mrpc": ("index", *_HEADERS["mrpc"][1:]),
    "qqp": ("id", "question1", "question2"),
    "sst2": ("index", "sentence"),
}


def tsv(task: str, split: str, rows: Sequence[Example]) -> str:
    """Return the text of a GLUE task's file.

    Args:
        task: the task's name on our command line.
        split: the file's name without `.tsv`, `train`, `dev…` or `test…`; test has no labels.
        rows: the examples of the split.
    """
    header = _header(task, split)
    lines = ["\t".join(header)] if header else []
    for number, row in enumerate(rows):
        cells = _cells(task, split, number, row)
        lines.append("\t".join([cells[name] for name in header] if header else cells.values()))
    start = "\ufeff" if task == "mrpc" and split != "test" else ""
    return start + "\n".join(lines) + "\n"


def _header(task: str, split: str) -> tuple[str, ...]:
    """Return the names of a file's columns; none for a file without a header."""
    if split.startswith("test"):
        return _TEST_HEADERS.get(task) or _HEADERS[task][:-1]
    if task == "mnli":
        annotators = 5 if split.startswith("dev") else 1
        return (*_MNLI, *(f"label{n + 1}" for n in range(annotators)), "gold_label")
    return _HEADERS.get(task, ())


def _cells(task: str, split: str, number: int, row: Example) -> dict[str, str]:
    """Return a row's value for every column of any file; `tsv` picks those of its header."""
    first, second = row.texts[0], row.texts[-1]
    if task == "cola" and not split.startswith("test"):
        mark = "" if row.label == "1" else "*"
        return {"source": "dw26", "label": row.label, "mark": mark, "sentence": first}
    if task == "sst2":
        first = f"{first} "
    genre = "travel" if split.endswith("mismatched") else "letters"
    ids = str(number), str(2 * number), str(2 * number + 1)
    return {
        "index": ids[0], "id": ids[0], "sentence": first, "sentence1": first, "sentence2": second,
        "question1": first, "question2": second, "qid1": ids[1], "qid2": ids[2],
        "#1 ID": ids[1], "#2 ID": ids[2], "#1 String": first, "#2 String": second,
        **({"question": first, "sentence": second} if task == "qnli" else {}),
        "genre": "main-captions" if task == "stsb" else genre, "filename": "demo",
        "year": "2026demo", "old_index": f"{number:04}", "source1": "none", "source2": "none",
        "promptID": ids[0], "pairID": f"{number}{row.label[:1]}",
        **dict.fromkeys(_PARSES, ""),
        **{f"label{n}": row.label for n in range(1, 6)}, "gold_label": row.label,
        "label": row.label, "score": row.label, "Quality": row.label, "is_duplicate": row.label,
    }  # fmt: skip


def jsonl(rows: Iterable[Example]) -> str:
    """Return a split of IMDb as JSON lines with the Hub's columns."""
    return "".join(
        json.dumps({"text": row.texts[0], "label": int(row.label)}) + "\n" for row in rows
    )


def about(seed: int) -> str:
    """Return the data's description, which tables print beside every number made from them."""
    return json.dumps({"name": f"demo world (made up, seed {seed})"}) + "\n"


def squad(paragraphs: Iterable[Paragraph]) -> str:
    """Return paragraphs as a SQuAD file, one article for each title."""
    articles: dict[str, list[dict[str, object]]] = {}
    for paragraph in paragraphs:
        context = paragraph.context
        questions = [
            {
                "answers": [{"answer_start": at, "text": text} for text, at in question.answers],
                "question": question.text,
                "id": hashlib.sha256(f"{context}\n{question.text}".encode()).hexdigest()[:24],
            }
            for question in paragraph.questions
        ]
        articles.setdefault(paragraph.title, []).append({"context": context, "qas": questions})
    data = [{"title": title, "paragraphs": contexts} for title, contexts in articles.items()]
    return json.dumps({"data": data, "version": "1.1"}) + "\n"
