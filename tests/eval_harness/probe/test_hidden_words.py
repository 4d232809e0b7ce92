"""Which words are hidden: the same from every model, on every machine; and where pairs differ."""

import math
import string

import pytest
import tiny

from eval_harness.probe.hidden_words import (
    SHARE,
    beginning_of,
    differing_word,
    hidden_words,
    words_of,
)

TEXT = "The old distillery stands by the river; its barrels (all 12 of them) sleep in the dark."


def said(text, spans):
    return [text[start:end] for start, end in spans]


def test_words_are_runs_of_letters_and_digits():
    """Prevents punctuation and blanks, which everybody guesses, from counting as words."""
    assert said(TEXT, words_of(TEXT)) == TEXT.translate(
        str.maketrans("", "", ";().")
    ).split()  # fmt: skip
    assert said("Größe: 3,5 km²", words_of("Größe: 3,5 km²")) == ["Größe", "3", "5", "km²"]
    for nothing in ("", "  ", "... -- !?", "🙂"):
        assert words_of(nothing) == []


def test_every_ideogram_is_a_word():
    """Prevents a whole Chinese or Japanese sentence from being one word, hidden at once."""
    assert said("東京は大きい。", words_of("東京は大きい。")) == list("東京は大きい")
    assert said("GPT猫2匹", words_of("GPT猫2匹")) == ["GPT", "猫", "2", "匹"]
    assert said("서울은 크다", words_of("서울은 크다")) == ["서울은", "크다"]  # Korean has blanks


def test_the_share_that_is_hidden():
    """Prevents another share than the one in the table's note, or a text that measures nothing."""
    for count in (1, 2, 6, 7, 13, 14, 100, 101):
        text = " ".join(f"word{number}" for number in range(count))
        spans = hidden_words(text, seed=0, most=1000)
        assert len(spans) == math.ceil(SHARE * count)
        assert spans == sorted(set(spans))
        assert set(spans) <= set(words_of(text))
    assert SHARE == 0.15
    assert hidden_words("?!", seed=0, most=1000) == []


def test_only_words_from_the_start_are_hidden():
    """Prevents hidden words that are cut off, so that they count for some models only."""
    text = " ".join(f"word{number}" for number in range(100))
    head = words_of(text)[:20]
    for seed in range(20):
        spans = hidden_words(text, seed, most=20)
        assert len(spans) == 3
        assert set(spans) <= set(head)


def test_every_word_can_be_hidden():
    """Prevents a choice of the first words, or of one seed's words for all seeds."""
    chosen = {span for seed in range(200) for span in hidden_words(TEXT, seed, most=1000)}
    assert chosen == set(words_of(TEXT))
    texts = [f"{letter} {TEXT[4:]}" for letter in string.ascii_lowercase]
    places = {tuple(words_of(each).index(span) for span in hidden_words(each, 0, 1000))
              for each in texts}  # fmt: skip
    assert len(places) > 10  # another text, other places


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_choice_is_the_same_in_every_process(run_script, hash_seed):
    """Prevents words that depend on Python's hash of a text: no number could be had again."""
    code = (
        "from eval_harness.probe.hidden_words import hidden_words\n"
        f"print([hidden_words({TEXT!r}, seed, 1000) for seed in range(4)])"
    )
    found = run_script("-c", code, PYTHONHASHSEED=hash_seed)
    expected = [
        ["old", "by", "the"],
        ["distillery", "all", "in"],
        ["all", "of", "dark"],
        ["The", "river", "the"],
    ]
    spans = [hidden_words(TEXT, seed, 1000) for seed in range(4)]
    assert found.stdout.strip() == str(spans)
    assert [said(TEXT, each) for each in spans] == expected


def test_the_words_are_whole_in_every_tokenizer():
    """Prevents a word that is half hidden from one model and wholly from another.

    Each hidden word is made of whole tokens of WordPiece and of byte-level BPE.
    """
    for tokenizer in (tiny.wordpiece(), tiny.byte_bpe(roberta=True)):
        offsets = [
            tuple(each) for each in tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"]
        ]
        for seed in range(10):
            for start, end in hidden_words(TEXT, seed, most=1000):
                touched = [(a, b) for a, b in offsets if a < end and b > start]
                assert "".join(TEXT[a:b] for a, b in touched).strip() == TEXT[start:end]


@pytest.mark.parametrize("words", [1, 2, 7, 16, 17, 18, 1000])
def test_the_beginning_has_all_tokens_that_are_read(words):
    """Prevents a long article from being cut before the place where a model stops reading.

    Also a beginning that is the whole article, which takes minutes to tokenize.
    """
    cut = beginning_of(TEXT, words)
    assert TEXT.startswith(cut)
    assert len(words_of(cut)) == min(words, len(words_of(TEXT)))
    assert words < 17 or cut == TEXT
    for tokenizer in (tiny.wordpiece(), tiny.byte_bpe(roberta=True), tiny.byte_bpe()):
        read, whole = (
            tokenizer(text, add_special_tokens=False)["input_ids"][:words] for text in (cut, TEXT)
        )
        assert read == whole


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("The cats sleep.", "The cats sleeps.", ("sleep", "sleeps")),
        ("The cat sleeps.", "The cats sleeps.", ("cat", "cats")),
        ("a a a b a", "a a a a a", ("b", "a")),
        ("He doesn't know.", "He don't know.", ("doesn", "don")),
        ("猫が好き", "犬が好き", ("猫", "犬")),
        ("Cats sleep", "cats sleep", ("Cats", "cats")),
        ("One  cat , here", "One dog, here", ("cat", "dog")),
        ("Only", "Alone", ("Only", "Alone")),
    ],
)
def test_pairs_that_differ_in_one_word(first, second, words):
    """Prevents the wrong word of a pair from being predicted."""
    (start, end), (other, last) = differing_word(first, second)
    assert (first[start:end], second[other:last]) == words


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("the cat sleeps", "the cat sleeps"),
        ("the cat sleeps", "the  cat sleeps "),
        ("the cat sleeps", "the dog sleep"),
        ("who slept", "slept who"),
        ("the cat sleeps", "the cat sleeps here"),
        ("the cat sleeps.", "the cat sleeps!"),
        ("the cat sleeps.", "the cat sleeps a"),
        ("猫が好き", "犬は好き"),
        ("", ""),
    ],
)
def test_pairs_that_do_not(first, second):
    """Prevents pairs of which a masked model's one word says nothing."""
    assert differing_word(first, second) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u0939\u093f\u0928\u094d\u0926\u0940 ok", 2),
        ("cafe\u0301 ok", 2),
        ("___ ok", 1),
        ("\u30a2\u30fb\u30a4", 2),
    ],
)
def test_marks_belong_to_their_letter(text, words):
    """Prevents a word of Hindi, or one with an accent of its own, from being hidden in part."""
    assert len(words_of(text)) == words
