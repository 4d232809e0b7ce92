"""Formats: each says what the markdown says, and a program can read it back."""

import csv
import io
import json
import re

import made_results as made
import pytest
from made_results import BERT, STUDENT, cells, notes, seeds

from eval_harness.tables.formats import FORMATS, to_csv, to_json, to_latex, to_markdown
from eval_harness.tables.table import Number, Table
from eval_harness.tables.write import write_by_name

ODD = Table(
    "odd",
    "Odd & ends",
    ("Model", "R_TE %", "k"),
    (
        ('a_b & 100 % #1 {x} ~^\\ $ <y>, "quoted" | piped', 59.0, None),
        ("[plain]", Number("50.0 (1/2)", 49.96, {"seeds": {"1": 49.96, "2": None}}), 3),
    ),
    ("a note with 5 % of x_y, #2 & `code`", "another: \\ ~ ^ { } $ <>"),
)


@pytest.fixture
def root(tmp_path):
    made.put(tmp_path, *seeds(0.8, 0.7, of=BERT), *seeds(0.6, 0.5, asked=[1, 2, 3]))
    made.put(tmp_path, *seeds(0.4, task="imdb"))
    return tmp_path


def test_csv_parses_back():
    """Prevents a comma, a quote or a bar in a name from moving the cells of its row."""
    read = list(csv.reader(io.StringIO(to_csv(ODD))))
    assert read[0] == list(ODD.columns)
    assert read[1:3] == [list(row) for row in ODD.rows]
    assert read[3:] == [[], *([note] for note in ODD.notes)]
    assert read[1][0].endswith('"quoted" | piped')


def test_json_parses_back():
    """Prevents rounded numbers, and a blank that passes for 0."""
    read = json.loads(to_json(ODD))
    assert (read["table"], read["title"]) == ("odd", "Odd & ends")
    assert (read["columns"], read["notes"]) == (list(ODD.columns), list(ODD.notes))
    first, second = read["rows"]
    assert first["Model"] == {"text": ODD.rows[0][0]}
    assert (first["R_TE %"], first["k"]) == ({"text": "59.0", "number": 59.0}, None)
    assert second["R_TE %"] == {
        "text": "50.0 (1/2)",
        "number": 49.96,
        "seeds": {"1": 49.96, "2": None},
    }
    assert second["k"] == {"text": "3", "number": 3}


def test_markdown_keeps_its_cells():
    """Prevents a bar in a name from adding a column."""
    line = next(line for line in to_markdown(ODD).splitlines() if "a_b" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 4


def rendered(text):
    """What markdown prints of a text in which nothing is markup but code; else an error."""
    bare = re.sub(r"\\[\\|<*`_]|`make it`", "", text)
    assert not set(bare) & set("\\|<*`"), bare
    assert not re.search(r"\b_|_\b", bare.replace("snake_case", "")), bare
    return re.sub(r"\\([\\|<*`_])", r"\1", text)


@pytest.mark.parametrize(
    "name",
    ["a\\|b", "a|b", "\\", "<script>", "*bold*", "`code`", "_slanted_", "__init__", "snake_case"],
)
def test_markdown_prints_what_a_name_is(name):
    """Prevents a name from becoming a tag, bold, or two cells, wherever it stands."""
    note = f"of {name.replace('`', '')}, by `make it`"
    table = Table("odd", "Odd", ("Model", name), ((name, 1.0),), (note,))
    _, head, _, row, below = filter(None, to_markdown(table).splitlines())
    cells = [re.findall(r" +((?:\\.|[^\\|])*?) *(?=\|)", line) for line in (head, row)]
    assert [len(each) for each in cells] == [2, 2]
    assert rendered(cells[0][1]) == rendered(cells[1][0]) == name
    assert rendered(below) == f"- {note}"
    if name == "snake_case":
        assert cells[1][0] == name


PLAIN = {
    "textbackslash{}": "\\",
    "textasciitilde{}": "~",
    "textasciigrave{}": "`",
    "^{}": "^",
    "ensuremath{<}": "<",
    "ensuremath{>}": ">",
    **{sign: sign for sign in "&%$#_{}"},
}
COMMAND = re.compile(r"\\(" + "|".join(map(re.escape, sorted(PLAIN, key=len, reverse=True))) + ")")


def typeset(text):
    """What LaTeX would print of escaped text; a sign that means something to it has no place."""
    left = COMMAND.sub("", text)
    assert not set(left) & set("&%$#_{}~^\\"), left
    return COMMAND.sub(lambda found: PLAIN[found[1]], text)


def test_latex_escapes_what_means_something_to_it():
    """Prevents a document that doesn't compile, or a comment that swallows half a row."""
    text = to_latex(ODD)
    table, _, below = text.partition("\\par\\medskip\n")
    lines = [line for line in table.splitlines() if line.endswith("\\\\")]
    split = [re.split(r"(?<!\\)&", line.removesuffix("\\\\")) for line in lines]
    assert not any(line.startswith(("[", "*")) for line in lines)
    read = [[typeset(cell.strip().removeprefix("{}")) for cell in row] for row in split]
    assert read == [list(ODD.columns), *map(list, ODD.rows)]
    assert table.splitlines()[2] == "\\begin{tabular}{lrr}"
    body = below.splitlines()
    assert (body[0], body[-1]) == ("{\\footnotesize\\raggedright", "}")
    assert [typeset(line.removesuffix("\\par")) for line in body[1:-1]] == list(ODD.notes)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_files_give_the_same_bytes(root, form):
    """Prevents a format that depends on when, or on what was written before it."""
    texts = write_by_name(root, form=form)
    names = [f"{name}{FORMATS[form].suffix}" for name in texts if name != "not counted"]
    assert {path.name for path in root.iterdir() if path.is_file()} == set(names)
    first = {name: (root / name).read_bytes() for name in names}
    assert write_by_name(root, form=form) == texts
    assert first == {name: (root / name).read_bytes() for name in names}
    assert all(first[f"{name}{FORMATS[form].suffix}"].decode() == texts[name] for name in texts)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_the_notes(root, form):
    """Prevents a number without what must be known of it, in whatever it is printed."""
    stand_in = {**made.result().data, "revision": None, "source": "my_rte"}
    made.put(root, *seeds(0.6, 0.5, of=made.model("mine"), data=stand_in))
    text = write_by_name(root, form=form)["table1"]
    for said in ("Possibly stand-in data", "Erratum: BERT-base, MNLI", "2/3"):
        assert said in text


def test_numbers_of_table_1(root):
    """Prevents a program from having to take `60.0 (50.0 to 70.0)` apart."""
    markdown = write_by_name(root)["table1"]
    read = json.loads(write_by_name(root, form="json")["table1"])
    rows = {row["Model"]["text"]: row for row in read["rows"]}
    assert list(rows) == list(cells(markdown))
    assert read["notes"] == notes(markdown)
    assert rows["distilbert"]["RTE"] == {
        "text": "55.0 (50.0 to 60.0; 2/3)",
        "number": 55.0,
        "seeds": {"1": 60.0, "2": 50.0},
        "asked": [1, 2, 3],
    }
    assert rows["DistilBERT (paper)"]["RTE"] == {"text": "59.9", "number": 59.9}
    assert rows["distilbert"]["CoLA"] is None
    mean = rows["distilbert"]["Mean of tasks"]
    assert (mean["text"], mean["number"], mean["of"]) == ("55.0 (1 task)", 55.0, ["rte"])
    retained = rows["distilbert"]["Retained"]
    assert retained["number"] == pytest.approx(100 * 0.55 / 0.75)
    assert (retained["teacher"], retained["of"], len(retained["interval"])) == ("bert", ["rte"], 2)


def test_where_what_does_not_count_is_said(root):
    """Prevents a line that names a file of another format than was asked for."""
    path = next((root / "runs" / STUDENT.key).glob("rte/*/seed-1.json"))
    path.write_text("{")
    said = write_by_name(root, form="csv")["not counted"]
    assert said.endswith(str(root / "table1.csv"))
