"""The scripts of examples/ as modules, which are in no package."""

import importlib.util
import sys
from contextlib import contextmanager

import pytest
from places import ROOT

EXAMPLES = ROOT / "examples"


@contextmanager
def example_module(name):
    """Give a script as a module that can see its neighbours, and forget it afterwards."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module
