"""The demo world: the same bytes anywhere, readable by the harness, true by its own rules.

The rules are implemented here a second time, from the word tables and the text alone, without the
code that wrote the examples.
"""

import hashlib
import re
from collections import Counter
from dataclasses import replace
from math import log
from typing import NamedTuple

import pytest

from angels_share.errors import UserError
from angels_share.tokenizing import load_tokenizer
from eval_harness.cli import run_command
from eval_harness.commands.demo import COMMAND as DEMO
from eval_harness.data.splits import load_task
from eval_harness.demo import words
from eval_harness.demo import world as demo
from eval_harness.tasks.lookup import task_named
from eval_harness.tasks.registry import GLUE

# Not the whole corpus: lines are drawn one by one, and four thousand of them state every fact.
LINES = 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "world"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "LINES", LINES)
        demo.write_world(path, 11)
    return path


@pytest.fixture(scope="module")
def data(folder):
    squad = replace(task_named("squad"), files={
        name: str(folder / "squad" / f"{file}-v1.1.json")
        for name, file in (("train", "train"), ("validation", "dev"))
    })  # fmt: skip
    rows = [*(task_named(name) for name in (*GLUE, "imdb")), squad]
    return {row.name: load_task(row, folder / "glue", test=row.name in GLUE) for row in rows}


def examples(data, task):
    """Yield every training and evaluation example with its label's name, or its number."""
    for part in (data[task].train, *data[task].evaluation):
        for *texts, label in zip(*part.texts, part.labels, strict=True):
            names = task_named(task).labels
            yield (*texts, names[label] if names else label)


def digest(seed, monkeypatch):
    monkeypatch.setattr(demo, "LINES", 300)
    whole = hashlib.sha256()
    for name, text in demo.world_files(seed):
        whole.update(f"{name}\0{text}\0".encode())
    return whole.hexdigest()


def test_a_seed_gives_the_same_bytes_and_another_seed_others(monkeypatch):
    """Else two machines would compare numbers of two worlds."""
    first = digest(11, monkeypatch)
    assert first == digest(11, monkeypatch)
    assert first != digest(22, monkeypatch)


def test_the_bytes_do_not_depend_on_the_process(run_script, monkeypatch):
    """Nothing is taken out of a set, whose order differs from process to process."""
    code = (
        "import hashlib; from eval_harness.demo import world as demo\n"
        "demo.LINES = 300; h = hashlib.sha256()\n"
        "for n, t in demo.world_files(11): h.update((n + chr(0) + t + chr(0)).encode())\n"
        "print(h.hexdigest())"
    )
    assert run_script("-c", code, PYTHONHASHSEED="7").stdout.strip() == digest(11, monkeypatch)


def test_every_word_is_whole_to_the_tokenizer(folder, data):
    """An unknown word can't be learned, and one in pieces makes every text longer."""
    tokenizer = load_tokenizer(str(folder / "teacher"))
    texts = [(folder / "corpus.txt").read_text()]
    for task in (*GLUE, "imdb"):
        for part in (data[task].train, *data[task].evaluation, *data[task].test):
            texts += [text for column in part.texts for text in column]
    for part in (data["squad"].train, *data["squad"].evaluation):
        texts += [*part.texts, *part.contexts]
    spelled = set(re.findall(r"[a-z]+|[^a-z\s]", " ".join(texts).lower()))
    pieces = {word: tokenizer.tokenize(word) for word in spelled}
    assert {word: parts for word, parts in pieces.items() if parts != [word]} == {}


def test_readers_take_every_file(data):
    """Prevents splits of other sizes than those given, and a text that is in two of them."""
    for name, read in data.items():
        assert read.overlap == 0, name
    for name, size in demo.TRAIN.items():
        assert len(data[name].train) == size
        assert {len(part) for part in (*data[name].evaluation, *data[name].test)} == {demo.HELD_OUT}


@pytest.mark.parametrize("task", [*GLUE, "imdb"])
def test_labels_are_balanced(data, task):
    """A model that always says the same must not look good."""
    counts = Counter(label for *_, label in examples(data, task))
    share = max(counts.values()) / counts.total()
    allowed = 0.51 if task == "stsb" else 1.1 / len(counts)  # half of its pairs are far apart
    assert share <= allowed


# --- the rules, a second time


class Event(NamedTuple):
    """The event that a sentence tells of."""

    who: str
    action: int
    thing: str
    adjective: int | None
    place: str | None
    time: str | None


ACTION = {
    form: number
    for number, action in enumerate(words.ACTIONS)
    for verb in action
    for form in (verb.base, verb.past, verb.done)
}
ADJECTIVE = {word: number for number, pair in enumerate(words.ADJECTIVES) for word in pair}


def parse_event(text):
    """Parse an event in either voice."""
    text = text.strip(" .")
    time = next((each for each in words.TIMES if text.endswith(f" {each}")), None)
    text = text.removesuffix(f" {time}")
    text, _, place = text.partition(" at the ")
    if passive := re.fullmatch(r"(?:The|An?) (.+) was (\w+) by (\w+)", text):
        thing, verb, who = passive.groups()
    else:
        who, verb, thing = re.fullmatch(r"(\w+) (\w+) (?:the|an?) (.+)", text).groups()
    adjective, thing = thing.split() if " " in thing else (None, thing)
    return Event(who, ACTION[verb], thing, ADJECTIVE.get(adjective), place or None, time)


def parse_question(text):
    """Parse a question: the slot that it asks for, and the rest of the event."""
    text, _, place = text.rstrip("?").replace("At which place", "Where").partition(" at the ")
    if found := re.fullmatch(r"(?:Who|Which person) (\w+) the (\w+)", text):
        return "who", Event("?", ACTION[found[1]], found[2], None, place or None, None)
    if found := re.fullmatch(r"Where did (\w+) (\w+) the (\w+)", text):
        return "place", Event(found[1], ACTION[found[2]], found[3], None, "?", None)
    found = re.fullmatch(r"(?:What|Which thing) did (\w+) (\w+)", text)
    return "thing", Event(found[1], ACTION[found[2]], "?", None, place or None, None)


def answers(event, question):
    """Return whether an event matches a question and has what it asks for."""
    slot, about = question
    alike = all(
        getattr(about, name) in ("?", None, getattr(event, name))
        for name in ("who", "action", "thing", "place")
    )
    return alike and getattr(event, slot) is not None


def is_a(thing, kind):
    return thing == kind or words.KIND_OF.get(thing) == kind


def follows(event, wide):
    """Return whether the second event follows from the first."""
    details = all(
        getattr(wide, name) in (None, getattr(event, name))
        for name in ("who", "action", "adjective", "place", "time")
    )
    return details and is_a(event.thing, wide.thing)


def praises(clause):
    """Return whether a clause is praise; a negation reverses its adjective."""
    spelled = clause.lower().strip(" .").split()
    (mood,) = (word in words.GOOD for word in spelled if word in words.GOOD + words.BAD)
    return mood != any(word in words.NEGATIONS for word in spelled)


def agrees(text):
    """Return whether the words of a sentence agree."""
    spelled = text.strip(".").split()
    if chosen := {"himself", "herself"} & set(spelled):
        return (spelled[0] in words.WOMEN) == ("herself" in chosen)
    plurals = {words.plural(noun) for noun in (*words.JOBS, *words.THINGS)}
    many = spelled[1] in plurals
    if chosen := {"is", "are"} & set(spelled):
        return many == ("are" in chosen)
    (verb,) = (word for word in spelled[2:] for pair in words.ACTS if word in pair)
    return many == any(verb == pair[1] for pair in words.ACTS)


def meant(text):
    """Return whom a pronoun means."""
    first, _, second, *rest = text.rstrip(".").split()
    woman = first if first in words.WOMEN else second
    return woman if "she" in rest else first if woman == second else second


def test_cola_is_agreement(data):
    for text, label in examples(data, "cola"):
        assert agrees(text) == (label == "acceptable"), text


def test_sst2_is_sentiment_with_negation(data):
    for text, label in examples(data, "sst2"):
        assert praises(text.split(" but ")[-1]) == (label == "positive"), text


def test_imdb_is_the_sentiment_of_most_sentences(data):
    for text, label in examples(data, "imdb"):
        praise = [praises(part) for part in text.replace("<br /><br />", "").split(".")[1:-1]]
        assert (2 * sum(praise) > len(praise)) == (label == "pos"), text


def test_rte_follows_from_kinds_and_from_where_towns_lie(data, folder):
    """Where a town lies is in the text that models are pre-trained on, and nowhere else."""
    stated = dict(re.findall(r"(\w+) lies in the (\w+)", (folder / "corpus.txt").read_text()))
    assert set(stated) == set(words.TOWNS)
    for premise, hypothesis, label in examples(data, "rte"):
        if town := re.search(r"(?:lives|dwells) in (\w+)\.$", premise):
            entailed = hypothesis.endswith(f"in the {stated[town[1]]}.")
        else:
            wide = parse_event(hypothesis)
            entailed = any(
                follows(parse_event(part), wide) for part in premise.strip(".").split(". ")
            )
        assert entailed == (label == "entailment"), (premise, hypothesis)


def test_mnli_follows_says_more_or_contradicts(data):
    for premise, hypothesis, label in examples(data, "mnli"):
        first, second = parse_event(premise), parse_event(hypothesis)
        if not is_a(first.thing, second.thing):
            found = "contradiction"
        elif follows(first, second):
            found = "entailment"
        else:
            found = "neutral"
        assert found == label, (premise, hypothesis)


def test_qnli_answers_the_question(data):
    for question, text, label in examples(data, "qnli"):
        assert answers(parse_event(text), parse_question(question)) == (label == "entailment"), (
            question,
            text,
        )


def test_mrpc_tells_the_same(data):
    """Prevents also that a word which isn't the action's gives the label away."""
    for first, second, label in examples(data, "mrpc"):
        one, other = parse_event(first.removeprefix('" ')), parse_event(second)
        assert (one == other) == (label == "equivalent"), (first, second)
        assert one._replace(action=0) == other._replace(action=0), (first, second)


def test_a_quotation_mark_may_stand_alone(data):
    """As in the real MRPC: who reads it with quoting swallows the lines up to the next mark."""
    firsts = [first for first, _, _ in examples(data, "mrpc")]
    assert 0.05 < sum(first.count('"') == 1 for first in firsts) / len(firsts) < 0.2


def test_qqp_asks_the_same(data):
    for first, second, label in examples(data, "qqp"):
        assert (parse_question(first) == parse_question(second)) == (label == "duplicate"), (
            first,
            second,
        )


def test_stsb_is_how_near_two_things_are(data):
    for first, second, label in examples(data, "stsb"):
        one, other = parse_event(first), parse_event(second)
        near = words.KIND_OF[one.thing] == words.KIND_OF[other.thing]
        expected = 5 if one.thing == other.thing else 4 if near else 0.5
        assert label == expected, (first, second)
        assert one._replace(thing="") == other._replace(thing=""), (first, second)


def test_wnli_is_whom_the_pronoun_means(data):
    for text, second, label in examples(data, "wnli"):
        assert (f" {meant(text)} " in f" {second}") == (label == "entailment"), (text, second)


@pytest.mark.parametrize("task", ["mnli", "rte", "qnli", "mrpc", "qqp", "stsb", "wnli"])
@pytest.mark.parametrize("places", [[0], [1], [0, 1]])
def test_words_alone_do_not_tell(data, task, places):
    """Prevents a task that counting words answers: so it was with `did not` in MNLI.

    Both texts together, too: QQP's question words gave its labels away when there were too few
    ways to ask the same.
    """
    train, dev = (
        [(" ".join(texts), label) for *texts, label in
         zip(*(part.texts[place] for place in places), part.labels, strict=True)]
        for part in (data[task].train, data[task].evaluation[0])
    )  # fmt: skip
    counts = {label: Counter(w for text, other in train if other == label
                             for w in set(text.split()))
              for label in {label for _, label in train}}  # fmt: skip
    size = Counter(label for _, label in train)

    def guess(text):
        return max(size, key=lambda label: log(size[label]) + sum(
            log((counts[label][word] + 1) / (size[label] + 2)) for word in set(text.split())
        ))  # fmt: skip

    right = sum(guess(text) == label for text, label in dev) / len(dev)
    chance = max(Counter(label for _, label in dev).values()) / len(dev)
    assert right < chance + 0.15


def test_colas_evaluation_is_not_in_the_corpus(data, folder):
    """A model that remembers its text would know every good sentence by heart."""
    corpus = {f"{part}." for line in (folder / "corpus.txt").read_text().splitlines()
            for part in line.removesuffix(".").split(". ")}  # fmt: skip
    (dev,) = data["cola"].evaluation
    assert corpus.isdisjoint(dev.texts[0])
    assert not corpus.isdisjoint(data["cola"].train.texts[0])


def test_squad_has_one_answer_in_its_paragraph(data):
    """A question that fits two sentences would have two answers, and one gold."""
    for part in (data["squad"].train, *data["squad"].evaluation):
        for text, place, golds in zip(part.texts, part.context_of, part.answers, strict=True):
            events = [parse_event(each) for each in part.contexts[place].strip(".").split(". ")]
            (event,) = (each for each in events if answers(each, parse_question(text)))
            assert getattr(event, parse_question(text)[0]) == golds[0], (text, part.contexts[place])


# --- the folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "LINES", 10)
    monkeypatch.setattr(demo, "TRAIN", dict.fromkeys(demo.TRAIN, 10))
    monkeypatch.setattr(demo, "HELD_OUT", 10)


def test_the_same_world_is_not_written_twice(tmp_path, small):
    """A demo that was interrupted goes on: what is finished stays."""
    assert demo.write_world(tmp_path, 11)
    assert not demo.write_world(tmp_path, 11)


@pytest.mark.parametrize("name", ["notes.txt", demo.RECORD])
def test_a_folder_with_something_else_is_left_alone(tmp_path, name):
    """Nobody's files are mixed with a made-up world, or overwritten by it."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="holds something else"):
        demo.write_world(tmp_path, 11)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("changed", ["seed", "code"])
def test_another_world_is_refused(tmp_path, small, monkeypatch, changed):
    """Also one of the same seed that older code wrote: its models would be of another text."""
    demo.write_world(tmp_path, 11)
    if changed == "code":
        monkeypatch.setattr(demo, "LINES", 11)
    with pytest.raises(UserError, match=f"{tmp_path} holds another demo world"):
        demo.write_world(tmp_path, 11 if changed == "code" else 22)


@pytest.mark.parametrize(
    ("name", "how"), [("glue/RTE/train.tsv", "emptied"), ("corpus.txt", "removed")]
)
def test_a_torn_world_is_refused(tmp_path, small, name, how):
    """Prevents a teacher of half a text, and a task without examples."""
    demo.write_world(tmp_path, 11)
    (tmp_path / name).write_text("") if how == "emptied" else (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{tmp_path} holds a demo world whose {name} is missing"):
        demo.write_world(tmp_path, 11)


@pytest.mark.parametrize("how", [".", "link"])
def test_an_empty_folder_is_filled_whatever_names_it(tmp_path, small, monkeypatch, how):
    """`.` has no name to derive a draft's from, and a folder can't take a link's place."""
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "link").symlink_to(there)
    monkeypatch.chdir(there)
    assert run_command(DEMO, ["--folder", how if how == "." else f"{tmp_path}/{how}"]) == 0
    assert (there / demo.RECORD).is_file()
    assert not list(there.glob(".*"))
    assert {path.name for path in tmp_path.iterdir()} == {"there", "link"}


def test_an_interrupted_writing_leaves_nothing(tmp_path, small, monkeypatch):
    """Else the next one would take it for something else, and refuse."""

    def interrupted(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.write_world(tmp_path, 11)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".world-draft").mkdir()  # what a killed one leaves
    assert demo.write_world(tmp_path, 11)


def test_the_door_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run_command(DEMO, ["--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
