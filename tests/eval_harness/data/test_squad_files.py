"""SQuAD's files: read strictly, alike from every format, and predictions in its own."""

import copy
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from squad_made import document, golds, write

from angels_share.errors import UserError
from eval_harness.data.sources import find_source
from eval_harness.data.squad_files import questions_from_columns, read_squad, write_predictions
from eval_harness.tasks.registry import Task

RIVER = "The old distillery stands by the river Äsk, and 40 barrels sleep in the dark."
SHARE = "Every year the angels take 2 % of what they hold."
TRIPLES = [
    (RIVER, "Where does it stand?", ["by the river Äsk", "river"]),
    (RIVER, "How many sleep?", ["40"]),
    (SHARE, "Who takes a share?", ["the angels", "angels", "the angels"]),
    (SHARE, "How much?", ["2 %"]),
]


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        read_squad(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(triples):
    """The same in the Hub's columns."""
    for number, (context, question, answers) in enumerate(triples):
        found = golds(context, answers)
        yield {
            "id": f"q{number}",
            "title": "Barrels",
            "context": context,
            "question": question,
            "answers": {key: [each[key] for each in found] for key in ("text", "answer_start")},
        }


def as_parquet(path, triples):
    answers = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
    fields = [(name, pa.string()) for name in ("id", "title", "context", "question")]
    schema = pa.schema([*fields, ("answers", answers)])
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows(triples)), schema), path)
    return path


# --- what is read


def test_everything_is_where_it_belongs(tmp_path):
    """Prevents an answer from meeting another question, or a context from being stored twice."""
    found = read_squad(write(tmp_path / "a.json", document(TRIPLES)))
    assert list(found.ids) == ["q0", "q1", "q2", "q3"]
    assert [found.contexts[i] for i in found.context_of] == [RIVER, RIVER, SHARE, SHARE]
    assert len(found.contexts) == 2
    assert list(found.answers) == [tuple(answers) for _, _, answers in TRIPLES]
    firsts = [context.index(answers[0]) for context, _, answers in TRIPLES]
    assert found.answer_starts.tolist() == firsts


def test_version_2_knows_questions_without_an_answer(tmp_path):
    """Prevents SQuAD 2.0's questions from being refused, or its plausible answers from counting."""
    value = document([*TRIPLES, (SHARE, "Who drinks it?", [])], "v2.0")
    last = value["data"][0]["paragraphs"][1]["qas"][-1]
    last["plausible_answers"] = golds(SHARE, ["the angels"])
    found = read_squad(write(tmp_path / "a.json", value))
    assert (found.answers[-1], found.answer_starts[-1]) == ((), -1)


def test_every_format_gives_the_same_questions(tmp_path):
    """Prevents a format from giving another number for the same questions."""
    every = list(rows(TRIPLES))
    lines = [tmp_path / "lines.jsonl", tmp_path / "lines.json"]
    for path in lines:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in every), encoding="utf-8")
    own, table = write(tmp_path / "own.json", document(TRIPLES)), tmp_path / "table.parquet"
    as_list = write(tmp_path / "list.json", every)
    found = [read_squad(path) for path in (own, as_list, *lines, as_parquet(table, TRIPLES))]
    assert len({each.content for each in found}) == 1
    for each in found[1:]:
        assert each.ids == found[0].ids
        assert each.answers == found[0].answers
    single = write(tmp_path / "single.json", every[0])
    assert list(read_squad(single).ids) == ["q0"]


def test_the_hubs_rows_come_through_a_tasks_row(tmp_path):
    """Prevents the Hub's shards from needing a reader of their own, and 2.0 from being 1.1."""
    task = Task("squad_v2", "SQuAD 2.0", ("question", "context"), (), (), label_column="answers")
    triples = [*TRIPLES, (SHARE, "Who drinks it?", [])]
    as_parquet(tmp_path / "squad_v2" / "validation-00000-of-00002.parquet", triples[:2])
    as_parquet(tmp_path / "squad_v2" / "validation-00001-of-00002.parquet", triples[2:])
    as_parquet(tmp_path / "squad_v2" / "train.parquet", triples)
    parts = find_source(task, tmp_path, ("train",), None).read("validation")
    with pytest.raises(UserError, match=r"row 1: question q0: duplicate id"):
        questions_from_columns(parts)  # each shard was written with ids from 0
    found = questions_from_columns(parts, for_training=True)
    own = read_squad(write(tmp_path / "own.json", document(triples, "v2.0")))
    assert own.content == found.content


def test_content_knows_every_change(tmp_path):
    """Prevents other data from passing for the same: results are kept under this hash."""
    changes = [
        TRIPLES,
        TRIPLES[::-1],
        [(RIVER, "Where is it?", TRIPLES[0][2]), *TRIPLES[1:]],
        [(RIVER.replace("dark.", "dusk."), *each[1:]) for each in TRIPLES[:2]] + TRIPLES[2:],
        [(RIVER, TRIPLES[0][1], ["by the river Äsk"]), *TRIPLES[1:]],
        [(RIVER, TRIPLES[0][1], ["by the river Äsk", "the river"]), *TRIPLES[1:]],
        [(SHARE + SHARE, "Who?", [("the angels", len(SHARE) + 11)])],
        [(SHARE + SHARE, "Who?", [("the angels", 11)])],
    ]
    found = [read_squad(write(tmp_path / "a.json", document(each))).content for each in changes]
    assert len(set(found)) == len(found)
    second = read_squad(write(tmp_path / "a.json", document(TRIPLES, "v2.0")))
    assert second.content == found[0]  # that a file says "not impossible" changes nothing
    assert {len(each) for each in found} == {16}


def test_limit_is_spread_over_the_file(tmp_path):
    """Prevents a limited run from seeing one article, and contexts nobody asks about."""
    path = write(tmp_path / "a.json", document(TRIPLES))
    found = read_squad(path, limit=2)
    assert list(found.ids) == ["q0", "q2"]
    assert list(found.contexts) == [RIVER, SHARE]
    last = read_squad(write(path, document(TRIPLES[1:])), limit=1)
    assert list(last.contexts) == [RIVER]
    whole = read_squad(path)
    assert whole.content == read_squad(path, limit=3).content == read_squad(path, limit=9).content
    assert whole.content != found.content


def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path):
    """Prevents a file that went through Windows from being refused or read as another."""
    plain = write(tmp_path / "a.json", document(TRIPLES))
    text = json.dumps(document(TRIPLES), indent=1, ensure_ascii=False).replace("\n", "\r\n")
    other = tmp_path / "b.json"
    other.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_squad(other).content == read_squad(plain).content


# --- what is refused


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    """Prevents half a file from being evaluated, or a bare traceback about it."""
    text = json.dumps(document(TRIPLES), indent=1)
    path = tmp_path / "a.json"
    for size in range(0, len(text) - 1, 23):
        path.write_text(text[:size])
        assert str(path) in refusal(path)
    path.write_text(text[:-40])
    lines = text[:-40].count("\n") + 1
    assert refusal(path).startswith(f"{path}:{lines}: not JSON (")
    assert refusal(path).endswith("is the file truncated?")


def changed(change):
    value = copy.deepcopy(document(TRIPLES))
    article = value["data"][0]
    paragraph = article["paragraphs"][1]
    change(value, article, paragraph, paragraph["qas"][1])
    return value


ARTICLE = "article 'Barrels'"
PARAGRAPH = f"{ARTICLE} / paragraph 2"
QUESTION = f"{PARAGRAPH} / question q3"
START = "answer_start"

REFUSED = {
    "no data": (lambda v, a, p, q: v.pop("data"), "no 'data'; the keys are 'version'"),
    "data": (lambda v, a, p, q: v.update(data={}), "'data' is dict, not a list"),
    "nothing": (lambda v, a, p, q: v.update(data=[]), "no questions in it"),
    "article": (lambda v, a, p, q: v["data"].append("x"), "article 2: str instead of an"),
    "paragraphs": (lambda v, a, p, q: a.pop("paragraphs"), f"{ARTICLE}: no 'paragraphs'; the"),
    "untitled": (lambda v, a, p, q: (a.update(title=""), p.pop("qas")), "article 1 / paragraph 2"),
    "paragraph": (lambda v, a, p, q: a["paragraphs"].append(3), f"{ARTICLE} / paragraph 3: int"),
    "no context": (lambda v, a, p, q: p.pop("context"), f"{PARAGRAPH}: no 'context'; the keys are"),
    "context": (lambda v, a, p, q: p.update(context=None), f"{PARAGRAPH}: the context is null"),
    "blank": (lambda v, a, p, q: p.update(context=" \n"), f"{PARAGRAPH}: the context is blank"),
    "qas": (lambda v, a, p, q: p.update(qas=None), f"{PARAGRAPH}: 'qas' is null, not a list"),
    "question": (lambda v, a, p, q: p["qas"].append(1), f"{PARAGRAPH} / question 3: int"),
    "no id": (lambda v, a, p, q: q.pop("id"), f"{PARAGRAPH} / question 2: no 'id'; the keys are"),
    "number as id": (lambda v, a, p, q: q.update(id=7), f"{PARAGRAPH} / question 7: the id is int"),
    "twice": (lambda v, a, p, q: q.update(id="q0"), "question q0: duplicate id"),
    "asks": (lambda v, a, p, q: q.update(question=["x"]), f"{QUESTION}: the question is list"),
    "half": (
        lambda v, a, p, q: q.update(question="\ud83d"),
        f"{QUESTION}: the question: character",
    ),
    "NUL": (
        lambda v, a, p, q: q.update(question="a\0"),
        f"{QUESTION}: the question: contains a NUL",
    ),
    "no answers": (lambda v, a, p, q: q.pop("answers"), f"{QUESTION}: no 'answers'; the keys are"),
    "none": (lambda v, a, p, q: q.update(answers=[]), f"{QUESTION}: no answers; SQuAD 2.0 marks"),
    "answer": (lambda v, a, p, q: q.update(answers=["2"]), f"{QUESTION}: str instead of"),
    "no text": (lambda v, a, p, q: q["answers"][0].pop("text"), f"{QUESTION}: no 'text'; the k"),
    "text": (lambda v, a, p, q: q["answers"][0].update(text=2), f"{QUESTION}: the answer is int"),
    "blank text": (lambda v, a, p, q: q["answers"][0].update(text=""), f"{QUESTION}: blank an"),
    "no start": (lambda v, a, p, q: q["answers"][0].pop(START), f"{QUESTION}: no 'answer_start'"),
    "start": (lambda v, a, p, q: q["answers"][0].update({START: "3"}), "answer_start is '3'; exp"),
    "true": (lambda v, a, p, q: q["answers"][0].update({START: True}), "answer_start is True; e"),
    "before": (lambda v, a, p, q: q["answers"][0].update({START: -1}), "answer_start -1 is out of"),
    "after": (
        lambda v, a, p, q: q["answers"][0].update({START: 47}),
        f"{QUESTION}: answer_start 47 is out of range (the context has 49 characters, the answer 3",
    ),
    "elsewhere": (
        lambda v, a, p, q: q["answers"][0].update({START: 28}),
        f"{QUESTION}: answer_start 28: the context has ' % ', not '2 %'",
    ),
    "a later answer": (
        lambda v, a, p, q: p["qas"][0]["answers"][2].update({START: 12}),
        "question q2: answer_start 12: the context has 'he angels ', not",
    ),
    "odd": (lambda v, a, p, q: q.update(is_impossible="no"), f"{QUESTION}: is_impossible is 'no'"),
    "both": (
        lambda v, a, p, q: q.update(is_impossible=True),
        "is_impossible is true, but there are 1 an",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_not_clean_is_named_with_its_place(fault, tmp_path):
    """Prevents bad data from giving a number, and a person from having to look for it."""
    change, message = REFUSED[fault]
    path = write(tmp_path / "a.json", changed(change))
    said = refusal(path)
    assert said.startswith(f"{path}: ")
    assert message in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("context", 5, "row 2: question q1: the context is int, not text"),
        ("id", None, "row 2: the id is null, not text"),
        ("answers", [], "row 2: question q1: list instead of an object"),
        ("answers", {"text": ["40"]}, "row 2: question q1: no 'answer_start'; the keys are 'text'"),
        ("answers", {"text": ["40"], START: []}, "q1: 1 answers and 0 answer_starts"),
        ("answers", {"text": ["40"], START: [3]}, "answer_start 3: the context has ' o', not '40'"),
    ],
)
def test_rows_are_read_as_strictly(name, value, message, tmp_path):
    """Prevents the Hub's columns from being a way around the checks."""
    every = list(rows(TRIPLES))
    every[1][name] = value
    path = write(tmp_path / "a.json", every)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [\n' + "[" * 100_000, ":2: is nested too deeply"),
        ('{"version": "1.1",\n"data": ' + "9" * 5000 + "}", ":2: has a number of 5000 digits"),
        ('{"data": [], "data": []}', ": key 'data' appears twice; keep one"),
    ],
)
def test_a_hostile_file(text, message, tmp_path):
    """Prevents a traceback with status 1, and half of a file from being read as all of it."""
    path = tmp_path / "a.json"
    path.write_text(text)
    assert refusal(path) == f"{path}{message}"


def test_ids_may_repeat_only_in_training(tmp_path):
    """Prevents TyDi's training file from being refused for ids that nothing is scored by."""
    path = write(tmp_path / "a.json", changed(REFUSED["twice"][0]))
    assert "duplicate id" in refusal(path)
    assert list(read_squad(path, for_training=True).ids) == ["q0", "q1", "q2", "q0"]


@pytest.mark.parametrize("name", ["missing.json", "squad.txt", "missing.parquet"])
def test_a_file_that_cannot_be_read_is_one_line(name, tmp_path):
    """Prevents a traceback for a mistyped path."""
    assert str(tmp_path / name) in refusal(tmp_path / name)


# --- predictions


def test_predictions_are_what_squads_own_evaluation_reads(tmp_path):
    """Prevents a file that depends on the machine's encoding, or that lost a question."""
    path = write_predictions(tmp_path / "new" / "p.json", ["b", "a"], ["Äsk 👍", ""])
    text = path.read_text(encoding="ascii")
    assert list(json.loads(text).items()) == [("b", "Äsk 👍"), ("a", "")]
    with pytest.raises(ValueError, match="2 predictions have 1 ids"):
        write_predictions(path, ["a", "a"], ["x", "y"])
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(path, ["a", "b"], ["x"])
    assert path.read_text(encoding="ascii") == text
    assert [each.name for each in path.parent.iterdir()] == ["p.json"]


# --- real files


def test_the_official_dev_set(real_data):
    """Prevents the reader from refusing, or losing, a question of SQuAD's own file."""
    path = real_data / "data" / "squad" / "dev-v1.1.json"
    found = read_squad(path)
    assert (len(found), len(found.contexts)) == (10_570, 2_067)
    assert sum(map(len, found.answers)) == 34_726
    starts = zip(found.context_of, found.answers, found.answer_starts, strict=True)
    assert all(found.contexts[c].startswith(a[0], start) for c, a, start in starts)
    some = read_squad(path, limit=100)
    assert np.unique(some.context_of).tolist() == list(range(len(some.contexts)))
    assert len(some.contexts) > 90


def test_tydi_is_read_for_what_it_is(real_data):
    """Prevents a test set without gold answers from being scored: every answer would be wrong."""
    folder = real_data / "data" / "squad"
    assert "duplicate id" in refusal(folder / "tydiqa-en-train.json")
    assert len(read_squad(folder / "tydiqa-en-train.json", for_training=True)) == 3_696
    assert "blank answer" in refusal(folder / "tydiqa-en-dev.json")
