"""The files that make up a saved model, as transformers writes them: names, types of weights."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from angels_share.errors import UserError
from angels_share.files import explain

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The weights in one file; or the list of the several that they are in."""

ONNX, ONNX_INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
"""The model as an ONNX file, in float32 and with weights of 8 bits, where transformers.js looks."""

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


_LONGEST_HEADER = 100_000_000
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def weights_in(path: Path) -> Iterator[tuple[str, int]]:
    """Yield type and number of values of each weight of a file, as its header says.

    Raises:
        UserError: the file can't be read, or isn't in safetensors' format.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(_LONGEST_HEADER, path.stat().st_size):
                raise ValueError(f"a header of {length} bytes")  # noqa: TRY301
            header = json.loads(stream.read(length))
        for name, weight in header.items():
            if name != "__metadata__" and weight["dtype"] in _FLOATS:
                count = 1
                for side in weight["shape"]:
                    count *= int(side)
                yield _FLOATS[weight["dtype"]], count
    except OSError as error:
        raise UserError(f"{path}: {explain(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a safetensors file, or a damaged one") from error
