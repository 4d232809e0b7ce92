"""Table 3 and its files: only like is compared with like, and no file can stop a table."""

import json
from dataclasses import replace

import pytest
from made_results import cells, grid, note, notes

from eval_harness.results.speed import (
    SCHEMA,
    Machine,
    Session,
    Setup,
    Speeds,
    Timed,
    Timing,
    find_speeds,
    ratio,
    write_session,
)
from eval_harness.tables.formats import to_markdown
from eval_harness.tables.paper import load_paper
from eval_harness.tables.table3 import table3

SETUP = Setup(
    source=None, content=None, pairs=100, full=False, repeats=3, seed=1, max_seq_length=128,
    threads=(1, 2), batch_sizes=(1, 8), dtype="float32",
)  # fmt: skip
MACHINE = Machine("a chip", 2, "Linux x86_64", "cpu")


def timings(*seconds, faster=2.0):
    """Times with one thread; with two, and in batches of 8, so many times less."""
    return tuple(
        Timing(threads, size, tuple(each / speed for each in seconds), 20.0, 30.5, 41.26)
        for threads, size, speed in (
            (1, 1, 1), (1, 8, faster), (2, 1, faster), (2, 8, 2 * faster),
        )
    )  # fmt: skip


def model(name, *seconds, **more):
    made = Timed(name, f"{name}-00000000", True, 109_482_240, 109_483_009, None, 484_000_000,
                 timings(*seconds))  # fmt: skip
    return replace(made, **more)


def session(*models, **more):
    libraries = {"torch": "2.13.0", "transformers": "5.23.0"}
    models = models or (model("bert", 4.0, 4.4, 4.2), model("distilbert", 2.0, 2.0, 2.4))
    made = Session(models, SETUP, MACHINE, "1.0", None, libraries, {}, 0.0, "2026-01-02T00:00:00")
    return replace(made, **more)


def text(*sessions, invalid=()):
    return to_markdown(table3(load_paper(), Speeds(sessions, invalid)))


def rows(*sessions):
    """Rows by the model and its threads."""
    return {(row["Model"], row["Threads"]): row for row in grid(text(*sessions))}


def test_the_papers_rows_alone():
    """Prevents empty columns before anything was measured, and a ratio of ELMo's."""
    found = cells(text())
    assert list(found["DistilBERT (paper)"]) == ["Model", "Parameters (M)", "Seconds", "Ratio"]
    assert [row["Ratio"] for row in found.values()] == ["", "1", "1.63"]
    assert not any(line.startswith("Ours") for line in notes(text()))


def test_a_ratio_is_of_the_medians_and_its_range_of_the_repeats():
    """Prevents a ratio of one lucky repeat, or one across repeats that drifted apart."""
    first, other = timings(4.0, 4.4, 4.2)[0], timings(2.0, 2.0, 2.4)[0]
    found = ratio(first, other)
    assert (found.value, found.low, found.high) == pytest.approx((2.1, 1.75, 2.2))
    slow_later = [Timing(1, 1, tuple(factor * each for factor in (1, 2, 5)), 1, 1, 1)
                  for each in (3.0, 2.0)]  # fmt: skip
    drifted = ratio(*slow_later)
    assert drifted.low == drifted.high == pytest.approx(1.5)


def test_rows_of_a_session():
    """Prevents numbers of one thread beside those of two, or the wrong unit."""
    found = rows(session())
    bert, distil = found["bert", "1"], found["distilbert", "1"]
    assert (bert["Parameters (M)"], bert["With head (M)"], bert["Peak MB"]) == (
        "109.5", "109.5", "484.0",
    )  # fmt: skip
    assert bert["ms a pair"] == "42.0 (40.0 to 44.0)"
    assert (bert["p50"], bert["p90"], bert["p99"]) == ("20.0", "30.5", "41.3")
    assert bert["Pairs/s at 8"] == "47.6"
    assert (bert["Ratio"], distil["Ratio"]) == ("1", "2.10 (1.75 to 2.20)")
    assert found["bert", "2"]["ms a pair"] == "21.0 (20.0 to 22.0)"
    assert bert["Seconds"] == ""
    assert "MB on disk" not in bert
    half = model("half", 4.0, 4.4, 4.2, file_bytes=219_000_000, file_dtype="float16")
    row = rows(session(half))["half", "1"]
    assert (row["MB on disk"], row["Saved as"]) == ("219.0", "float16")


def test_seconds_are_of_the_whole_dev_set_only():
    """Prevents 200 pairs' seconds beside the paper's 1,500."""
    setup = replace(SETUP, pairs=1500, full=True, source="hub:nyu-mll/glue/stsb", content="ab" * 8)
    found = session(setup=setup)
    assert rows(found)["bert", "1"]["Seconds"] == "4.20 (4.00 to 4.40)"
    assert "1500 pairs (the whole dev set): STS-B dev, hub:nyu-mll/glue/stsb, content abababab" in (
        note(text(found), "Measured")
    )
    other = session(setup=replace(setup, pairs=48))  # the whole of a smaller set
    assert rows(other)["bert", "1"]["Seconds"] == ""
    assert "the whole dev set" not in note(text(other), "Measured")


def test_circumstances_are_told():
    """Prevents a time without its machine, or random ids that pass for the data."""
    busy = session(model("bert", 1.0, 1.0, 1.0, random_weights=False), load=2.31)
    said = note(text(busy), "Measured")
    for part in ("a chip, 2 cores", "float32, torch 2.13.0", "100 pairs: synthetic ids of STS-B's",
                 "3 repeats", "the machine was busy at the start (load 2.3)"):  # fmt: skip
        assert part in said
    assert "random weights" not in said
    assert "waited for a core" not in said
    neighbour = session(waited=0.372)
    assert "threads waited for a core 37 % of the time" in note(text(neighbour), "Measured")
    for share in (0.049, None):
        assert "waited for a core" not in note(text(session(waited=share)), "Measured")
    assert "random weights: bert, distilbert" in note(text(session()), "Measured")
    on_gpu = session(machine=replace(MACHINE, device="a card"))
    assert "Measured: a card (a chip" in text(on_gpu)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("avx2", "avx512_vnni"), "; processor flags avx2, avx512_vnni;"),
        (("avx2",), "; processor flags avx2: no VNNI, which makes int8 faster;"),
        ((), "; processor flags unknown;"),
    ],
)
def test_int8_is_told_with_its_processor(flags, said):
    """Prevents a speedup of int8 without what it hangs on, and flags where nobody needs them."""
    models = (model("mine", 4.0, 4.4, 4.2), model("mine (onnx int8)", 1.0, 1.0, 1.0,
                                                  backend="onnx-int8"))  # fmt: skip
    libraries = {"torch": "2.13.0", "transformers": "5.23.0", "onnxruntime": "1.32.0"}
    found = note(text(session(*models, processor_flags=flags, libraries=libraries)), "Measured")
    assert said in found
    assert "onnxruntime 1.32.0" in found
    assert "processor flags" not in note(text(session(processor_flags=flags)), "Measured")


def test_two_machines_are_two_groups(tmp_path):
    """Prevents a comparison of times that were taken on different machines."""
    elsewhere = session(machine=replace(MACHINE, processor="another"), finished="2026-01-01")
    for each in (session(), elsewhere):
        write_session(tmp_path, each)
    found = find_speeds(tmp_path)
    assert [each.machine.processor for each in found.sessions] == ["another", "a chip"]
    table = rows(*found.sessions)
    assert {("bert (1)", "1"), ("bert (2)", "1")} <= table.keys()
    assert note(text(*found.sessions), "Measured (1)").startswith("Measured (1): another")


def test_a_newer_session_takes_the_place_of_the_same(tmp_path):
    """Prevents old times from standing beside new ones of the same models, setup and machine."""
    write_session(tmp_path, session())
    newer = session(model("bert", 1.0, 1.0, 1.0), model("distilbert", 0.5, 0.5, 0.5), load=0.25)
    write_session(tmp_path, newer)
    other = session(model("mine", 1.0, 1.0, 1.0))
    write_session(tmp_path, other)
    found = find_speeds(tmp_path).sessions
    assert sorted(found, key=lambda each: -each.load) == [newer, other]


def test_a_results_folder_without_sessions(tmp_path):
    """Prevents `tables` from failing where nothing was timed."""
    assert find_speeds(tmp_path) == Speeds((), ())


def test_a_session_of_an_earlier_version_is_read(tmp_path):
    """Prevents hours of timing from being lost for a fact that they don't record."""
    made = session(model("mine", 1.0, 1.0, 1.0, file_bytes=5_000_000))
    path = write_session(tmp_path, made)
    record = json.loads(path.read_text())
    del record["processor_flags"]
    for each in record["models"]:
        del each["backend"]
    path.write_text(json.dumps({**record, "schema": 3}))
    assert find_speeds(tmp_path) == Speeds((made,), ())
    for each in record["models"]:
        del each["file_dtype"]
    path.write_text(json.dumps({**record, "schema": 2}))
    assert find_speeds(tmp_path) == Speeds((made,), ())
    path.write_text(json.dumps({**record, "schema": 2, "models": None}))
    assert [each.reason for each in find_speeds(tmp_path).invalid] == ["models is a NoneType"]


def changed(**more):
    return lambda record: record.update(more)


def of_model(**more):
    return lambda record: record["models"][0].update(more)


FAULTS = {
    "is not a session": lambda record: record.clear(),
    "a newer version": changed(schema=SCHEMA + 1),
    "has schema 1, which is no longer read": changed(schema=1),
    "waited is a str": changed(waited="0.1"),
    "load is missing": lambda record: record.pop("load"),
    "speed is no field": changed(speed=1),
    "models[0].parameters is a bool": of_model(parameters=True),
    "models[0].name is a int": of_model(name=1),
    "models[0].parameters -1 is no": of_model(parameters=-1),
    "models[0].with_head 1000": of_model(with_head=10**400),
    "contains Infinity, which is not a number": changed(load=float("inf")),
    "contains NaN, which is not a number": changed(load=float("nan")),
    "libraries.torch is a int": changed(libraries={"torch": 2}),
    "the timings of bert are not": of_model(timings=[]),
    "passes of bert are not 3": lambda record: record["models"][0]["timings"][0]["passes"].pop(),
    "passes of bert are not 3 times": lambda record: record["models"][0]["timings"][0].update(
        passes=[1e-320, 1.0, 1.0]
    ),
    "unpaired surrogate": of_model(name="\ud800"),
    "nothing was timed": changed(models=[]),
    "says that it is": of_model(key="bert-11111111"),
    "setup.threads[0] is a str": lambda record: record["setup"].update(threads=["1", 2]),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_file_that_is_none_is_named_and_stops_nothing(tmp_path, said):
    """Fault 20: prevents a torn or odd file from stopping the tables, or from counting."""
    good = write_session(tmp_path, session(model("mine", 1.0, 1.0, 1.0)))
    path = write_session(tmp_path, session())
    record = json.loads(path.read_text())
    FAULTS[said](record)
    path.write_text(json.dumps(record))
    found = find_speeds(tmp_path)
    assert [f"{each.key}.json" for each in found.sessions] == [good.name]
    (line,) = [line for line in notes(text(invalid=found.invalid)) if "Not counted" in line]
    assert line.startswith(f"Not counted: speed/{path.name}: ")
    assert said in line


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"[1]"])
def test_a_torn_file(tmp_path, content):
    """Prevents what a full disk left from stopping the tables."""
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "00000000.json").write_bytes(content)
    (tmp_path / "speed" / "a-folder.json").mkdir()
    found = find_speeds(tmp_path)
    assert [each.path for each in found.invalid] == ["speed/00000000.json", "speed/a-folder.json"]


def test_a_session_comes_back_as_it_was(tmp_path):
    """Prevents a field that is written and not read, or a key that changes on the way."""
    made = session(environment={"GOMP_SPINCOUNT": "5000"}, commit="abc", load=1.5, waited=0.25)
    path = write_session(tmp_path, made)
    assert find_speeds(tmp_path).sessions == (made,)
    assert path.stem == made.key
