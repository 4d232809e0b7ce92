"""What the tests of a corpus share."""

import pytest
import tiny
from corpora import ALL

from distil_trainer.data.corpus import prepare_corpus


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.wordpiece()


@pytest.fixture
def prepare(tmp_path, tokenizer):
    def prepare(*names, options=ALL, tokenizer=tokenizer, cache_dir=tmp_path / "cache", **more):
        return prepare_corpus(
            [str(name) for name in names], tokenizer, cache_dir=cache_dir, options=options, **more
        )

    return prepare
