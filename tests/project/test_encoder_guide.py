"""The guide names encoders that the libraries know."""

import re
from pathlib import Path

import pytest

from skxma.encoder._model_names import find_source

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "encoder.md"


@pytest.mark.skipif(not GUIDE.is_file(), reason="the repository is not beside the tests")
def test_every_name_in_the_guide_is_known():
    text = GUIDE.read_text(encoding="utf-8")
    names = set(re.findall(r'"([A-Za-z][\w-]*/[a-z]\w*)"', text)) - {"organization/name"}
    names |= set(re.findall(r'"(timm:[a-z][\w.]*)"', text))
    assert len(names) > 10
    for name in names:
        find_source(name)
