"""The report: one page that loads nothing, says what the tables say, and can be read by anybody."""

import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as Xml

import made_results as made
import pytest
from made_report import ODD, write_results, write_students
from made_results import cells, seeds

from angels_share import imports
from angels_share.errors import UserError
from eval_harness.report.chart_data import RetainedShare, SeedScores
from eval_harness.report.charts import retained_by_task, seeds_by_task
from eval_harness.report.palette import DARK, LIGHT
from eval_harness.report.panels import marks_of
from eval_harness.report.svg import MARKERS
from eval_harness.report.write import write_report
from eval_harness.tables.write import write_by_name

CHARTS = [
    "retained-by-task", "score-against-cost", "parameters-over-time", "seeds-by-task", "ablation",
    "training-curves",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with results and the report on them."""
    root = tmp_path_factory.mktemp("whole")
    write_results(root)
    write_report(root, [write_students(root / "students")])
    return root


@pytest.fixture
def page(whole):
    return Page((whole / "report.html").read_text())


class Page(HTMLParser):
    """A page's elements with their attributes, and its tables' texts."""

    def __init__(self, text):
        super().__init__()
        self.text, self.elements, self.tables, self._open = text, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._open = self.tables[-1][-1]

    def handle_data(self, data):
        if self._open:
            self._open[-1] += data

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._open = []

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


def test_it_loads_nothing(page):
    """Prevents a page that tells somebody who reads it, or that is bare without a network."""
    assert not page.all("link", "img", "image", "iframe", "object", "embed", "base", "form")
    for _, attributes in page.elements:
        for name in ("href", "src", "srcset", "xlink:href", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search("https?:|@import", page.text)
    assert all(inside.startswith("#") for inside in re.findall(r"url\(([^)]*)", page.text))
    (policy,) = [each for each in page.all("meta") if "http-equiv" in each]
    (script,) = re.findall("<script>(.*?)</script>", page.text, flags=re.DOTALL)
    assert policy["content"].startswith("default-src 'none'; ")
    assert f"'sha256-{digest(script)}'" in policy["content"]


def digest(script):
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def test_ids_are_unique_and_found(page):
    """Prevents a drawing from using another one's shapes, and a name that leads nowhere."""
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="|url\()#([^")]+)', page.text)
    labels = [each for _, attributes in page.elements
              for each in attributes.get("aria-labelledby", "").split()]  # fmt: skip
    assert set(used) | set(labels) <= set(ids)


def test_it_is_a_page_for_everybody(page):
    """Prevents a page that a screen reader, a phone or a browser's list of tabs can't name."""
    (html,) = page.all("html")
    assert html["lang"] == "en"
    assert "<title>Angel&#x27;s Share: 5 models</title>" in page.text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(each["scope"] in ("col", "row") for each in page.all("th"))


def test_every_chart_says_what_it_shows(page):
    """Prevents a chart that says nothing to who can't see it."""
    assert [each["id"] for each in page.all("figure")] == CHARTS
    drawings = page.all("svg")
    assert [each["role"] for each in drawings] == ["img"] * len(CHARTS)
    said = dict(re.findall(r'<desc id="([\w-]+)-words">(.*?)</desc>', page.text, flags=re.DOTALL))
    assert (
        "DistilBERT (paper) 73.7 at 66; bert 81.0 at 110; distilbert 65.0 at 66.4."
        in said["score-against-cost"]
    )
    assert "distilbert 65.0 at 2" in said["score-against-cost"]
    assert "distilbert of bert: all tasks 80.2 % (" in said["retained-by-task"]
    assert "RTE: " in said["seeds-by-task"]
    assert "distilbert 60.0, median of 50.0, 60.0, 70.0" in said["seeds-by-task"]
    assert "Ours: no L_ce -5.00 (" in said["ablation"]
    assert "), n 1 against 1." in said["ablation"]
    assert "SQuAD F1: " in said["seeds-by-task"]
    assert "median of 10.0 (degenerate), 40.0, 50.0" in said["seeds-by-task"]
    assert "The paper&#x27;s: no L_ce -2.96; " in said["ablation"]
    assert "full from 4 at step 10 to 3 at step 20" in said["training-curves"]
    assert "full, held out, 3.25 at step 20" in said["training-curves"]


def test_captions_say_how_to_read_a_chart(page):
    """Prevents a gain that reads as a loss, intervals that claim too much, an unexplained mark."""
    captions = re.findall("<figcaption>(.*?)</figcaption>", page.text)
    said = dict(zip(CHARTS, map(unescape, captions), strict=True))
    assert "changes when a part is left out" in said["ablation"]
    for name in ("ablation", "retained-by-task"):
        assert "they do not cover variation over seeds" in said[name]
    assert (
        "Hollow: a run that gave one answer to everything, or nearly one number."
        in said["seeds-by-task"]
    )


def test_hollow_is_degenerate_alone():
    """Prevents a run that learned nothing from looking like one that did."""
    runs = SeedScores("a", "RTE", (50.0, 60.0), (True, False), 55.0)
    chart = seeds_by_task([runs], marks_of(["a"]))
    learned = seeds_by_task([replace(runs, degenerate=(False, False))], marks_of(["a"]))
    filled = "fill: var(--c0)"
    assert chart.svg.count(filled) == learned.svg.count(filled) - 1 > 0
    assert "Hollow" not in learned.caption


def test_the_tables_are_those_of_the_markdown(whole, page, tmp_path):
    """Prevents two truths: a page whose numbers are not the tables'."""
    shutil.copytree(whole / "runs", tmp_path / "runs")
    shutil.copytree(whole / "speed", tmp_path / "speed")
    texts = write_by_name(tmp_path)
    leaders, *tables = page.tables
    assert leaders[0][:2] == ["Model", "Score"]
    for (columns, *rows), text in zip(tables, texts.values(), strict=True):
        shown = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
        plain = re.sub(r"\\([\\|<*`_])", r"\1", text)
        assert shown == cells(plain)
        for line in (line[2:] for line in plain.splitlines() if line.startswith("- ")):
            assert line.replace("`", "") in re.sub("</?code>", "", unescape(page.text))


def test_a_name_is_a_text(page):
    """Prevents a model's name from running as a script, or from being taken for a formula."""
    assert page.text.count("<script") == 1
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", page.text)
    assert "".join(ODD.name.split()) in "".join(map(unescape, shown)).replace(" ", "")
    assert ODD.name in [row[0] for row in page.tables[1]]


def test_the_same_files_give_the_same_bytes(whole, tmp_path):
    """Prevents a report that depends on when or where it was made."""
    root = tmp_path / whole.name  # the footer has it
    for name in ("runs", "speed", "students"):
        shutil.copytree(whole / name, root / name)
    written = write_report(root, [root / "students"])
    assert written[0] == str(root / "report.html")
    files = [
        "report.html",
        *(f"figures/{name}.{end}" for name in CHARTS for end in ("svg", "png")),
    ]
    for name in files:
        assert (root / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(path.name for path in (whole / "figures").iterdir()) == sorted(
        name.removeprefix("figures/") for name in files[1:]
    )


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_stands_alone(whole, name):
    """Prevents a file that only the page can show: without its namespace, colours or words."""
    svg = Xml.parse(whole / "figures" / f"{name}.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{space}svg"
    text = (whole / "figures" / f"{name}.svg").read_text()
    assert svg.find(f"{space}desc").text
    assert "prefers-color-scheme: dark" in svg.find(f"{space}style").text
    drawn = text.partition("</style>")[2]
    assert "currentColor" in drawn
    assert not re.search("#[0-9a-f]{6}", drawn)
    assert (whole / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_names_its_command(tmp_path):
    """Prevents an empty frame, and a reader who doesn't know what would fill it."""
    assert write_report(tmp_path) == [str(tmp_path / "report.html")]
    text = (tmp_path / "report.html").read_text()
    assert "<svg" not in text
    assert text.count("<code>python run_glue.py --model bert distilbert</code>") == 4
    assert "<code>python -m eval_harness report --students my-distil</code>" in text
    assert "BERT-base (paper)" in text
    made.put(tmp_path, *seeds(0.6))
    write_report(tmp_path)
    assert "<code>python -m eval_harness speed " in (tmp_path / "report.html").read_text()


def test_a_chart_goes_with_its_results(tmp_path):
    """Prevents a chart of results that are gone from lying beside a page that has none."""
    made.put(tmp_path, *seeds(0.6, 0.7))
    write_report(tmp_path, [write_students(tmp_path / "students")])
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {"seeds-by-task", "training-curves"}
    shutil.rmtree(tmp_path / "runs")
    _, *removed = write_report(tmp_path)
    assert not list((tmp_path / "figures").iterdir())
    assert "removed seeds-by-task.svg and seeds-by-task.png" in removed[0]
    assert removed[1].endswith("report --students my-distil produces some")


def test_the_footer_names_the_command_without_a_path(tmp_path):
    """Prevents a page that nobody can make again, and one that tells how this machine is laid out.

    The folder that is the default needs no flag.
    """
    root, students = tmp_path / "my results", write_students(tmp_path / "it's")
    root.mkdir()
    write_report(root, [students])
    (footer,) = re.findall("<footer>.*?<code>(.*?)</code>", (root / "report.html").read_text())
    words = ["--results_dir", root.name, "--students", students.name]
    assert shlex.split(unescape(footer))[4:] == words
    (tmp_path / "results").mkdir()
    write_report(tmp_path / "results")
    (footer,) = re.findall(
        "<footer>.*?<code>(.*?)</code>", (tmp_path / "results" / "report.html").read_text()
    )
    assert footer == "python -m eval_harness report"


def test_no_path_of_this_machine_is_in_the_page(whole):
    """Prevents a page that somebody publishes from telling their name and folders."""
    text = (whole / "report.html").read_text()
    assert not any(name in text for name in (str(whole.parent), "/models/", "/tmp/", "/home/"))


def test_what_does_not_count_is_said(tmp_path):
    """Prevents a chart that vanishes in silence since a file is torn."""
    write_results(tmp_path)
    students = write_students(tmp_path / "students")
    write_report(tmp_path, [students])
    (times,) = (tmp_path / "speed").iterdir()
    times.write_text("{")
    (students / "full" / "checkpoint-20" / "trainer_state.json").write_text("{")
    said = write_report(tmp_path, [students])
    assert any("removed score-against-cost.svg and score-against-cost.png" in line for line in said)
    what = "1 file: see the tables' notes; full/checkpoint-20/trainer_state.json: its log_history "
    assert said[-1].startswith(f"not counted: {what}")
    text = unescape((tmp_path / "report.html").read_text())
    assert f"<dt>Not counted</dt><dd>{what}" in text


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    """Prevents a mistyped name from making a folder, an empty page in it, and status 0."""
    with pytest.raises(UserError, match=r"--results_dir .*nowhere: not a folder"):
        write_report(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_rows_are_the_papers_because_they_are(tmp_path):
    """Prevents a user's model from being greyed as the paper's for its name."""
    made.put(tmp_path, *seeds(0.6, of=made.model("mine (paper)", "12345678")))
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    rows = re.findall('<tr( class="paper")?><th scope="row">(.*?)</th>', text)
    assert ("", "mine (paper)") in rows
    assert (' class="paper"', "BERT-base (paper)") in rows


def test_without_matplotlib_it_is_one_line(tmp_path, monkeypatch):
    """Prevents a traceback for who installed no more than the tables need."""
    monkeypatch.setattr(imports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt '\.\[report\]'"):
        write_report(tmp_path)


def test_what_lies_beyond_is_pointed_at():
    """Prevents a share of a teacher near nothing from flattening all others, or from vanishing."""
    near, far = (
        RetainedShare("a", "t", "RTE", 97.0, None),
        RetainedShare("b", "t", "CoLA", 4000.0, (-900, 9000)),
    )
    chart = retained_by_task([near, far], marks_of(["a", "b"]))
    assert "CoLA 4000.0 % (-900.0 to 9000.0)" in chart.words[1]
    assert "4000" not in chart.svg.partition("</desc>")[2]


def test_many_students_are_a_row_each():
    """Prevents a first figure of three screens on a phone; the best stand first."""
    shares = [
        RetainedShare(f"student-{number}", "t", task, 60.0 + number, (50.0, 99.0))
        for number in range(30)
        for task in ("all tasks", "CoLA", "RTE")
    ]
    few, many = (
        retained_by_task(each, marks_of([share.label for share in each]))
        for each in (shares[:24], shares)
    )
    assert (few.title, many.title) == (
        "What was retained, task by task", "What was retained, all tasks",
    )  # fmt: skip
    height = float(re.search('viewBox="0 0 [0-9.]+ ([0-9.]+)"', many.svg)[1])
    assert height < 72 * 7
    drawn = re.findall("<text[^>]*>(student-[0-9]+)</text>", many.svg)
    assert sorted(drawn, key=lambda name: -int(name.partition("-")[2])) == drawn
    assert len(drawn) == 30
    assert "CoLA 60.0 % (50.0 to 99.0)" in many.words[0]


def test_marks_tell_models_apart():
    """Prevents two models of one colour and shape, or two palettes of unequal size."""
    marks = marks_of([str(number) for number in range(49)])
    assert len(set(marks.values())) == 49
    assert len(LIGHT) == len(DARK) == len(MARKERS)


PROBE_BEFORE = """
window.faults = [];
addEventListener("error", event => faults.push(String(event.message)), true);
addEventListener("securitypolicyviolation", event => faults.push(event.violatedDirective));
"""
PROBE_AFTER = """
const table = document.querySelector("#tables table");
const firsts = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
const column = name => [...table.tHead.rows[0].cells].find(head => head.textContent === name);
const press = name => {
  const button = column(name).querySelector("button");
  button.focus();
  button.click();
  return { rows: firsts(), sort: column(name).getAttribute("aria-sort"),
           focused: document.activeElement === button };
};
const broken = () => {
  const head = [...document.querySelectorAll("tbody th")]
    .find(head => head.textContent.includes("max_query_length 8"));
  const words = [...head.childNodes].filter(node => node.nodeType === Node.TEXT_NODE)
    .flatMap(node => [...node.data.matchAll(/[a-z0-9]+/g)].map(word => {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      return [word[0], range.getClientRects().length];
    }));
  return { words: words.length, apart: words.filter(([, lines]) => lines > 1) };
};
const seen = { before: firsts(), down: press("RTE"), up: press("RTE"), names: press("Model"),
  sorted: table.querySelectorAll("[aria-sort]").length,
  width: innerWidth, content: document.documentElement.scrollWidth,
  boxes: [...document.querySelectorAll(".scroll")].map(box => box.scrollWidth > box.clientWidth),
  drawn: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width),
  letters: [...document.querySelectorAll("svg text")].map(text =>
    parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a,
                                                             text.getScreenCTM().b)),
  outside: [...document.querySelectorAll("svg text")].filter(text => {
    const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
    return own.left < all.left - 1 || own.right > all.right + 1
      || own.top < all.top - 1 || own.bottom > all.bottom + 1;
  }).map(text => text.textContent),
  broken: broken(),
  loaded: performance.getEntriesByType("resource").map(each => each.name), faults };
parent.postMessage(JSON.stringify(seen), "*");
"""
FRAME = """<!doctype html><title>a phone's width</title>
<script>
addEventListener("message", each => {{ document.documentElement.dataset.seen = each.data }});
</script>
<iframe src="probed.html" style="width: {width}px; height: 900px; border: 0"></iframe>
"""


@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it(whole, tmp_path, width):
    """Prevents a script's error, a load, tables that stay unsorted, a page wider than a phone."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    text = (whole / "report.html").read_text()
    allowed = " ".join(f"'sha256-{digest(each)}'" for each in (PROBE_BEFORE, PROBE_AFTER))
    text = text.replace("script-src ", f"script-src {allowed} ", 1)
    text = text.replace("<title>", f"<script>{PROBE_BEFORE}</script><title>", 1)
    text = text.replace("</body>", f"<script>{PROBE_AFTER}</script></body>")
    (tmp_path / "probed.html").write_text(text)
    # A window of Chromium's is never narrower than 500 pixels.
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    ended = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom",
         str(tmp_path / "frame.html")],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in ended.stderr
    (html,) = Page(ended.stdout).all("html")
    seen = json.loads(html["data-seen"])
    assert (seen["faults"], seen["loaded"]) == ([], [])
    assert seen["width"] == width
    assert seen["content"] <= width
    assert all(280 < drawn <= width for drawn in seen["drawn"])
    assert min(seen["letters"]) >= 11
    assert seen["outside"] == []
    assert seen["broken"] == {"words": 5, "apart": []}
    assert any(seen["boxes"])
    assert (seen["down"]["sort"], seen["up"]["sort"]) == ("descending", "ascending")
    assert seen["sorted"] == 1
    assert seen["down"]["focused"]
    assert seen["down"]["rows"][0] == "bert"
    assert seen["up"]["rows"][-1] == "bert"
    assert seen["names"]["rows"] == sorted(seen["before"], key=str.lower)
