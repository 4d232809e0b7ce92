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
from eval_harness.tasks.registry import TASKS


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
    assert numbers == [
        ("81.0", "of 100 is the score of bert on RTE"),
        ("52.7", "is what always giving the commonest answer scores there"),
        ("2.0", "points lie between the best and the worst of 2 seeds"),
    ]
    others = [made.model(f"model-{number}", f"{number:08}") for number in range(11)]
    for number, of in enumerate(others):
        made.put(tmp_path, *seeds(0.5 + number / 100, of=of))
    numbers, _, _ = first_screen(tmp_path)
    assert numbers[0] == ("81.0", "of 100 is the score of bert on RTE, the best of 12 here")
    assert numbers[2] == ("60.0", "is the next best score, by model-10")


def test_a_student_that_was_not_timed_has_its_scores(tmp_path):
    """Prevents a single number where nobody has timed the two, and a share that stands for both."""
    made.put(tmp_path, *seeds(0.8, of=BERT), *seeds(0.6))
    numbers, _, _ = first_screen(tmp_path)
    assert [number for number, _ in numbers] == ["75 %", "60.0", "2"]
    assert numbers[1][1] == "of 100 is its score on RTE; its teacher's is 80.0"


def test_custom_tasks_and_questions_have_numbers_of_their_own(tmp_path):
    """Prevents an empty first screen for who evaluates neither GLUE nor a student."""
    data = {**made.result(task="spam").data, "title": "Spam or not"}
    made.put(tmp_path, *seeds(0.9, of=BERT, task="spam", data=data))
    numbers, _, _ = first_screen(tmp_path)
    assert numbers == [
        ("90.0", "of 100 is the score of bert on Spam or not"),
        ("1", "fine-tuning run is behind this page: 1 model, 1 task, 1 seed"),
    ]
    made.put(tmp_path, *seeds(0.7, of=BERT, task="stars"))
    assert first_screen(tmp_path)[0][0] == ("80.0", "of 100 is the score of bert over 2 tasks")
    made.put(tmp_path, *made.on_squad(0.5), said=made.answers())
    assert first_screen(tmp_path)[0][0] == (
        "50.0", "of 100 is the score of distilbert on SQuAD (F1)",
    )  # fmt: skip


def test_what_would_be_had_by_guessing_is_of_the_real_data(tmp_path):
    """Prevents GLUE's most frequent answers from being told of made-up data, or of a part."""
    named = {**made.HUB, "content": "rte0000000000000", "name": "made up"}
    made.put(tmp_path, *seeds(0.8, of=BERT, data=named))
    assert "commonest" not in first_screen(tmp_path)[2]


def test_a_mark_is_explained_where_it_stands(tmp_path):
    """Prevents a headline about `bert [a]` whose settings are a screen further down."""
    given = {"learning_rate": 5e-5, "num_train_epochs": 4.0}
    made.put(tmp_path, *seeds(0.8, of=BERT, given=made.settings(overrides=given)))
    made.put(tmp_path, *seeds(0.7, of=BERT))
    numbers, _, text = first_screen(tmp_path)
    assert "bert [a]" in numbers[0][1]
    said = "[a] learning rate 5e-5, 4 epochs."
    glance = text.partition('<section id="glance"')[2].partition("</section>")[0]
    assert f'<p class="quiet">{said}</p>' in glance
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert captions
    assert all(each.endswith(said) for each in captions)


def test_every_task_is_explained_in_a_line(tmp_path):
    """Prevents names and scores that mean something to those alone who know them already."""
    own = made.settings("spam", labels=["ham", "spam"])
    made.put(tmp_path, *seeds(0.9, task="spam", given=own))
    _, _, text = first_screen(tmp_path)
    lines = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text.partition('id="tables"')[2]))
    lines = {name: unescape(line) for name, line in lines.items()}
    said = "is this sentence grammatical? Matthews' correlation, 0 = chance"
    assert lines["CoLA"] == said
    assert lines["RTE"].endswith("% right; always the commonest answer: 52.7")
    assert "%" in lines["SQuAD"]
    assert lines["spam"] == "a custom task: one of ham, spam"
    assert "SQuAD 2.0" not in lines
    assert "nine tasks" in lines["GLUE"]
    assert all(task.about for task in TASKS)


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
