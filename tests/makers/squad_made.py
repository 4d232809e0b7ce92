"""Small SQuAD files, and questions as they are read from them."""

import json

from eval_harness.data.squad_files import read_squad


def document(triples, version="1.1"):
    """SQuAD's own object of (context, question, gold answers); none of these says impossible.

    An answer is a text, which stands where the context has it first, or a text and its place.
    """
    paragraphs = {}
    for number, (context, question, answers) in enumerate(triples):
        asked = {"id": f"q{number}", "question": question, "answers": golds(context, answers)}
        if version == "v2.0":
            asked["is_impossible"] = not answers
        paragraphs.setdefault(context, []).append(asked)
    parts = [{"context": context, "qas": asked} for context, asked in paragraphs.items()]
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
    """What is read from a file of these; equal contexts should stand together."""
    return read_squad(write(folder / "squad.json", document(triples, version)))
