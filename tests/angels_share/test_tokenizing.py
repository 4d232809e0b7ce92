"""Tokenizers of student and teacher: they must encode every text alike."""

import re

import pytest
import tiny
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from angels_share.errors import UserError
from angels_share.tokenizing import check_tokenization


def changed(tokenizer, **parts):
    """Return the tokenizer with another normalizer, pre-tokenizer or post-processor."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    for name, part in parts.items():
        setattr(backend, name, part)
    tokenizer._tokenizer = backend
    return tokenizer


def template(tokenizer, *, second_type=1, more=""):
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B:{second_type} [SEP]:{second_type}" + more,
        special_tokens=special,
    )


@pytest.mark.parametrize("make", [tiny.wordpiece, tiny.byte_bpe])
def test_a_tokenizer_is_like_itself(make):
    """Prevents a refusal of the pair that everybody has."""
    check_tokenization(make(), make())


def test_the_same_in_other_words_is_the_same():
    """Prevents a refusal because a file says in another way what amounts to the same."""
    tokenizer = tiny.wordpiece()
    check_tokenization(
        tokenizer,
        changed(
            tiny.wordpiece(),
            post_processor=template(tokenizer),
            normalizer=normalizers.BertNormalizer(lowercase=True, strip_accents=True),
        ),
    )
    tokenizer.model_max_length = 5
    tokenizer.padding_side = "left"
    check_tokenization(tokenizer, tiny.wordpiece())


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"normalizer": normalizers.BertNormalizer(lowercase=False)}, "the/0"),
        (
            {"normalizer": normalizers.BertNormalizer(strip_accents=False)},
            "and [UNK]/0 in/0 [UNK]/0 for the teacher",
        ),
        ({"normalizer": normalizers.BertNormalizer(handle_chinese_chars=False)}, "h/0 ##a/0 ##t/0"),
        (
            {"pre_tokenizer": pre_tokenizers.WhitespaceSplit()},
            "and z/0 ##u/0 ##r/0 for the teacher",
        ),
        ({"post_processor": None}, "becomes [CLS]/0 the/0 c/0 for the student and the/0"),
        (
            {"post_processor": "types"},
            "becomes a/1 ##e/1 e/1 for the student and a/0",
        ),
        (
            {"post_processor": "longer"},
            "becomes nothing for the student and [SEP]/1 for the teacher",
        ),
    ],
)
def test_one_vocabulary_and_other_ids(parts, said):
    """Fault 16. Prevents a cased teacher from being given its student's lower-cased words."""
    tokenizer = tiny.wordpiece()
    if parts.get("post_processor") == "types":
        parts = {"post_processor": template(tokenizer, second_type=0)}
    elif parts.get("post_processor") == "longer":
        parts = {"post_processor": template(tokenizer, more=" [SEP]:1")}
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        check_tokenization(tokenizer, changed(tiny.wordpiece(), **parts))
    line = str(refused.value)
    assert line.startswith("the tokenizers differ: equal vocabularies")
    assert "\n" not in line
    with pytest.raises(UserError):
        check_tokenization(changed(tiny.wordpiece(), **parts), tokenizer)


def test_another_vocabulary_is_told_first():
    """Prevents a puzzle of ids where one token says it all."""
    other = tiny.wordpiece([*tiny.LINES[:-1], "a zebra drinks"])
    with pytest.raises(UserError, match="the tokenizers differ: token"):
        check_tokenization(tiny.wordpiece(), other)


def test_a_byte_pair_tokenizer_that_puts_a_blank_first():
    """Prevents a RoBERTa with add_prefix_space from teaching one without."""
    other = changed(tiny.byte_bpe(), pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))
    with pytest.raises(UserError, match="the same text becomes T/0"):
        check_tokenization(tiny.byte_bpe(), other)
