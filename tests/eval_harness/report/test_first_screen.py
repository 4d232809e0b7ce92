"""The report's first screen: three numbers, one chart, and what data this is."""

import re
from html import unescape

import made_results as made
from made_report import write_results
from made_results import BERT, seeds

from eval_harness.report.chart_data import ProbePoints
from eval_harness.report.charts import before_fine_tuning
from eval_harness.report.panels import marks_of
from eval_harness.report.write import write_report


def first_screen(root):
    """Return the numbers with their texts, the line on the data, and the page."""
    write_report(root)
    text = (root / "report.html").read_text()
    numbers = re.findall(r"<li><strong>([^<]*)</strong> (?!\()(.*?)</li>", text)
    (data,) = re.findall('<p class="data"><strong>Data:</strong> (.*?)</p>', text)
    return [tuple(map(unescape, each)) for each in numbers], unescape(data), text


def test_it_says_what_was_kept_at_which_size_and_speed(tmp_path):
    """Prevents a page that a newcomer must search for the one thing that it is about."""
    write_results(tmp_path)
    numbers, data, text = first_screen(tmp_path)
    kept, size, speed = numbers
    assert kept[0] == "80 %"
    assert kept[1].startswith(
        "of the score of its teacher, bert, is kept by distilbert (MRPC and RTE; 95\u00a0%: "
    )
    assert size[0] == "61 %"
    assert size[1].startswith("of its parameters (66.4 of ")
    assert speed[0] == "2.0 x"
    assert "nyu-mll/glue of the Hub" in data
    assert text.index('id="glance"') < text.index('<figure id="retained-by-task">')
    assert text.index('<figure id="retained-by-task">') < text.index('id="charts"')


def test_the_best_model_stands_alone_without_a_student(tmp_path):
    """Prevents an empty first screen, and a share of a teacher that is nobody's."""
    made.put(tmp_path, *seeds(0.8, 0.82, of=BERT))
    numbers, _, _ = first_screen(tmp_path)
    assert numbers == [("81.0", "RTE by bert, the best here")]


def test_no_results_are_no_numbers(tmp_path):
    """Prevents a page that can't be made before the first result."""
    numbers, data, _ = first_screen(tmp_path)
    assert (numbers, data) == ([], "none yet")


def test_made_up_data_have_no_neighbours_of_the_papers(tmp_path):
    """Prevents the paper's scores on GLUE from standing beside ours on something made up."""
    write_results(tmp_path)
    assert "DistilBERT (paper) 73.7" in first_screen(tmp_path)[2]
    made.put(tmp_path, made.result(task="cola", data={**made.HUB, "name": "made up"}))
    _, data, text = first_screen(tmp_path)
    assert "stand-in data: made up" in data
    assert "DistilBERT (paper) 73.7" not in text


def test_what_probe_measured_is_a_chart():
    """Prevents a chart without its numbers in words, and a line where no interval is known."""
    points = [
        ProbePoints("teacher", "Pairs ↑", 1, [98.0], 2.0),
        ProbePoints("student", "Pairs ↑", 1, [90.0, 92.0, 94.0], None),
        ProbePoints("teacher", "KL ↓ †", 3, [0.25], 0.1),
    ]
    chart = before_fine_tuning(points, marks_of(["teacher", "student"]))
    assert chart.words == ("Pairs ↑: teacher 98.0; student 92.0.", "KL ↓ †: teacher 0.250.")
    assert "interval of the difference" in chart.caption
    without = [ProbePoints(each.label, each.measure, 1, each.scores, None) for each in points]
    other = before_fine_tuning(without, marks_of(["teacher", "student"]))
    assert chart.svg.count("<path") > other.svg.count("<path")
