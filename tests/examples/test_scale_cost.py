"""The arithmetic of pre-training on many GPUs."""

import pytest
from places import ROOT
from transformers import BertConfig, DistilBertConfig, ModernBertConfig

from benchmarks import family_cost, scale_cost


def test_it_counts_as_by_hand():
    """Prevents hours that rest on a forgotten projection, head or gate."""
    for config in (BertConfig(), DistilBertConfig()):
        assert scale_cost.forward(config, 512) == family_cost.forward(config)
    assert scale_cost.forward(BertConfig(), 128) == pytest.approx(222.6e6, rel=1e-3)
    assert scale_cost.parameters(DistilBertConfig()) == 66_362_880 + 622_650
    width, ffn, layers = 768, 1152, 22
    projections = layers * (4 * width**2 + 3 * width * ffn) + width**2 + width * 50_368
    seen = layers * 1024  # local attention is computed with a mask: all of it
    counted = scale_cost.forward(ModernBertConfig(), 1024)
    assert counted == 2 * projections + 4 * width * seen


def test_the_document_has_what_is_printed(capsys):
    """Prevents tables that an assumption has left behind."""
    scale_cost.main()
    document = (ROOT / "docs" / "scale-training.md").read_text(encoding="utf-8")
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(printed) == 14
    for line in printed:
        assert line in document, line
