"""Training and evaluation on a device that has no float64 and shares no memory with the CPU."""

import pretend_device
import pytest
import updates


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """What each kind of objective logs on the CPU and on such a device."""
    return pretend_device.both(tmp_path_factory.mktemp("device"), *updates.KINDS)


@pytest.fixture(scope="module")
def waits(tmp_path_factory):
    """What the host would wait for in an update on a GPU, by the kind of objective."""
    names = [f"waits:{kind}" for kind in updates.KINDS]
    return pretend_device.both(tmp_path_factory.mktemp("waits"), *names)


@pytest.mark.parametrize("kind", updates.KINDS)
def test_no_objective_needs_float64_on_its_device(kind, logged):
    """Prevents a run that ends at its first update on a Mac, whose GPU has no float64.

    And a tensor left behind on the CPU, which no CPU would ever show.
    """
    on_cpu, on_device = logged[kind]["cpu"], logged[kind][pretend_device.NAME]
    assert on_device.pop("device") == pretend_device.NAME
    assert on_cpu.pop("device") == "cpu"
    assert {"grad_norm", "eval_loss"} < on_cpu.keys()
    assert on_device == pytest.approx(on_cpu, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", updates.KINDS)
def test_an_update_asks_the_device_once(kind, waits):
    """Prevents a GPU that idles while the host waits for an answer before it goes on.

    Two padded micro-batches make the update. Copies to the device must be of pinned memory and not
    block; nothing may depend on a value there, until the sums are read at the end.
    """
    ((operation, lines),) = waits[f"waits:{kind}"]
    assert operation == "aten::_to_copy"
    assert "_get_grad_norm: *sums, stop_code, norm_value = " in lines[-2]


def test_what_would_wait_is_seen(tmp_path):
    """Prevents a count that is low because the device is blind."""
    found = pretend_device.both(tmp_path, "asking")["asking"]
    assert found == {
        "item": 1, "bool": 1, "tolist": 1, "nonzero": 1, "by mask": 1, "set by mask": 1, "cpu": 1,
        "blocking copy": 1, "pageable copy": 1, "copied into": 1, "made there": 1,
        "pinned copy": 0, "copy back": 0, "filled there": 0, "by index": 0, "where": 0,
    }  # fmt: skip
