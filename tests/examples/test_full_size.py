"""docs/full-size.md: its numbers are computed, and what computes them counts as the step does."""

import re

import pytest
from places import ROOT
from transformers import BertConfig, DistilBertConfig

from benchmarks import family_cost, full_size

PAGE = (ROOT / "docs" / "full-size.md").read_text(encoding="utf-8")


def test_the_page_prints_what_is_computed():
    """Prevents a number of the page that was typed, or is another day's."""
    _, _, rest = PAGE.partition("<!-- begin: python -m benchmarks.full_size -->\n")
    printed, end, _ = rest.partition("\n<!-- end -->")
    assert end
    assert printed == "\n".join(full_size.lines(full_size.ACHIEVED))


@pytest.mark.parametrize("config", [BertConfig(), DistilBertConfig()])
def test_operations_are_those_of_the_other_count(config):
    """Prevents a layer that is counted twice or not at all: one counts modules, one widths."""
    length = family_cost.LENGTH
    assert full_size.forward(config, length) == family_cost.forward(config)
    head = 2 * 768 * config.vocab_size
    assert full_size.forward(config, length, head=False) == family_cost.forward(config) - head


def test_hours_follow_from_the_rate(capsys, monkeypatch):
    """Prevents an option that changes nothing, and a cost of fine-tuning below its steps'."""
    paper = full_size.PAPER
    assert paper.gpu_hours(100) == pytest.approx(2 * paper.gpu_hours(200))
    squad = (full_size.SQUAD,)
    steps, hours = full_size.tuning_hours(paper.student, squad, 0.025, 1e9)
    assert steps == 2 * 7300
    assert 3600 * hours == pytest.approx(steps * 0.025, rel=0.01)
    assert full_size.tuning_hours(paper.student, squad, 0.025, 1)[1] > hours
    monkeypatch.setattr("sys.argv", ["full_size", "--achieved", "100"])
    full_size.main()
    assert "At 100 TFLOP/s a GPU" in capsys.readouterr().out


def test_glue_has_as_many_examples_as_elsewhere():
    """Prevents a task that is missing from the cost."""
    total = sum(each.examples for each in full_size.GLUE)
    family = (ROOT / "docs" / "family.md").read_text(encoding="utf-8")
    assert f"{total:,} examples" in family


def test_the_commands_have_the_sizes_that_the_cost_has():
    """Prevents a command whose updates are others than those whose cost stands below it."""
    words = re.findall(r"^torchrun .*", PAGE, flags=re.MULTILINE)
    assert len(words) == 2
    for line, each in zip(words, (full_size.PAPER, full_size.MODERN), strict=True):
        assert f"--nproc_per_node {full_size.GPUS} " in line
        assert f"--tokens_per_batch {each.batch} " in line
        assert f"--gradient_accumulation_steps {each.accumulation} " in line
    assert f"--max_seq_length {full_size.MODERN.length} " in words[1]
    assert f"--num_train_epochs {full_size.MODERN.epochs} " in words[1]
