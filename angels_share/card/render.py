"""The model card that goes up with a model: from facts to the text of its README.md.

    facts = facts_of(folder, "someone/student", license="apache-2.0", languages=["en"])
    text = render(facts, existing)

Nothing that was not measured appears, and what people wrote into an existing card stays. The same
facts give the same bytes. Imports no torch.
"""

from dataclasses import replace

from angels_share.card.body import sections
from angels_share.card.facts import (
    CardCorpus,
    CardData,
    CardFacts,
    CardFineTuning,
    CardMeasured,
    CardPretraining,
    CardResult,
    CardRetained,
    CardRow,
    CardShape,
    CardTable,
    CardTeacher,
)
from angels_share.card.merge import BEGIN, END, Existing, remembered
from angels_share.card.metadata import KEYS, metadata_of
from angels_share.card.reading import facts_of
from angels_share.card.text import checked, inline

__all__ = [
    "CardCorpus",
    "CardData",
    "CardFacts",
    "CardFineTuning",
    "CardMeasured",
    "CardPretraining",
    "CardResult",
    "CardRetained",
    "CardRow",
    "CardShape",
    "CardTable",
    "CardTeacher",
    "facts_of",
    "metadata_of",
    "render",
]


def render(facts: CardFacts, existing: str | None = None) -> str:
    """Return the card.

    Args:
        facts: what to state.
        existing: the card as it is now, read with its own line endings (`newline=""`): what people
            wrote stays, byte for byte outside of the metadata.

    Raises:
        UserError: a number is NaN or infinite, or the existing card is damaged.
    """
    facts = checked(facts)
    card = Existing(existing or "")
    ours = metadata_of(facts)
    metadata = card.merged(ours, KEYS)
    # Both may be what somebody wrote into the existing card.
    licence, languages = metadata.get("license"), metadata.get("language") or ()
    spoken = [languages] if isinstance(languages, str) else list(languages)
    known = replace(facts, languages=tuple(map(str, spoken)))
    body = sections(known, str(licence) if licence else None)
    part = "\n".join([BEGIN, remembered(ours), *body, "", END])
    title = f"# {inline(facts.repo_id.rpartition('/')[2])}"
    return card.with_part(metadata, part, title)
