"""Small SQuAD files, and the questions read from them."""

import json

from eval_harness.data.squad_files import read_squad


def document(triples, version="1.1"):
    """Return SQuAD's own JSON object of (context, question, gold answers) triples.

    An answer is a text, located at its first occurrence, or a text with its place. In version 2.0 a
    question without answers is marked as impossible.
    """
    paragraphs = {}
    for number, (context, question, answers) in enumerate(triples):
        entry = {"id": f"q{number}", "question": question, "answers": golds(context, answers)}
        if version == "v2.0":
            entry["is_impossible"] = not answers
        paragraphs.setdefault(context, []).append(entry)
    parts = [{"context": context, "qas": entries} for context, entries in paragraphs.items()]
    return {"version": version, "data": [{"title": "Barrels", "paragraphs": parts}]}


def golds(context, answers):
    found = []
    for answer in answers:
        text, start = answer if isinstance(answer, tuple) else (answer, context.index(answer))
        found.append({"text": text, "answer_start": start})
    return found


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def questions(folder, triples, version="1.1"):
    """Write the triples to a file and read it; equal contexts should be adjacent."""
    return read_squad(write(folder / "squad.json", document(triples, version)))
