"""Data that stand in for others say so: in `about.json`, in results, under every table."""

import json
from dataclasses import replace

import made_results as made
import pytest
import worlds
from made_results import BERT, note, seeds
from squad_made import document, write
from tasks_on_disk import as_glue, as_parquet

from angels_share.errors import UserError
from angels_share.flags import parse
from eval_harness.commands.speed import COMMAND as SPEED
from eval_harness.data.splits import load_task
from eval_harness.demo import world as demo
from eval_harness.report.write import write_report
from eval_harness.speed.request import requests
from eval_harness.tables.write import write_by_name
from eval_harness.tasks.custom import read_task
from eval_harness.tasks.lookup import task_named
from eval_harness.training import runner
from eval_harness.training.runner import run_task

NAME = "demo world (made up, seed 11)"
SAID = {**made.result().data, "revision": None, "source": "RTE", "name": NAME}
RTE = task_named("rte")


def name_in(folder, name=NAME):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "about.json").write_text(json.dumps({"name": name}))
    return folder


def test_a_folder_says_what_its_tasks_are(tmp_path):
    """Prevents made-up data in GLUE's own layout from passing for a copy of GLUE."""
    assert load_task(RTE, as_glue(tmp_path, RTE)).name is None
    before = load_task(RTE, tmp_path)
    after = load_task(RTE, name_in(tmp_path))
    assert after.name == NAME
    assert (after.source, after.content) == (before.source, before.content)


def test_a_name_beside_the_tasks_is_found_below(tmp_path):
    """Prevents a name from being lost where the tasks lie in `glue/`."""
    as_parquet(tmp_path / "glue", RTE)
    name_in(tmp_path / "glue")
    assert load_task(RTE, tmp_path).name == NAME


def test_files_of_a_custom_task_have_the_name_beside_them(tmp_path):
    """Prevents a stand-in for a custom task from having no name."""
    path = tmp_path / "task.yaml"
    path.write_text(
        "name: own\ncolumns: [a]\nlabels: [bad, good]\nprimary: [accuracy]\n"
        "files: {train: data/train.csv, validation: data/train.csv}\n"
    )
    folder = name_in(tmp_path / "data")
    (folder / "train.csv").write_text("a,label\nx,bad\ny,good\n")
    assert load_task(read_task(path), None).name == NAME


def test_squads_files_have_the_name_beside_them(tmp_path):
    """Prevents a made-up SQuAD without its name; of two folders both are named."""
    asked = document([("A cooper made it.", "Who made it?", ["A cooper"])])
    folders = [tmp_path / "train", tmp_path / "dev"]
    files = {}
    for split, folder in zip(("train", "validation"), folders, strict=True):
        folder.mkdir()
        files[split] = str(write(folder / "squad.json", asked))
    task = replace(task_named("squad"), files=files)
    assert load_task(task, None).name is None
    name_in(folders[0])
    assert load_task(task, None).name == NAME
    name_in(folders[1], "half of dev")
    assert load_task(task, None).name == f"{NAME} and half of dev"


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"nam": "x"}', '{"name": 5}', '{"name": " "}', '{"name": "a\\nb"}',
     '{"name": "\\ud800"}', '{"name": "' + "x" * 101 + '"}', "\udcff", "[" * 100_000],
)  # fmt: skip
def test_a_file_that_says_no_name_is_refused(tmp_path, text):
    """Prevents a slip in the file from making stand-in data look like real ones."""
    as_glue(tmp_path, RTE)
    (tmp_path / "about.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"about\.json: expected .*, in one short line") as caught:
        load_task(RTE, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_keeps_the_name(tmp_path, monkeypatch):
    """Prevents a result that forgets where its data came from, and another key for its sake."""
    monkeypatch.setattr(runner, "_last_of_each", {})
    world = worlds.make(tmp_path)
    plain = worlds.run_on(world / "glue", world / "bert", given={"max_steps": 1})
    assert "name" not in run_task(plain, lambda _share: None)[0].data
    name_in(world / "glue")
    monkeypatch.setattr(runner, "_last_of_each", {})
    named = worlds.run_on(world / "glue", world / "bert", given={"max_steps": 1})
    assert run_task(named, lambda _share: None)[0].data["name"] == NAME
    assert named.key == plain.key


def test_tables_say_the_name(tmp_path):
    """Prevents numbers on made-up data from standing beside the paper's without a word."""
    made.put(tmp_path, *seeds(0.6, data=SAID), *seeds(0.7, of=BERT))
    elsewhere = {**SAID, "source": "imdb", "name": "another world"}
    made.put(tmp_path, *seeds(0.6, task="imdb", data=elsewhere))
    texts = write_by_name(tmp_path)
    for table in ("table1", "family"):
        said = f"Stand-in data: {NAME}: RTE rte00000 (distilbert)."
        assert note(texts[table], "Stand-in") == said
    said = "Stand-in data: another world: IMDb imdb0000."
    assert note(texts["table2"], "Stand-in") == said
    assert "Read from files" not in "".join(texts.values())


def test_table_4_says_the_name(tmp_path):
    """Prevents an ablation on made-up data from passing for one on GLUE."""
    for ablation in ("none", "no-ce"):
        made.put(tmp_path, *seeds(0.6, of=made.student(ablation), data=SAID))
    said = f"Stand-in data: {NAME}: RTE rte00000."
    assert note(write_by_name(tmp_path)["table4"], "Stand-in") == said


def test_times_say_the_name(tmp_path):
    """Prevents times of made-up pairs from passing for those of STS-B's dev set."""
    folder = name_in(as_glue(tmp_path / "data", task_named("stsb")))
    world = worlds.make(tmp_path / "world")
    words = ["--model", str(world / "bert"), "--data_dir", str(folder), "--pairs", "2"]
    _, setup = requests(parse(SPEED.flags, words, takes_training_flags=False))
    assert setup.source == f"stand-in data: {NAME}"


def test_the_demo_world_says_its_name(monkeypatch):
    """Prevents what `make demo` leaves behind from looking like numbers on GLUE."""
    monkeypatch.setattr(demo, "LINES", 1)
    monkeypatch.setattr(demo, "TRAIN", 4)
    monkeypatch.setattr(demo, "HELD_OUT", 4)
    files = dict(demo.world_files(11))
    for folder in ("glue", "squad"):
        assert json.loads(files[f"{folder}/about.json"]) == {"name": NAME}


def test_the_report_says_it_first(tmp_path):
    """Prevents a page of made-up numbers that looks like one of GLUE's."""
    pytest.importorskip("matplotlib")
    made.put(tmp_path, *seeds(0.6, data=SAID))
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert f"<title>Angel&#x27;s Share: distilbert, on {NAME}</title>" in page
    assert f"stand-in data: {NAME}" in page
