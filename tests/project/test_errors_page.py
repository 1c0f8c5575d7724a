import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "make_errors.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the docs are not beside the tests")
def test_the_page_says_what_the_errors_say(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_errors", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAGE", tmp_path / "errors.md")
    module.main()

    def ours(text):
        # scikit-learn words its own errors as its release likes
        return [line for line in text.splitlines() if "scikit-learn" not in line and "InvalidParameter" not in line]

    committed = SCRIPT.with_name("errors.md").read_text(encoding="utf-8")
    assert ours((tmp_path / "errors.md").read_text(encoding="utf-8")) == ours(committed)
    assert len(ours(committed)) >= 14
