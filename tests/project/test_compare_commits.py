"""The comparison of two commits: what counts as a loss."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from compare_commits import least, report


def test_what_takes_a_fifth_longer_is_a_loss(capsys):
    before, after = {"fit": 1.0, "start": 2.0, "one": 1e-3}, {"fit": 1.19, "start": 2.5, "one": 0.5e-3}
    assert report(before, after, loss=0.2) == ["start"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("LOSS") for line in lines] == [False, True, False]
    assert "1.25" in lines[1]


def test_the_first_call_does_not_count(monkeypatch):
    monkeypatch.setattr("compare_commits.SECONDS", 0.02)
    calls = []

    def work():
        # the first is slow, as imports and caches make it
        sum(range(10**6 if not calls else 10**3))
        calls.append(1)

    assert least(work) < 0.01
    assert len(calls) > 1
