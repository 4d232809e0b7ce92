"""`make tables`: what is published of results is made again from their records, byte for byte."""

import re
import shutil
from importlib.metadata import version

import pytest
from example_scripts import example_module
from places import ROOT

from eval_harness.intervals.kept import INTERVALS
from eval_harness.results.probes import read_all
from eval_harness.results.store import find

RESULTS = ROOT / "results"
STUDIES = sorted({path.parent for kind in ("runs", "probes") for path in RESULTS.glob(f"*/{kind}")})


@pytest.fixture
def published():
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    with example_module("published") as module:
        yield module


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_what_is_generated_is_made_again(study, published, tmp_path):
    """Prevents a table that was edited by hand, or of results which are not there."""
    tested = re.search(r"^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if version("matplotlib") != tested[1]:
        pytest.skip(f"another version of matplotlib than {tested[1]} draws other bytes")
    copy = tmp_path / study.name
    shutil.copytree(study, copy)
    before = {path: path.read_bytes() for path in published.generated(copy)}
    assert before
    for path in before:
        path.unlink()
    published.make(copy)
    assert {path: path.read_bytes() for path in published.generated(copy)} == before


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_nothing_per_example_is_published(study):
    """Prevents labels of data sets, or a place on somebody's machine, from being published."""
    assert not list(study.rglob("*.parquet"))
    found = find(study)
    assert not found.invalid
    assert all(result.withheld for result in (*found.results, *read_all(study)))
    for path in (each for each in study.rglob("*.json") if each.parent.name != INTERVALS):
        assert not any(place in path.read_text() for place in ('"/', "/tmp/", "/home/")), path


def test_a_folder_without_studies_is_refused(published, tmp_path, capsys):
    """Prevents `make tables` from succeeding at nothing."""
    from angels_share.cli import run_command

    assert run_command(published.COMMAND, [str(tmp_path)]) == 2
    assert "no folder in it has runs/ or probes/" in capsys.readouterr().err
