"""Training and evaluation on a device that has no float64 and shares no memory with the CPU."""

import pretend_device
import pytest
import updates


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """What each kind of objective logs on the CPU and on such a device."""
    return pretend_device.both(tmp_path_factory.mktemp("device"), *updates.KINDS)


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
