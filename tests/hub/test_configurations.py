"""Data sets with a configuration a language: read from the Hub, fetched at once, kept apart."""

import io

import pyarrow as pa
import pyarrow.parquet
import pytest

from angels_share.errors import UserError
from angels_share.hub.fetch import download
from eval_harness.data.sources import wanted_files
from eval_harness.data.splits import load_task
from eval_harness.tasks.lookup import task_named, tasks_named

XNLI = task_named("xnli")
LANGUAGES = [split.removeprefix("test.") for split in XNLI.evaluation]


def parquet(**columns):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def in_parts(splits):
    """Return the files of a repository: `splits` has columns by configuration and split."""
    return {
        f"{config}/{split}-00000-of-00001.parquet": parquet(**columns)
        for (config, split), columns in splits.items()
    }


def pairs(name):
    return {"premise": [name, name], "hypothesis": ["so", "no"], "label": [0, 2]}


def xnli_files():
    splits = {(each, split): pairs(f"{each} {split}")
              for each in LANGUAGES for split in ("train", "test")}  # fmt: skip
    return in_parts(splits)


def test_all_languages_are_judged_and_only_english_is_trained_on(hub):
    """Prevents a language from being read as another, or 15 training sets from being fetched."""
    sha = hub.add("facebook/xnli", xnli_files(), what="dataset")
    wanted = wanted_files([XNLI], lambda task: ("train", *task.evaluation), None)
    names = {name for each in wanted for name, _ in each.files}
    assert {name for name in names if "train" in name} == {"en/train-00000-of-00001.parquet"}
    assert len(names) == 1 + 15
    download(wanted)
    asked = len(hub.requests)
    data = load_task(XNLI, None)
    assert not [each for each in hub.requests[asked:] if "/cdn/" in each.path]
    assert data.train.texts[0][0] == "en train"
    assert [split.name for split in data.evaluation] == list(XNLI.evaluation)
    assert [split.texts[0][0] for split in data.evaluation] == [f"{e} test" for e in LANGUAGES]
    assert (data.source, data.revision) == ("hub:facebook/xnli/en", sha)


def test_a_translation_is_trained_on_where_it_is_asked_for(hub):
    """Prevents English training pairs from being taken for translated ones."""
    hub.add("facebook/xnli", xnli_files(), what="dataset")
    data = load_task(task_named("xnli-translate-train-ur"), None)
    assert (data.train.texts[0][0], data.evaluation[0].texts[0][0]) == ("ur train", "ur test")
    assert data.source == "hub:facebook/xnli/ur"


def test_tagged_words_come_from_the_hub(hub):
    """Prevents WikiANN's German from being read as English, which is beside it."""
    splits = {
        (language, split): {"tokens": [[language, split]], "ner_tags": [[5, 0]]}
        for language in ("de", "en")
        for split in ("train", "validation")
    }
    hub.add("unimelb-nlp/wikiann", in_parts(splits), what="dataset")
    german, english = (load_task(task, None) for task in tasks_named(["wikiann-de", "wikiann-en"]))
    assert german.train.words == [["de", "train"]]
    assert english.evaluation[0].words == [["en", "validation"]]
    assert german.train.tags[0].tolist() == [5, 0]


def test_what_is_not_on_the_hub_is_not_fetched():
    """Prevents `fetch` from saying that all is there when nothing could be."""
    with pytest.raises(UserError, match=r"CoNLL-2003 is not read from the Hub: use --data_dir"):
        wanted_files([task_named("conll2003")], lambda task: task.evaluation, None)
