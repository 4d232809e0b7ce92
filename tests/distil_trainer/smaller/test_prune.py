"""`python -m distil_trainer prune`: scores, sizes, what is saved, what is refused."""

import json

import pytest
import tiny
import torch
import transformers

from angels_share.cli import run_command
from angels_share.student_record import add_step
from distil_trainer.commands import prune as command
from distil_trainer.models.families import family_of
from distil_trainer.models.importance import measure_importance
from distil_trainer.models.pruning import Sizes
from distil_trainer.smaller.scores import scorer

CLASSIFIER = transformers.BertForSequenceClassification


@pytest.fixture
def world(tmp_path):
    """A fine-tuned model's folder, and rows of its task."""
    model = tiny.shaken(tiny.bert(model_class=CLASSIFIER))
    model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    tiny.folder(tmp_path / "model", model, tiny.wordpiece())
    lines = [" ".join(line.replace(",", "").split()[:9]) for line in tiny.LINES * 4]
    rows = [f"{line},{'good' if n % 2 else 'bad'}" for n, line in enumerate(lines)]
    (tmp_path / "rows.csv").write_text("\n".join(["sentence,label", *rows]))
    return tmp_path


def prune(world, *words, model="model", out="out", data="rows.csv"):
    given = ["--data", str(world / data)] if data else []
    return run_command(
        command.COMMAND, [str(world / model), "--output_dir", str(world / out), *given, *words]
    )


def saved(world, out="out", kind=transformers.AutoModelForSequenceClassification):
    return kind.from_pretrained(world / out)


def kept_answers(world):
    """How the answers of what is left compare with the model's, one text at a time."""
    texts = (world / "rows.csv").read_text().splitlines()[1:]
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "model")
    models = [saved(world, name).eval() for name in ("model", "out")]
    equal, largest, right, both = 0, 0.0, [0, 0], 0
    for row in texts:
        text, _, label = row.rpartition(",")
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            ours, theirs = (model(**batch).logits[0] for model in models)
        equal += int(ours.argmax() == theirs.argmax())
        hits = [["bad", "good"][int(each.argmax())] == label for each in (ours, theirs)]
        right = [count + hit for count, hit in zip(right, hits, strict=True)]
        both += all(hits)
        largest = max(largest, float((ours - theirs).abs().max()))
    return {
        "data": "rows.csv",
        "rows": len(texts),
        "largest_difference": pytest.approx(largest, abs=1e-5),
        "answers": len(texts),
        "share_of_equal_answers": round(equal / len(texts), 4),
        "score": {
            "metric": "accuracy",
            "before": round(right[0] / len(texts), 4),
            "after": round(right[1] / len(texts), 4),
            "lost": right[0] - both,
            "won": right[1] - both,
        },
    }


@pytest.mark.parametrize(
    "score", [["labels"], ["output"], ["fisher"], ["random"], ["fisher", "kl"]], ids="-".join
)
def test_every_score_cuts_to_the_sizes_asked_for(world, score, capsys):
    """Prevents a score that nobody can use, and a folder that plain transformers can't load."""
    iterations = "2" if len(score) == 2 else "1"
    data = None if score == ["random"] else "rows.csv"
    words = ["--ffn", "0.5", "--width", "0.5", "--score", *score, "--iterations", iterations]
    assert prune(world, *words, data=data) == 0
    assert Sizes.of(saved(world)) == Sizes(16, 1, 1, 32)
    assert "hidden size 16, 1 head, feed-forward width 32" in capsys.readouterr().out
    (step,) = json.loads((world / "out" / "distil.json").read_text())["lineage"]
    assert step["settings"]["scores"] == score
    assert step["settings"]["data"] == data
    assert len(step["from"]["sha256"]) == len(step["sha256"]) == 64
    if data:
        assert step["compared"] == kept_answers(world)
    else:
        assert step["compared"] is None
    assert transformers.AutoTokenizer.from_pretrained(world / "out")("a")["input_ids"]


def test_the_same_again_gives_the_same_bits(world):
    """Prevents a cut that can't be repeated: of drawn labels, dropout or random scores."""
    # So unsure a model that the labels which are drawn from it differ from seed to seed; of two
    # classes alike, either would have the same square.
    unsure = tiny.bert(model_class=CLASSIFIER, num_labels=3)
    tiny.folder(world / "unsure", unsure, tiny.wordpiece())
    for score in ("output", "fisher", "labels", "random"):
        data = None if score == "random" else "rows.csv"
        found = {}
        for out, seed in (("one", "3"), ("two", "3"), ("other", "4")):
            words = ["--ffn", "0.5", "--score", score, "--seed", seed]
            model = "model" if score == "labels" else "unsure"
            assert prune(world, *words, model=model, out=f"{out}-{score}", data=data) == 0
            found[out] = saved(world, f"{out}-{score}").state_dict()
        assert all(torch.equal(found["one"][name], found["two"][name]) for name in found["one"])
        if score != "labels":  # which draws nothing
            both = (found["one"][name].equal(found["other"][name]) for name in found["one"])
            assert not all(both)


def test_the_record_says_what_was_done(world):
    """Prevents a limit, or a score that was never used, from standing for what was measured."""
    words = ["--ffn", "0.5", "--iterations", "3", "--score", "fisher", "kl", "--rows", "7"]
    assert prune(world, *words) == 0
    (step,) = json.loads((world / "out" / "distil.json").read_text())["lineage"]
    assert (step["settings"]["rows"], step["settings"]["cuts"]) == (7, 3)
    assert step["settings"]["scores"] == ["fisher", "kl"]
    assert len(step["settings"]["data_sha256"]) == 64
    assert prune(world, "--ffn", "0.5", out="whole") == 0
    (step,) = json.loads((world / "whole" / "distil.json").read_text())["lineage"]
    assert step["settings"]["rows"] == len((world / "rows.csv").read_text().splitlines()) - 1


def test_sizes_shrink_from_cut_to_cut(world, monkeypatch):
    """Prevents iterations of which the first cuts everything."""
    from distil_trainer.smaller import prune as work

    sizes = []
    cut = work.prune
    monkeypatch.setattr(work, "prune", lambda *given: sizes.append(given[1].ffn) or cut(*given))
    assert prune(world, "--ffn", "0.25", "--iterations", "2") == 0
    assert sizes == [32, 16]


def test_a_second_cut_keeps_the_first_ones_line(world):
    """Prevents a lineage that forgets where a model came from."""
    assert prune(world, "--ffn", "0.5") == 0
    assert prune(world, "--ffn", "0.5", model="out", out="again") == 0
    first, second = json.loads((world / "again" / "distil.json").read_text())["lineage"]
    assert second["from"]["sha256"] == first["sha256"]
    assert Sizes.of(saved(world, "again")).ffn == 16


KINDS = {
    "masked": (tiny.bert, {}),
    "causal": (tiny.gpt2, {}),
    "questions": (tiny.bert, {"model_class": transformers.BertForQuestionAnswering}),
    "tokens": (tiny.bert, {"model_class": transformers.BertForTokenClassification}),
    "regression": (tiny.bert, {"model_class": CLASSIFIER, "num_labels": 1}),
    "grouped": (tiny.qwen3, {"num_attention_heads": 4, "num_key_value_heads": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["output", "fisher", "labels"])
def test_models_with_other_heads(world, kind, score, capsys):
    """Prevents a head whose loss is a shape error, or is silently that of another."""
    make, settings = KINDS[kind]
    model = tiny.shaken(make(**settings))
    name = {"gpt2": "gpt2", "qwen3": "qwen3"}.get(model.config.model_type, "bert")
    tiny.folder(world / kind, model, tiny.tokenizer_for(name))
    cut = ["--ffn", "0.5"] + (["--heads", "0.5"] if kind == "grouped" else [])
    rows = (world / "rows.csv").read_text().splitlines()
    numbers = [rows[0], *(f"{row.rpartition(',')[0]},1.5" for row in rows[1:])]
    (world / "numbers.csv").write_text("\n".join(numbers))
    status = prune(world, *cut, "--score", score, model=kind, data="numbers.csv")
    if kind == "grouped" and score == "output":
        assert status == 2
        assert "this model has no dropout" in capsys.readouterr().err
        return
    if score == "labels" and kind in ("questions", "tokens"):
        assert status == 2
        assert "use output or fisher" in capsys.readouterr().err
        return
    assert status == 0
    pruned = saved(world, kind=type(model))
    assert Sizes.of(pruned).ffn == Sizes.of(model).ffn // 2
    (step,) = json.loads((world / "out" / "distil.json").read_text())["lineage"]
    texts = [row.rpartition(",")[0] for row in numbers[1:]]
    tokens = sum(map(len, tiny.tokenizer_for(name)(texts)["input_ids"]))
    answers = {"regression": len(texts), "questions": 2 * len(texts)}.get(kind, tokens)
    assert step["compared"]["answers"] == answers  # none of padding
    if kind == "grouped":
        assert Sizes.of(pruned)[1:3] == (2, 1)


@pytest.mark.parametrize(
    ("words", "data", "said"),
    [
        ([], "rows.csv", "nothing to cut"),
        (["--ffn", "0"], "rows.csv", "must be above 0 and at most 1"),
        (["--ffn", "0.5", "--score", "kl"], "rows.csv", "its gradient zero"),
        (["--ffn", "0.5", "--score", "fisher", "kl"], "rows.csv", "with one iteration"),
        (["--ffn", "0.5"], None, "scores are measured on --data"),
        (["--ffn", "0.5", "--score", "random"], "rows.csv", "random draws need no --data"),
        (["--ffn", "0.999"], "rows.csv", "nothing is cut"),
        (["--ffn", "0.5", "--label_column", "x"], "rows.csv", "no column 'x'"),
        (["--ffn", "0.5", "--score", "random", "--rows", "3"], None, "--rows has no effect"),
        (["--heads", "0.5"], "rows.csv", "use --width, which cuts both"),
        (["--ffn", "0.5", "--text_columns", "txt"], "rows.csv", "no column 'txt'"),
        (["--ffn", "0.5", "--score", "labels", "--label_column", "x"], "rows.csv", "no column 'x'"),
        (["--ffn", "0.5"], "rows.txt", "unsupported file type"),
    ],
)
def test_bad_input_is_one_line(world, capsys, words, data, said):
    """Prevents a traceback, or a folder with half a model in it."""
    (world / "rows.txt").write_text("a\n")
    assert prune(world, *words, data=data) == 2
    assert said in capsys.readouterr().err.strip()
    assert not (world / "out" / "config.json").exists()


def test_a_label_that_the_model_does_not_know(world, capsys):
    """Prevents another task's data from deciding what is important."""
    rows = (world / "rows.csv").read_text().replace("good", "excellent")
    (world / "rows.csv").write_text(rows)
    assert prune(world, "--ffn", "0.5", "--score", "labels") == 2
    assert "rows.csv:3: label 'excellent' is none of the model's classes, bad, good" in (
        capsys.readouterr().err
    )


def test_a_folder_with_a_model_is_not_overwritten(world, capsys):
    """Prevents a cut that replaces the model it was made from."""
    assert prune(world, "--ffn", "0.5", out="model") == 2
    assert "holds a model" in capsys.readouterr().err


def test_what_ends_early_leaves_nothing(world, monkeypatch, capsys):
    """Prevents a model without a record, which also stands in the way of the next attempt."""
    from distil_trainer.smaller import prune as work

    monkeypatch.setattr(work, "compare_cut", lambda *_: pytest.fail("interrupted"))
    with pytest.raises(pytest.fail.Exception):
        prune(world, "--ffn", "0.5")
    assert not (world / "out").exists()
    monkeypatch.undo()
    (world / "model" / "distil.json").write_text('{"lineage": 3}')
    assert prune(world, "--ffn", "0.5") == 2
    assert "can't be read as a record" in capsys.readouterr().err
    assert not (world / "out").exists()
    (world / "model" / "distil.json").unlink()
    assert prune(world, "--ffn", "0.5") == 0
    assert not list((world / "out").glob(".*"))
    (world / "old").mkdir()
    (world / "old" / "distil.json").write_text("{}")
    assert prune(world, "--ffn", "0.5", out="old") == 2


def test_a_chain_that_broke_is_not_passed_on(world):
    """Prevents steps in the record that made other weights than those that were cut."""
    step = {"what": "fine-tune", "file": "model.safetensors", "sha256": "0" * 64}
    add_step(world / "model", step)
    assert prune(world, "--ffn", "0.5") == 0
    (cut,) = json.loads((world / "out" / "distil.json").read_text())["lineage"]
    assert cut["what"] == "prune"


def batch_of(model, copies=1):
    ids = torch.tensor([[5, 9, 31, 77, 12]] * copies)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def scores_by(name, model, original, batch, seed=0):
    chosen = scorer(name, model, original, torch.Generator().manual_seed(seed))
    return measure_importance(model, [batch], chosen.loss, squared=chosen.is_squared)


def test_kl_has_no_slope_at_the_model_itself():
    """Why `--score kl` is refused at first: what it ranks there is rounding."""
    model = tiny.shaken(tiny.bert(model_class=CLASSIFIER))
    batch = batch_of(model)
    kl = scores_by("kl", model, model, batch)
    labels = scores_by("labels", model, model, {**batch, "labels": torch.tensor([1])})
    assert kl.neurons.max() < 1e-5 * labels.neurons.max()
    other = tiny.shaken(tiny.bert(model_class=CLASSIFIER, seed=3))
    assert scores_by("kl", model, other, batch).neurons.max() > 1e-3 * labels.neurons.max()


def test_fisher_is_the_second_derivative_of_kl():
    """Catches labels drawn from anything but the model, and slopes that aren't squared."""
    model = tiny.shaken(tiny.bert(layers=2, model_class=CLASSIFIER)).double()
    found = scores_by("fisher", model, model, batch_of(model, copies=6000))
    family, step = family_of(model), 1e-3
    out = family.layers(model)[1].get_submodule(family.layer.attention_output)
    for head in (0, 1):
        columns, before = slice(head * 16, head * 16 + 16), out.weight.detach().clone()

        def log_probabilities(factor, columns=columns, before=before):
            with torch.no_grad():
                out.weight.copy_(before)
                out.weight[:, columns] *= factor
                logits = model(**batch_of(model)).logits
                out.weight.copy_(before)
            return logits.log_softmax(-1)

        here, there = log_probabilities(1.0), log_probabilities(1 + step)
        second = 2 * (here.exp() * (here - there)).sum().item() / step**2
        assert found.heads[1, head].item() == pytest.approx(second, rel=0.1)


def test_the_card_and_the_harness_know_a_cut_model(world):
    """Prevents a record without a training from being taken for a damaged one."""
    from angels_share.card.body import sections
    from angels_share.card.reading import facts_of
    from eval_harness.runs.models import identify

    assert prune(world, "--ffn", "0.5") == 0
    assert identify(str(world / "out")).teacher is None
    facts = facts_of(world / "out", "me/smaller")
    assert facts.pretraining is None
    text = "\n".join(sections(facts, None))
    assert "## What was made from what" in text
    assert "cut from model (weights " in text
    assert "to ffn 32, heads 2, key value heads 2, width 32, by fisher on rows.csv" in text
    assert "of the model's answers on 24 rows of rows.csv" in text
    tuned = {"what": "fine-tune", "file": "model.safetensors", "from": {"name": "out"}}
    share = {**tuned, "score": 0.7125, "is_share": True, "settings": {"task": "sst2", "limit": 300}}
    add_step(world / "out", share)
    add_step(world / "out", {**tuned, "score": 25.5, "settings": {"task": "wikitext-2"}})
    text = "\n".join(sections(facts_of(world / "out", "me/smaller"), None))
    assert "out, fine-tuned on sst2 (at most 300 examples a split), where it reaches 71.2" in text
    assert "out, fine-tuned on wikitext-2, where it reaches 25.5" in text


def test_kl_begins_when_something_is_cut(world, monkeypatch):
    """Prevents a first cut by rounding, where a share so near to 1 leaves all heads at first."""
    from distil_trainer.smaller import prune as work

    model = tiny.shaken(tiny.bert(num_attention_heads=8, model_class=CLASSIFIER))
    tiny.folder(world / "heads", model, tiny.wordpiece())
    used = []
    measured = work._measured
    monkeypatch.setattr(
        work, "_measured", lambda name, *rest: used.append(name) or measured(name, *rest)
    )
    words = ["--width", "0.75", "--iterations", "8", "--score", "fisher", "kl"]
    assert prune(world, *words, model="heads") == 0
    assert used == ["fisher", "kl"]
    assert Sizes.of(saved(world)).heads == 6


def test_queries_of_one_group_can_be_cut(world):
    """Prevents `--heads` from leaving all heads where there is one of keys and values."""
    model = tiny.shaken(tiny.gemma3(num_attention_heads=4, num_key_value_heads=1))
    tiny.folder(world / "gemma", model, tiny.tokenizer_for("gemma3_text"))
    assert prune(world, "--heads", "0.5", model="gemma") == 0
    assert Sizes.of(saved(world, kind=type(model)))[1:3] == (2, 1)


def test_width_finds_heads_that_fit_their_groups(world):
    """Prevents a share of Qwen2's width from being refused for a number that nobody named."""
    model = tiny.shaken(tiny.qwen2(hidden=112, num_attention_heads=14, num_key_value_heads=2))
    tiny.folder(world / "qwen", model, tiny.tokenizer_for("qwen2"))
    assert prune(world, "--width", "0.67", model="qwen") == 0
    assert Sizes.of(saved(world, kind=type(model)))[:3] == (80, 10, 2)


def test_models_and_rows_that_cannot_be_scored(world, capsys):
    """Prevents several labels scored as one, numbers cut to classes, and a torch error."""
    several = tiny.bert(model_class=CLASSIFIER, problem_type="multi_label_classification")
    tiny.folder(world / "several", several, tiny.wordpiece())
    assert prune(world, "--ffn", "0.5", model="several") == 2
    assert "several labels per example" in capsys.readouterr().err
    (world / "rows.jsonl").write_text('{"sentence": "a b", "label": 0.8}')
    words = ["--ffn", "0.5", "--score", "labels"]
    assert prune(world, *words, data="rows.jsonl") == 2
    assert "label 0.8 is none of the model's classes" in capsys.readouterr().err
    (world / "rows.jsonl").write_text('{"sentence": "a b", "label": 1e400}')
    assert prune(world, *words, data="rows.jsonl") == 2
    assert "none of the model's classes" in capsys.readouterr().err
    number = tiny.bert(model_class=CLASSIFIER, num_labels=1)
    tiny.folder(world / "number", number, tiny.wordpiece())
    (world / "rows.csv").write_text("sentence,label\na b,0.5\nb a,nan")
    assert prune(world, *words, model="number") == 2
    assert "rows.csv:3: label 'nan' is not a number" in capsys.readouterr().err
    tiny.folder(world / "gpt2", tiny.gpt2(), tiny.byte_bpe())
    (world / "rows.jsonl").write_text('{"sentence": "a b"}\n{"sentence": ""}')
    assert prune(world, "--ffn", "0.5", model="gpt2", data="rows.jsonl") == 2
    assert "rows.jsonl:2: its text is empty" in capsys.readouterr().err


def padded_batch():
    """Two rows, the second padded from its fourth token on."""
    ids = torch.tensor([[7, 9, 31, 77, 12], [7, 8, 40, 0, 0]])
    return {"input_ids": ids, "attention_mask": (torch.arange(5) < torch.tensor([[5], [3]])).long()}


@pytest.mark.parametrize("kind", ["tokens", "questions"])
def test_padding_has_no_part_in_a_divergence(kind):
    """Prevents scores of padding: the loss of a padded row is that of the row alone."""
    make, settings = KINDS[kind]
    model = tiny.shaken(make(**settings)).eval()
    other = tiny.shaken(make(**settings, seed=5)).eval()
    loss = scorer("kl", model, other, torch.Generator()).loss
    batch = padded_batch()
    short = {name: value[1:, :3] for name, value in batch.items()}
    first = {name: value[:1] for name, value in batch.items()}
    assert loss(batch).item() == pytest.approx(loss(short).item() + loss(first).item(), rel=1e-5)
    assert loss(batch).item() > 1e-3


def test_a_language_models_labels(world, monkeypatch):
    """Prevents visible words scored for hidden ones, and a token that has to predict itself."""
    from distil_trainer.smaller.prune import _with_hidden_words

    batch = padded_batch()
    causal = _with_hidden_words(dict(batch), None, "GPT2LMHeadModel", 0)
    assert causal["labels"].tolist() == [[9, 31, 77, 12, -100], [8, 40, -100, -100, -100]]
    tokenizer = tiny.wordpiece()
    long = {name: value.repeat(1, 40) for name, value in batch.items()}
    masked = _with_hidden_words(dict(long), tokenizer, "BertForMaskedLM", 0)
    hidden = masked["labels"] != -100
    assert (masked["input_ids"][hidden] == tokenizer.mask_token_id).all()
    assert torch.equal(masked["labels"][hidden], long["input_ids"][hidden])
    assert torch.equal(masked["input_ids"][~hidden], long["input_ids"][~hidden])
    assert 0.08 < hidden.sum() / long["attention_mask"].sum() < 0.22
    assert not (hidden & (long["attention_mask"] == 0)).any()
