"""A language model's data sets: what each column means, and that none of them is passed over."""

import datasets
import numpy as np
import pytest
import tiny
import torch
import updates

from angels_share.errors import UserError
from distil_trainer.data.batches import BatchPlan, CausalCollator, EpochLoader, MaskingCollator
from distil_trainer.data.masking import IGNORED, Masker, MaskingOptions
from distil_trainer.data.sequences import as_sequences
from distil_trainer.training.fingerprints import of_data

CLS, SEP, MASK = 2, 3, 4
TOKENS = [CLS, 9, 10, 11, 12, 13, 14, 15, SEP]
SPECIAL = (0, 1, CLS, SEP, MASK)


def masked_batch(*rows, **settings):
    """Return the batch that a masked model's loader makes of these rows."""
    options = MaskingOptions(probability=0.5, smoothing=0.0, **settings)
    masker = Masker(
        options, seed=0, token_counts=np.ones(160), mask_id=MASK, special_ids=list(SPECIAL)
    )
    return _only_batch(rows, MaskingCollator(masker, 0), causal=False)


def causal_batch(*rows):
    return _only_batch(rows, CausalCollator(0), causal=True)


def _only_batch(rows, collator, *, causal):
    sequences = as_sequences(list(rows), causal=causal, special_ids=SPECIAL)
    plan = BatchPlan(sequences.lengths, batch_size=len(rows))
    (batch,) = EpochLoader(sequences, plan, collator)
    return batch


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input_ids": [5.7, 6.0, 7.0]}, "row 0: input_ids has values that are no whole numbers"),
        ({"input_ids": [5, 6], "attention_mask": [1, 0.5]}, "attention_mask has values that are"),
        ({"input_ids": [5, 6], "special_tokens_mask": [0, 7]}, "special_tokens_mask holds other"),
        ({"input_ids": [[5, 6]]}, "input_ids has 2 dimensions instead of 1"),
        ((torch.tensor([5, 6]), torch.tensor([1, 1])), "the row has 2 dimensions instead of 1"),
        ({"input_ids": ["5", "6"]}, "not token ids"),
    ],
)
def test_values_that_would_be_cut_are_refused(row, said):
    """Prevents 5.7 from becoming token 5, and rows that hold no ids from being a traceback."""
    with pytest.raises(UserError, match=said):
        as_sequences([row])


def test_whole_numbers_may_be_floats():
    """Prevents a mask of 1.0 and 0.0, as some tokenizers' tensors have, from being refused."""
    rows = as_sequences([{"input_ids": [5, 6, 0], "attention_mask": [1.0, 1.0, 0.0]}])
    assert rows[0].tolist() == [5, 6]


def test_a_data_set_with_lengths_of_its_own_is_read():
    """Prevents a class of the user's from being taken for a prepared corpus by one name."""

    class Lengthy(list):
        lengths = "of something"

    rows = as_sequences(Lengthy([{"input_ids": TOKENS}]))
    assert rows[0].tolist() == TOKENS


@pytest.mark.parametrize("make", [masked_batch, causal_batch])
@pytest.mark.parametrize("side", ["left", "right"])
def test_attention_mask(make, side):
    """Prevents a padded data set from being trained on as if its padding were text."""
    padding, mask = [0] * 20, [0] * 20
    ids, attended = (
        (padding + TOKENS, mask + [1] * 9) if side == "left" else (TOKENS + padding, [1] * 9 + mask)
    )
    bare, padded = make({"input_ids": TOKENS}), make({"input_ids": ids, "attention_mask": attended})
    assert bare.keys() == padded.keys()
    assert all(torch.equal(bare[name], padded[name]) for name in bare)


def test_labels_of_a_causal_model():
    """Prevents a prompt, whose labels are masked, from being learned."""
    labels = [IGNORED] * 5 + TOKENS[5:]
    batch = causal_batch({"input_ids": TOKENS, "labels": labels})
    assert batch["labels"][0, :9].tolist() == labels
    assert batch["labels"][0, 9:].tolist() == [IGNORED] * 7
    assert batch["input_ids"][0, :9].tolist() == TOKENS


def test_labels_of_a_masked_model():
    """Prevents a text that was masked beforehand from being masked again, on other words."""
    ids = [CLS, 9, MASK, 11, 12, 20, 14, 15, SEP]
    labels = [IGNORED, IGNORED, 10, IGNORED, IGNORED, 13, IGNORED, IGNORED, IGNORED]
    batch = masked_batch({"input_ids": ids, "labels": labels}, {"input_ids": [*TOKENS[:6], SEP]})
    order = [row.tolist()[8] == SEP for row in batch["input_ids"]].index(True)
    assert batch["input_ids"][order, :9].tolist() == ids
    assert batch["labels"][order, :9].tolist() == labels
    assert (batch["labels"][1 - order] != IGNORED).any()  # a row without labels is masked here


def test_labels_that_are_a_copy():
    """Prevents a masked model from learning to copy; for a causal one a copy says nothing new."""
    row = {"input_ids": TOKENS, "labels": TOKENS}
    with pytest.raises(UserError, match=r"row 0: labels are a copy of input_ids.*remove"):
        as_sequences([row])
    assert of_data(as_sequences([row], causal=True)) == of_data(as_sequences([TOKENS]))


def test_token_type_ids():
    """Prevents the second sentence of a pair from being given to a BERT as part of the first."""
    types = [0] * 5 + [1] * 4
    batch = masked_batch({"input_ids": TOKENS, "token_type_ids": types})
    assert batch["token_type_ids"][0].tolist() == types + [0] * 7
    assert "token_type_ids" not in masked_batch({"input_ids": TOKENS, "token_type_ids": [0] * 9})


@pytest.mark.parametrize("scope", ["example", "batch", "token"])
def test_special_tokens_mask(scope):
    """Prevents tokens that the data set marks as special from becoming targets."""
    special = [1, 0, 1, 0, 1, 1, 1, 1, 1]
    many = [{"input_ids": TOKENS, "special_tokens_mask": special}] * 50
    targets = masked_batch(*many, scope=scope)["labels"][:, :9] != IGNORED
    assert targets.any(dim=0).tolist() == [False, True, False, True, *[False] * 5]


def test_columns_that_say_nothing_change_no_fingerprint():
    """Prevents a checkpoint from being refused because of what a tokenizer always returns."""
    row = {
        "input_ids": TOKENS,
        "attention_mask": [1] * 9,
        "token_type_ids": [0] * 9,
        "special_tokens_mask": [1, *[0] * 7, 1],
        "text": "also a column",
    }
    bare = of_data(as_sequences([TOKENS]))
    assert of_data(as_sequences([row], special_ids=SPECIAL)) == bare
    for name, value in (
        ("token_type_ids", [0] * 5 + [1] * 4),
        ("special_tokens_mask", [1] * 5 + [0] * 4),
        ("labels", [IGNORED, 10, *[IGNORED] * 7]),
    ):
        assert of_data(as_sequences([{**row, name: value}], special_ids=SPECIAL)) != bare


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attention_mask": [1, 1, 0, 1, 1, 1, 1, 1, 1]}, "row 1: attention_mask has a gap"),
        ({"attention_mask": [1, 1, 1, 2, 2, 2, 2, 2, 2]}, "row 1: attention_mask .* 0 and 1"),
        ({"labels": [7] * 8}, "row 1: labels has 8 values, input_ids 9"),
        ({"token_type_ids": [0] * 10}, "row 1: token_type_ids has 10 values, input_ids 9"),
        ({"position_ids": list(range(9))}, "row 1: position_ids .* not supported"),
        ({"inputs_embeds": [[0.0]]}, "row 1: inputs_embeds .* not supported"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(change, said):
    """Prevents packed, ragged or otherwise special data from being trained on as plain text."""
    with pytest.raises(UserError, match=said):
        as_sequences([{"input_ids": TOKENS}, {"input_ids": TOKENS, **change}])


def test_rows_without_a_token(caplog):
    """Prevents an empty line of the data from being a sequence of no tokens, without a word."""
    rows = [{"input_ids": []}, {"input_ids": TOKENS}, {"input_ids": [0], "attention_mask": [0]}]
    sequences = as_sequences(rows)
    assert len(sequences) == 1
    assert sequences[0].tolist() == TOKENS
    assert "2 of 3 rows have no token" in caplog.text
    with pytest.raises(UserError, match="no row has a token"):
        as_sequences(rows[:1])


def test_a_data_set_of_the_hub_library_with_torch_tensors():
    """Prevents a data set's format, which tutorials set to torch, from changing what is read."""
    table = {"input_ids": [TOKENS, TOKENS[:5]], "attention_mask": [[1] * 9, [1, 1, 1, 0, 0]]}
    dataset = datasets.Dataset.from_dict(table)
    for form in (None, "torch", "numpy"):
        sequences = as_sequences(dataset.with_format(form))
        assert [sequences[n].tolist() for n in range(2)] == [TOKENS, TOKENS[:3]]


def test_padding_to_one_width_gives_the_same_student(tmp_path):
    """Prevents the whole way, from data set to weights, from seeing padding."""
    plain = updates.sequences(160)
    tokenizer = tiny.wordpiece()
    padded = [dict(tokenizer.pad(row, padding="max_length", max_length=40)) for row in plain]
    assert {len(row["input_ids"]) for row in padded} == {40}
    losses = [
        updates.one_update("masked", tmp_path / name, data=data)[0]
        for name, data in (("plain", plain), ("padded", padded))
    ]
    assert losses[0] == losses[1]
