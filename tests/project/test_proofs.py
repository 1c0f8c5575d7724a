"""Tests of the scripts in benchmarks/proofs, which run too seldom to tell themselves that the code has moved on."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(f"proofs_{name}", ROOT / "benchmarks" / "proofs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by its name
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def faults():
    return script("device").FAULTS


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.what)
def test_each_fault_of_the_device_can_be_put_into_the_package(fault, tmp_path):
    copy = tmp_path / fault.path
    copy.parent.mkdir(parents=True)
    before = (ROOT / fault.path).read_text(encoding="utf-8")
    copy.write_text(before, encoding="utf-8")
    fault.put_into(tmp_path)
    assert copy.read_text(encoding="utf-8") != before


def test_the_mutants_are_those_of_modules_that_exist(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "proofs")
    modules = script("mutation").MODULES
    assert modules
    for module in modules:
        assert (ROOT / "skxma" / (module.replace(".", "/") + ".py")).is_file(), module
