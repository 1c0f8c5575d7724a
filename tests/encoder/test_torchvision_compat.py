import builtins
import subprocess
import sys
import textwrap

import pytest
import torch

from skxma.encoder import _torchvision_compat as repair


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_open_clip_imports_after_the_repair_in_a_fresh_process():
    out = run_python("""
        from skxma.encoder._torchvision_compat import ensure_importable
        ensure_importable()
        import open_clip, torchvision
        from torchvision.transforms import Resize
        print(torchvision.__version__, Resize(8))
    """)
    assert "Resize" in out


def test_missing_operators_are_declared_one_by_one(monkeypatch):
    """What a broken install does, step by step: each import fails on the next operator that was not declared."""
    declared = []
    monkeypatch.setattr(torch.library, "define", lambda name, schema: declared.append(name))

    def broken_import(name):
        for operator in ("torchvision::nms", "torchvision::qnms"):
            if operator not in declared:
                raise RuntimeError(f"operator {operator} does not exist")

    monkeypatch.setattr(repair, "import_module", broken_import)
    repair.ensure_importable()
    assert declared == ["torchvision::nms", "torchvision::qnms"]


def test_healthy_install_is_left_alone(monkeypatch):
    declared = []
    monkeypatch.setattr(torch.library, "define", lambda *args: declared.append(args))
    monkeypatch.setattr(repair, "import_module", lambda name: builtins)
    repair.ensure_importable()
    assert declared == []


@pytest.mark.parametrize(
    "reason", ["CUDA versions differ: 12 and 13", "operator torchvision::unheard_of does not exist"]
)
def test_other_failures_say_what_to_install(monkeypatch, reason):
    def broken_import(name):
        raise RuntimeError(reason)

    monkeypatch.setattr(repair, "import_module", broken_import)
    with pytest.raises(ImportError, match="pip install --upgrade torch torchvision") as caught:
        repair.ensure_importable()
    assert reason in str(caught.value)


def test_an_operator_that_stays_missing_ends_the_attempts(monkeypatch):
    monkeypatch.setattr(torch.library, "define", lambda name, schema: None)

    def broken_import(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(repair, "import_module", broken_import)
    with pytest.raises(ImportError, match="stay missing"):
        repair.ensure_importable()
