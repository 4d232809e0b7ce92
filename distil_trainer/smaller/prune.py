"""The work of `python -m distil_trainer prune`: scores on data, cuts, what is left, its record."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tqdm
from torch import Tensor
from transformers import PreTrainedModel

from angels_share.errors import UserError
from angels_share.files import sha256_of_file
from angels_share.hub.fetch import model_folder
from angels_share.hub.locate import locate
from angels_share.inputs import longest_of
from angels_share.model_files import WEIGHTS
from angels_share.student_record import PRUNED, steps_of_weights, write_steps
from angels_share.tokenizing import load_tokenizer
from angels_share.untrusted import quiet_transformers
from distil_trainer.models.families import family_of
from distil_trainer.models.importance import Importance, measure_importance
from distil_trainer.models.loading import load_as_saved
from distil_trainer.models.pruning import Sizes, check_sizes, prune
from distil_trainer.objectives.losses import IGNORED
from distil_trainer.smaller.compared import Comparison, compare_cut, said
from distil_trainer.smaller.rows import labels_in, read_rows, require_padding
from distil_trainer.smaller.scores import scorer

_HIDDEN = 0.15
"""Of a masked language model's tokens, for scores by labels."""


@dataclass(frozen=True)
class Request:
    """What is cut, to which shares, and by which scores.

    Attributes:
        model: folder, short name or Hub id.
        folder: where what is left is saved.
        ffn: share of each layer's neurons that is kept.
        heads: share of each layer's heads, where a head's size is a setting of its own.
        width: share of the hidden size; elsewhere also of the heads.
        scores: the first cut's score, and that of the others.
        data: rows to score on; None for random cuts.
        text_columns: the columns of their text.
        label_column: the column of their labels.
        needs_labels: whether it must be there: it was named, or a score wants it.
        iterations: number of cuts.
        rows: how many rows at most.
        batch_size: rows per batch.
        seed: of drawn labels, dropout and random cuts.
    """

    model: str
    folder: Path
    ffn: float
    heads: float
    width: float
    scores: tuple[str, str]
    data: Path | None
    text_columns: Sequence[str]
    label_column: str
    needs_labels: bool
    iterations: int
    rows: int
    batch_size: int
    seed: int


def prune_model(request: Request) -> str:
    """Cut a model, save what is left with its tokenizer and record, and return a line about it.

    Raises:
        UserError: the model or the data aren't there, or the model can't be cut to these sizes.
    """
    began = time.perf_counter()
    source = model_folder(locate(request.model))
    original = load_as_saved(request.model)
    tokenizer = load_tokenizer(request.model)
    _check_model(request, original, tokenizer)
    earlier = steps_of_weights(source)  # read now: a damaged record must not end the work later
    old = Sizes.of(original)
    steps = [_sizes(request, original, number) for number in range(1, request.iterations + 1)]
    for sizes in steps:
        check_sizes(original.config, sizes)
    if steps[-1] == old:
        raise UserError(
            f"nothing is cut: these shares leave {_described(old)}, which is the whole model"
        )
    labels, batches = None, []
    if request.data is not None:
        labels = labels_in(
            request.data,
            request.label_column,
            original,
            limit=request.rows,
            required=request.needs_labels,
        )
        batches = _batches(request, original, tokenizer, labels)
    generator = torch.Generator().manual_seed(request.seed)
    model, used = original, []
    for sizes in steps:
        if sizes == Sizes.of(model):  # a share so near to 1 that it leaves all parts
            continue
        # Until something is cut, the model is the one that KL would compare it with.
        name = request.scores[model is not original]
        used.append(name)
        if name == "random":
            importance = _random(model, generator)
        else:
            importance = _measured(name, model, original, batches, generator)
        model = prune(model, sizes, importance)
    cuts = {
        "scores": list(dict.fromkeys(used)),
        "cuts": len(used),
        "rows": sum(len(batch["input_ids"]) for batch in batches) or None,
        "sizes": {"from": old._asdict(), "to": steps[-1]._asdict()},
    }
    compared = None
    if request.data is not None:
        compared = compare_cut(original, model, batches, request.data.name, labels)
    step = _step(request, source, cuts, compared, time.perf_counter() - began)
    _save(request.folder, model, tokenizer, earlier, step)
    before, after = (each.num_parameters() / 1e6 for each in (original, model))
    kept = ""
    if compared is not None:
        kept = f", {compared.share_of_equal_answers:.1%} of its answers on {compared.rows} rows"
        kept += said(compared)
    return (
        f"{request.folder}: {after:.1f} of {before:.1f} M parameters{kept}, {_described(steps[-1])}"
    )


def _save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: Any,
    earlier: Sequence[Mapping[str, Any]],
    step: Mapping[str, Any],
) -> None:
    """Save a model with its record; the config, which makes the folder a model's, comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".prune-") as name:
        draft = Path(name)
        with quiet_transformers():
            model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        weights = draft / WEIGHTS
        made = {"sha256": sha256_of_file(weights), "bytes": weights.stat().st_size}
        write_steps(draft, [*earlier, {**step, **made}])
        for path in sorted(draft.iterdir(), key=lambda path: path.name == "config.json"):
            path.replace(folder / path.name)


def _check_model(request: Request, model: PreTrainedModel, tokenizer: Any) -> None:
    """Refuse models that can't be scored, or not by what was asked for.

    Raises:
        UserError: says why.
    """
    family, kind = family_of(model), type(model).__name__
    try:
        family.layers(model)
    except AttributeError as error:
        raise UserError(f"{request.model}: a {kind} is not supported") from error
    if getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise UserError(
            f"{request.model}: several labels per example are not supported: its classes don't "
            "exclude each other, and scores take them to"
        )
    if "output" in request.scores and not _has_dropout(model):
        raise UserError(
            "--score output: this model has no dropout, so it differs from its own output by "
            "nothing, KL's gradient is zero, and only rounding would be ranked: use fisher"
        )
    require_padding(request.model, model, tokenizer)


def _has_dropout(model: PreTrainedModel) -> bool:
    shares = model.config.to_dict().items()
    return any(
        value
        for name, value in shares
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float)
    )


def _described(sizes: Sizes) -> str:
    heads = f"{sizes.heads} head{'' if sizes.heads == 1 else 's'}"
    return f"hidden size {sizes.width}, {heads}, feed-forward width {sizes.ffn} in each layer"


def _sizes(request: Request, model: PreTrainedModel, number: int) -> Sizes:
    """Return the sizes after a cut; the shares shrink by equal factors from cut to cut.

    Raises:
        UserError: heads are named where width decides them.
    """
    old, progress = Sizes.of(model), number / request.iterations
    ffn = max(round(old.ffn * request.ffn**progress), 1)
    if getattr(model.config, "head_dim", None) is None:
        if request.heads != 1:
            raise UserError(
                f"--heads {request.heads:g}: a {model.config.model_type}'s heads are as wide as "
                "the hidden size divided by their number, so a plain config can't have fewer of "
                "that width: use --width, which cuts both"
            )
        heads, groups = _heads(old, request.width**progress)
        return Sizes(heads * (old.width // old.heads), heads, groups, ffn)
    heads, groups = _heads(old, request.heads**progress)
    width = max(round(old.width * request.width**progress), 1)
    return Sizes(width, heads, groups, ffn)


def _heads(old: Sizes, share: float) -> tuple[int, int]:
    """Return the possible numbers of heads, and of keys and values, that are nearest to a share.

    Each head of keys serves as many queries as every other, at most as many as before. Of equally
    near ones it is the smaller, then the one whose keys are nearest to the share.
    """
    possible = [
        (groups * each, groups)
        for groups in range(1, old.key_value_heads + 1)
        for each in range(1, old.heads // old.key_value_heads + 1)
    ]
    wanted, keys = old.heads * share, old.key_value_heads * share
    return min(possible, key=lambda found: (abs(found[0] - wanted), found[0], abs(found[1] - keys)))


def _batches(
    request: Request, model: PreTrainedModel, tokenizer: Any, labels: Sequence[float] | None
) -> list[dict[str, Tensor]]:
    assert request.data is not None
    kind = type(model).__name__
    by_labels = "labels" in request.scores
    if by_labels and not kind.endswith(("ForSequenceClassification", "ForMaskedLM", *_CAUSAL)):
        raise UserError(f"--score labels: a {kind} is scored without labels: use output or fisher")
    found = read_rows(
        request.data,
        tokenizer,
        request.text_columns,
        max_length=longest_of(model),
        limit=request.rows,
    )
    batches = []
    for start in range(0, len(found), request.batch_size):
        rows = found[start : start + request.batch_size]
        batch = _padded(rows, tokenizer.pad_token_id or 0)
        if by_labels and labels is not None:
            batch["labels"] = torch.tensor(labels[start : start + request.batch_size])
        elif by_labels:
            batch = _with_hidden_words(batch, tokenizer, kind, request.seed + start)
        batches.append(batch)
    return batches


_CAUSAL = ("ForCausalLM", "LMHeadModel")


def _padded(rows: Sequence[Mapping[str, Sequence[int]]], pad_id: int) -> dict[str, Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": 0}
    return {
        name: torch.tensor([[*row[name], *[fill[name]] * (width - len(row[name]))] for row in rows])
        for name in rows[0]
    }


def _with_hidden_words(
    batch: dict[str, Tensor], tokenizer: Any, kind: str, seed: int
) -> dict[str, Tensor]:
    """Return a language model's batch with its labels: hidden words, or the next tokens."""
    ids, attended = batch["input_ids"], batch["attention_mask"].bool()
    if kind.endswith(_CAUSAL):
        following = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=IGNORED)
        seen = torch.nn.functional.pad(attended[:, 1:], (0, 1), value=False)
        return {**batch, "labels": following.masked_fill(~seen, IGNORED)}
    generator = torch.Generator().manual_seed(seed)
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape, generator=generator) < _HIDDEN) & attended & ~special
    hidden = ids.masked_fill(chosen, tokenizer.mask_token_id)
    return {**batch, "input_ids": hidden, "labels": ids.masked_fill(~chosen, IGNORED)}


def _measured(
    name: str,
    model: PreTrainedModel,
    original: PreTrainedModel,
    batches: Sequence[dict[str, Tensor]],
    generator: torch.Generator,
) -> Importance:
    chosen = scorer(name, model, original, generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())  # of dropout
        return measure_importance(
            model, _shown(name, batches), chosen.loss, squared=chosen.is_squared
        )


def _shown(name: str, batches: Sequence[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    return iter(tqdm.tqdm(batches, desc=f"scores by {name}", leave=False, delay=5))


def _random(model: PreTrainedModel, generator: torch.Generator) -> Importance:
    """Return scores that are drawn: what the others have to beat."""
    sizes, depth = Sizes.of(model), len(family_of(model).layers(model))
    shapes = ((depth, sizes.heads), (depth, sizes.ffn), (sizes.width,))
    return Importance(
        *(torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    )


def _step(
    request: Request,
    source: Path,
    cuts: Mapping[str, Any],
    compared: Comparison | None,
    seconds: float,
) -> dict[str, Any]:
    weights = source / WEIGHTS
    return {
        "what": PRUNED,
        "file": WEIGHTS,
        "from": {
            "name": Path(request.model).name,
            "sha256": sha256_of_file(weights) if weights.is_file() else None,
        },
        "settings": {
            **cuts,
            "data": request.data.name if request.data else None,
            "data_sha256": sha256_of_file(request.data) if request.data else None,
            "iterations": request.iterations,
            "seed": request.seed,
        },
        "compared": compared and compared.record(),
        "seconds": round(seconds, 1),
    }
