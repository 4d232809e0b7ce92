"""The notebook of the documentation, executed as a reader would."""

import ast
import shutil

import pytest
from places import ROOT

from eval_harness.api import load_results

NOTEBOOK = ROOT / "docs" / "first-steps.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_says(tmp_path):
    """Prevents a first hour with the project that ends in a traceback."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(shutil.copy(NOTEBOOK, tmp_path), as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    shown = {
        cell.id: [output["data"]["text/plain"] for output in cell.outputs if "data" in output]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    students = next(texts[-1] for texts in shown.values() if texts and "alone" in texts[-1])
    perplexity = ast.literal_eval(students)
    assert perplexity["student"] < perplexity["alone"]
    results = load_results(tmp_path / "first-steps" / "results")
    assert len(results) == 3 * 2 * 3
    said = [text for texts in shown.values() for text in texts]
    assert any(" vs alone" in text for text in said)
    assert (tmp_path / "first-steps" / "student" / "model.safetensors").is_file()
