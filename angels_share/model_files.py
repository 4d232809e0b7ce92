"""Names of the files that make up a saved model, as transformers writes them."""

import re

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The weights in one file; or the list of the several that they are in."""

CARD = "README.md"
"""The model's card. It changes nothing of what the model computes."""

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files of which a fast tokenizer needs one."""

BESIDE_WEIGHTS = frozenset((
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja",
    "distil.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE",
))  # fmt: skip
"""What goes from the Hub and to it beside the weights, and nothing else."""

IS_WEIGHTS = re.compile(
    rf"{re.escape(WEIGHTS)}|{re.escape(INDEX)}|model-\d{{5}}-of-\d{{5}}\.safetensors"
)


def is_of_model(name: str) -> bool:
    """Return whether a file is one that others need of a model."""
    return name in BESIDE_WEIGHTS or IS_WEIGHTS.fullmatch(name) is not None
