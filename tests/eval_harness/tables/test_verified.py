"""What tables say of files that can't be trusted: altered, unsealed, disproved, without proof."""

import shutil

import made_results as made
import pytest
from made_results import STUDENT, cells, note, notes, seeds
from places import GOLDEN, PAPER

from angels_share.cli import DONE, RUN_FAILED
from angels_share.flags import Options
from eval_harness.commands import tables
from eval_harness.results.store import find, path_of, withhold
from eval_harness.tables.write import write_by_name


@pytest.fixture
def root(tmp_path):
    shutil.copytree(PAPER.parent, tmp_path / "reference")
    return tmp_path


def printed(root, capsys, *, verify):
    values = {"results_dir": str(root), "format": "markdown", "verify": verify}
    status = tables.run(Options(values, frozenset(values), {}))
    return status, capsys.readouterr().out


def test_an_edited_score_is_no_number_of_a_table(root):
    """Prevents a score that was edited in its file from becoming the table's."""
    made.put(root, *seeds(0.57, 0.61))
    file = path_of(root, made.result(STUDENT, seed=2).key)
    file.write_text(file.read_text().replace("0.61", "0.90"))
    table1 = write_by_name(root)["table1"]
    row = cells(table1)["distilbert"]
    assert (row["n"], row["RTE"]) == ("1/2", "57.0 (1/2)")
    name = file.relative_to(root).as_posix()
    assert note(table1, "Not counted") == (
        f"Not counted: {name}: was altered after it was saved (its checksum differs)."
    )
    assert not any("Unsealed" in line for line in notes(table1))


def test_results_without_a_seal_are_noted(root):
    """Prevents a number that could have been edited unseen from looking like the others."""
    shutil.copytree(GOLDEN / "results-3" / "runs", root / "runs")
    made.put(root, *seeds(0.57))
    table1 = write_by_name(root)["table1"]
    assert note(table1, "Unsealed") == (
        "Unsealed (saved by an earlier version, without a checksum: `tables --verify` shows "
        "whether a score was altered since): RTE seed 1 (student)."
    )


def test_verifying_names_what_its_predictions_disprove(root, capsys):
    """Prevents a table of scores that nobody has compared with the predictions beside them."""
    made.put(root, *seeds(0.6), said=made.scoring(0.6))
    made.put(root, *seeds(0.9, first=2), said=made.scoring(0.6))
    made.put(root, *seeds(0.7, first=3), said=made.scoring(0.7))
    withhold(root, next(each for each in find(root).results if each.seed == 3))
    status, out = printed(root, capsys, verify=False)
    assert (status, "verified" in out) == (DONE, False)
    assert cells((root / "table1.md").read_text())["distilbert"]["RTE"] == "70.0 (60.0 to 90.0)"
    status, out = printed(root, capsys, verify=True)
    assert status == RUN_FAILED
    key = made.result(STUDENT, seed=2).key
    assert out.splitlines()[-2:] == [
        "verified: 1 of 3 results agree with their predictions; 1 without published predictions",
        f"not counted: runs/{key}.json: scores.validation.accuracy is 0.9, "
        "but 0.6 by its predictions",
    ]
    table1 = (root / "table1.md").read_text()
    assert " ".join(notes(table1)).count("but 0.6 by its predictions") == 1
    assert cells(table1)["distilbert"]["RTE"] == "65.0 (60.0 to 70.0; 2/3)"
    path_of(root, key).unlink()
    assert printed(root, capsys, verify=True)[0] == DONE


@pytest.mark.parametrize("damage", ["score", "no predictions", "longer predictions"])
def test_verifying_names_what_is_damaged(root, capsys, damage):
    """Prevents "all agree", and status 0, where a file had already dropped out before."""
    made.put(root, *seeds(0.6, 0.7), said=made.scoring(0.6))
    key = made.result(STUDENT, seed=1).key
    file = path_of(root, key)
    (predictions,) = file.parent.glob("seed-1.*.parquet")
    if damage == "score":
        file.write_text(file.read_text().replace("0.6", "0.5"))
    elif damage == "no predictions":
        predictions.unlink()
    else:
        predictions.write_bytes(predictions.read_bytes() + b"xx")
    path_of(root, made.result(STUDENT, seed=2).key).unlink()
    status, out = printed(root, capsys, verify=True)
    assert status == RUN_FAILED
    *_, verified, named = out.splitlines()
    assert verified == "verified: 0 of 1 results agree with their predictions"
    assert named.startswith(f"not counted: runs/{key}.json: ")


def test_withheld_predictions_are_noted(root):
    """Prevents predictions that may not be published from looking lost, or going unmentioned."""
    made.put(root, *seeds(0.6, 0.7))
    withhold(root, next(each for each in find(root).results if each.seed == 2))
    texts = write_by_name(root)
    assert note(texts["table1"], "Predictions not published") == (
        "Predictions not published: RTE seed 2."
    )
    assert "not counted" not in texts
