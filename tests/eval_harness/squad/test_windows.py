"""Windows: what the tokenizer itself would make, and answers that are found where they are."""

import random

import numpy as np
import pytest
import tiny
import transformers
from squad_made import questions
from tokenizers import (
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from angels_share.errors import UserError
from angels_share.tokenizing import load_tokenizer
from eval_harness.data.squad_files import read_squad
from eval_harness.squad import windows as squad_windows
from eval_harness.squad.answers import answers_of
from eval_harness.squad.metrics import normalized
from eval_harness.squad.windows import make_windows

WORDS = [*" ".join(tiny.LINES).split(), "unheard-of", "Rivers", "x"]
SIZES = {"max_seq_length": 64, "doc_stride": 9, "max_query_length": 24}
WIDE = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"

HARD = [
    ("they met at the café by the river", "café"),
    ("they met at the cafe\u0301 by the river", "cafe\u0301"),
    ("the cafe\u0301, and what is left of it", "cafe\u0301"),
    ("two   blanks\tand\n\nlines  stand here", "blanks\tand\n\nlines"),
    ("   the barrels sleep   ", "barrels sleep"),
    ("   the barrels sleep   ", "the"),
    ("the cat 一只小猫 sleeps", "小猫"),
    ("the cat 一只小猫 sleeps", "一只小猫 sleeps"),
    (f"they said 👍🏽 and {FAMILY}\ufe0f and left", f"{FAMILY}\ufe0f"),
    (f"they said 👍🏽 and {FAMILY}\ufe0f and left", "👍🏽"),
    ("İSTANBUL and STRASSE stand in capitals", "İSTANBUL"),
    ("İSTANBUL and STRASSE stand in capitals", "STRASSE"),
    ("\ufeffthe mark comes first", "\ufeffthe mark"),
    ("a \u200eword\u200d is hidden", "\u200eword\u200d"),
    ("a\u00a0b and ½ of the ﬁne n\u0303", "½ of the ﬁne n\u0303"),
    ("the end is the barrel\u0301", "barrel\u0301"),
    ("it is (10 %) of 1,000.5 km", "(10 %) of 1,000.5"),
    ("a word\u0085word and\u2028line", "word and\u2028line"),
    ("nothing [SEP] here </s> is [MASK] special", "[SEP] here </s> is"),
]


def untrimmed_roberta():
    """RoBERTa's kind, whose offsets include a token's blank."""
    tokenizer = tiny.byte_bpe(roberta=True)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("</s>", "<s>")]
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(
        *ids, trim_offsets=False
    )
    return tokenizer


def metaspace():
    """XLM-R's kind: a blank is a sign of its own, characters are normalized, no types."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(tiny.LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
    )


KINDS = {
    "wordpiece": tiny.wordpiece,
    "roberta": lambda: tiny.byte_bpe(roberta=True),
    "untrimmed": untrimmed_roberta,
    "metaspace": metaspace,
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Questions about thirty contexts of all lengths, most of them longer than a window."""
    draw = random.Random(0)
    triples = []
    for number in range(30):
        words = draw.choices(WORDS, k=draw.choice([1, 15, 60, 120]))
        context = f"{number} " + " ".join(words)
        for _ in range(draw.randint(1, 4)):
            begin = draw.randrange(len(words))
            answer = " ".join(words[begin : begin + draw.choice([1, 2, 9])])
            question = " ".join(draw.choices(WORDS[:-3], k=draw.choice([1, 3, 5])))
            place = len(f"{number} " + "".join(f"{word} " for word in words[:begin]))
            triples.append((context, question, [(answer, place)]))
    return questions(tmp_path_factory.mktemp("asked"), triples)


def by_the_tokenizer(asked, tokenizer):
    """One example after another, as transformers' run_qa.py does."""
    for text, context in zip(asked.texts, asked.context_of, strict=True):
        yield tokenizer(
            text,
            asked.contexts[context],
            truncation="only_second",
            max_length=SIZES["max_seq_length"],
            stride=SIZES["doc_stride"],
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            padding=False,
        )


def positions_by_hand(ids, sides, offsets, cls, answer):
    """The official rule: the answer's tokens if the window holds all of it, else [CLS]."""
    begin, end = answer
    tokens = [i for i, side in enumerate(sides) if side == 1 and offsets[i][0] < offsets[i][1]]
    if not tokens or offsets[tokens[0]][0] > begin or offsets[tokens[-1]][1] < end:
        return (ids.index(cls), ids.index(cls))
    first = min(i for i in tokens if offsets[i][1] > begin)
    return first, max(i for i in tokens if offsets[i][0] < end)


def hot(windows):
    """Logits that are one where the labels are, else zero."""
    logits = np.zeros((2, len(windows.ids)), np.float32)
    for each, positions in zip(logits, windows.positions.T, strict=True):
        each[windows.starts[:-1] + positions] = 1
    return logits


# --- windows


def test_windows_are_what_the_tokenizer_would_make(asked, tokenizer):
    """Prevents ids, types or cuts that differ from what every other SQuAD script feeds a model."""
    windows = make_windows(asked, tokenizer, **SIZES)
    expected = [
        (number, ids, types)
        for number, each in enumerate(by_the_tokenizer(asked, tokenizer))
        for ids, types in zip(each["input_ids"], each["token_type_ids"], strict=True)
    ]
    assert windows.question.tolist() == [number for number, _, _ in expected]
    assert len(windows) > len(asked) + 50
    assert [each["input_ids"].tolist() for each in windows] == [ids for _, ids, _ in expected]
    assert (windows.types is not None) == (tokenizer.convert_ids_to_tokens(2) == "[CLS]")
    if windows.types is not None:
        types = [types for _, _, types in expected]
        assert [each["token_type_ids"].tolist() for each in windows] == types


def test_labels_are_the_official_ones(asked, tokenizer):
    """Prevents an answer that a window cuts, or doesn't hold, from being taught as another one."""
    windows = make_windows(asked, tokenizer, **SIZES)
    expected = []
    for number, each in enumerate(by_the_tokenizer(asked, tokenizer)):
        begin = int(asked.answer_starts[number])
        answer = (begin, begin + len(asked.answers[number][0]))
        for window, (ids, offsets) in enumerate(
            zip(each["input_ids"], each["offset_mapping"], strict=True)
        ):
            sides = each.sequence_ids(window)
            cls = tokenizer.cls_token_id
            expected.append(positions_by_hand(ids, sides, offsets, cls, answer))
    assert windows.positions.tolist() == [list(pair) for pair in expected]
    absent = (windows.positions == 0).all(axis=1)
    assert absent.any()
    assert not absent.all()
    items = [(each["start_positions"], each["end_positions"]) for each in windows]
    assert items == expected


def test_answerable_is_the_context_and_cls(asked, tokenizer):
    """Prevents padding or the question from taking a share of what a student is taught."""
    windows = make_windows(asked, tokenizer, **SIZES)
    expected = [
        side == 1 or place == 0
        for each in by_the_tokenizer(asked, tokenizer)
        for window in range(len(each["input_ids"]))
        for place, side in enumerate(each.sequence_ids(window))
    ]
    assert windows.answerable.tolist() == expected


def test_windows_need_not_know_their_neighbours(asked, tokenizer, monkeypatch):
    """Prevents a seam between the chunks that many texts and windows are worked through in."""
    whole = make_windows(asked, tokenizer, **SIZES)
    monkeypatch.setattr(squad_windows, "_CHUNK", 3)
    monkeypatch.setattr(squad_windows, "_WINDOWS", 7)
    parts = make_windows(asked, tokenizer, **SIZES)
    for name in ("ids", "starts", "question", "place", "size", "first", "offsets", "positions"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_a_long_question_is_cut_and_blanks_around_it_go(tmp_path, tokenizer):
    """Prevents a question from leaving no room for its context, or a blank from being asked."""
    context = "the barrels sleep in the dark"
    long = " ".join(WORDS)
    asked = questions(tmp_path, [(context, f" \n{long} ", ["dark"]), (context, "the", ["dark"])])
    windows = make_windows(asked, tokenizer, **SIZES | {"max_query_length": 3})
    ids = tokenizer(long, add_special_tokens=False)["input_ids"]
    assert windows[0]["input_ids"][1:4].tolist() == ids[:3]
    assert windows.place.min() < windows.place[0]
    assert windows.lengths.max() <= SIZES["max_seq_length"]


def test_lengths_without_room_are_refused(asked):
    """Prevents windows that never reach the end of their context."""
    tokenizer = tiny.wordpiece()
    with pytest.raises(
        UserError, match="leaves 13 for the context; must be more than --doc_stride 13"
    ):
        make_windows(asked, tokenizer, max_seq_length=24, doc_stride=13, max_query_length=8)
    assert len(make_windows(asked, tokenizer, **SIZES | {"doc_stride": 0, "max_query_length": 20}))
    with pytest.raises(UserError, match="leaves 0 for"):
        make_windows(asked, tokenizer, max_seq_length=24, doc_stride=0, max_query_length=64)


def test_a_tokenizer_without_cls_is_refused(asked):
    """Prevents the question's first token from meaning "no answer" for a GPT-2."""
    with pytest.raises(UserError, match="puts nothing before a question"):
        make_windows(asked, tiny.byte_bpe(), **SIZES)


# --- answers


@pytest.mark.parametrize(("context", "answer"), HARD)
def test_hard_answers_come_back_to_the_character(context, answer, tokenizer, tmp_path):
    """Prevents a lost accent, emoji or blank from costing an exact match."""
    asked = questions(tmp_path, [(context, "what?", [answer])])
    windows = make_windows(asked, tokenizer, **WIDE)
    found = answers_of(asked, windows, *hot(windows), version2=False, max_answer_length=99)
    assert found.texts == [answer]


def test_offsets_are_parts_of_the_context(asked, tokenizer):
    """Prevents an answer that isn't a part of its context, or one that is blank."""
    windows = make_windows(asked, tokenizer, **SIZES)
    for window, question in enumerate(windows.question):
        context = asked.contexts[asked.context_of[question]]
        first = windows.first[window]
        for begin, end in windows.offsets[first : first + windows.size[window]]:
            part = context[begin:end]
            assert part == part.strip()
            assert bool(part) == (begin < end)
            assert end <= len(context)


def test_an_answer_inside_of_a_token_takes_all_of_it(tmp_path):
    """Prevents an answer that no token has for its own from being labelled as a neighbour."""
    asked = questions(tmp_path, [("the barrels sleep", "what?", ["arrel"])])
    windows = make_windows(asked, tiny.wordpiece(), **WIDE)
    found = answers_of(asked, windows, *hot(windows), version2=False)
    assert found.texts == ["barrels"]


def test_questions_without_an_answer_point_at_cls(tmp_path, tokenizer):
    """Prevents SQuAD 2.0's unanswerable questions from being taught some token."""
    triples = [("the barrels sleep", "who?", []), ("the barrels sleep", "what?", ["barrels"])]
    windows = make_windows(questions(tmp_path, triples, "v2.0"), tokenizer, **WIDE)
    assert windows.positions[0].tolist() == [0, 0]
    assert windows.positions[1].all()


def test_a_context_that_nothing_is_left_of_has_a_window(tmp_path):
    """Prevents a context of unseen characters from shifting every window after it."""
    triples = [("\u200e", "who?", []), ("the barrels sleep", "what?", ["barrels"])]
    asked = questions(tmp_path, triples, "v2.0")
    windows = make_windows(asked, tiny.wordpiece(), **WIDE)
    assert windows.question.tolist() == [0, 1]
    assert windows.size.tolist() == [0, 3]
    found = answers_of(asked, windows, *hot(windows), version2=False)
    assert found.texts == ["", "barrels"]


# --- real data

SETS = {"dev-v1.1": 41, "standin-dev": 20, "standin-train": 21, "tydiqa-en-train": 141}


@pytest.mark.parametrize("name", SETS)
def test_every_gold_answer_is_found_again(name, real_data):
    """Prevents offsets that lose answers: what is wrong here no model could mend.

    The exceptions are answers that begin or end inside of a word piece and answers of more than 30
    tokens, which are not looked for; nothing else is.
    """
    path = real_data / "data" / "squad" / f"{name}.json"
    asked = read_squad(path, for_training=name.startswith("tydiqa"))
    windows = make_windows(asked, load_tokenizer(str(real_data / "models" / "minilm-l6")))
    whole = windows.positions[:, 1] > 0
    held = np.zeros(len(asked), dtype=bool)
    held[windows.question[whole]] = True
    assert held.all()
    found = answers_of(asked, windows, *hot(windows), version2=False)
    golds = [answers[0] for answers in asked.answers]
    wrong = [
        number
        for number, (text, gold) in enumerate(zip(found.texts, golds, strict=True))
        if normalized(text) != normalized(gold)
    ]
    assert len(wrong) == SETS[name]
    tokens = np.zeros(len(asked), dtype=int)
    tokens[windows.question[whole]] = np.diff(windows.positions[whole], axis=1)[:, 0] + 1
    for number in wrong:
        assert tokens[number] > 30 or golds[number].strip() in found.texts[number]
