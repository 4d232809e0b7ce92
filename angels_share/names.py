"""Names of models: short names, the repositories that they mean, and "did you mean"."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

REPO_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


@dataclass(frozen=True)
class ShortName:
    """A short name, the Hub repository that it means, and that repository's older ids.

    Attributes:
        short: the name that people type.
        repo_id: the repository's id today.
        older_ids: ids that still lead to the same repository.
        paper_row: the label of its row in the paper's tables, if it has one.
        teacher: the short name of the model that it was distilled from, if any.
    """

    short: str
    repo_id: str
    older_ids: tuple[str, ...] = ()
    paper_row: str | None = None
    teacher: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a user may type for it."""
        return (self.short, self.repo_id, *self.older_ids)


SHORT_NAMES = (
    ShortName("bert", "google-bert/bert-base-uncased", ("bert-base-uncased",), "BERT-base"),
    ShortName("bert-cased", "google-bert/bert-base-cased", ("bert-base-cased",)),
    ShortName(
        "distilbert",
        "distilbert/distilbert-base-uncased",
        ("distilbert-base-uncased",),
        "DistilBERT",
        "bert",
    ),
    ShortName(
        "distilbert-cased",
        "distilbert/distilbert-base-cased",
        ("distilbert-base-cased",),
        teacher="bert-cased",
    ),
    ShortName(
        "distilbert-squad",
        "distilbert/distilbert-base-uncased-distilled-squad",
        ("distilbert-base-uncased-distilled-squad",),
        "DistilBERT (D)",
        "bert",
    ),
    ShortName(
        "distilbert-cased-squad",
        "distilbert/distilbert-base-cased-distilled-squad",
        ("distilbert-base-cased-distilled-squad",),
        teacher="bert-cased",
    ),
    ShortName("roberta", "FacebookAI/roberta-base", ("roberta-base",)),
    ShortName(
        "distilroberta",
        "distilbert/distilroberta-base",
        ("distilroberta-base",),
        teacher="roberta",
    ),
    ShortName("xlm-roberta", "FacebookAI/xlm-roberta-base", ("xlm-roberta-base",)),
    ShortName("gpt2", "openai-community/gpt2"),
    ShortName("distilgpt2", "distilbert/distilgpt2", teacher="gpt2"),
    ShortName(
        "mbert", "google-bert/bert-base-multilingual-cased", ("bert-base-multilingual-cased",)
    ),
    ShortName(
        "distilmbert",
        "distilbert/distilbert-base-multilingual-cased",
        ("distilbert-base-multilingual-cased",),
        teacher="mbert",
    ),
    ShortName(
        "bert-german",
        "dbmdz/bert-base-german-cased",
        ("google-bert/bert-base-german-dbmdz-cased", "bert-base-german-dbmdz-cased"),
    ),
    ShortName(
        "distilbert-german",
        "distilbert/distilbert-base-german-cased",
        ("distilbert-base-german-cased",),
        teacher="bert-german",
    ),
    ShortName("modernbert", "answerdotai/ModernBERT-base"),
    ShortName("modernbert-large", "answerdotai/ModernBERT-large"),
    *(
        ShortName(f"ettin-{size}", f"jhu-clsp/ettin-encoder-{size}")
        for size in ("17m", "32m", "68m", "150m", "400m", "1b")
    ),
    ShortName("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
    ShortName("qwen3-0.6b-base", "Qwen/Qwen3-0.6B-Base"),
    ShortName("smollm2-135m", "HuggingFaceTB/SmolLM2-135M"),
    ShortName("smollm2-360m", "HuggingFaceTB/SmolLM2-360M"),
)


def nearest(name: str, known: Iterable[str], closeness: float = 0.6) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or '' if none is close."""
    candidates = sorted(set(known))
    folded = {candidate.lower(): candidate for candidate in reversed(candidates)}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=closeness)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""


def short_name_of(name: str) -> ShortName | None:
    """Return the row of the table that a name belongs to, or None."""
    return next((row for row in SHORT_NAMES if name in row.names), None)
