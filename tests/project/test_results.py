"""The page of results: what it says follows from the cells, and cells that are there are not run again."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from problems import make_problem

from skxma.benchmark._problem import Problem
from skxma.benchmark._results_file import append_row, read_results
from skxma.datasets._features import save_features

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import results
import robustness
from cells import Cells, drop_method
from results_page import cells_behind, cells_below_zero_shot, lead_sentence, signed


def add(path, method, dataset, seed, accuracy, shots=1):
    key = {"method": method, "dataset": dataset, "shots": shots, "seed": seed, "protocol": "none"}
    append_row(path, key | {"accuracy": accuracy, "ece": 0.1, "nll": 1.0, "fit_s": 0.0})


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "cells.csv"
    for seed, (own, rival) in enumerate([(0.8, 0.7), (0.9, 0.7)]):
        add(path, "xmadapter", "a", seed, own)
        add(path, "zero-shot", "a", seed, rival)
    add(path, "xmadapter", "b", 0, 0.5)
    add(path, "zero-shot", "b", 0, 0.6)
    return path


def test_means_ranks_and_paired_differences(made):
    cells = Cells(made)
    mean, error = cells.average("xmadapter", 1)
    assert mean == pytest.approx((85 + 50) / 2)
    assert error == pytest.approx(5 / 2)
    assert cells.difference("xmadapter", "zero-shot", 1) == pytest.approx((2.5, 2.5))
    assert cells.rank("xmadapter", 1) == 1.5
    assert np.isnan(cells.average("xmadapter", 2, sets=["a"])[0])


def test_sentences_name_every_cell_that_is_behind(made):
    cells = Cells(made)
    assert "first with 67.5 %, 2.5 ± 2.5 points above the best rival, zero-shot (65.0 %)" in lead_sentence(cells, 1)
    assert cells_behind(cells) == ["- b, 1 shot: 50.0 % behind zero-shot 60.0."]
    assert cells_below_zero_shot(cells) == ["- b, 1 shot: 10.00 points below zero-shot."]
    assert [signed(value) for value in (-0.04, 0.06, -1.25, float("nan"))] == ["0.0", "+0.1", "−1.2", "–"]


def test_a_method_is_dropped_and_the_others_stay(made):
    drop_method(made, "xmadapter")
    assert {row["method"] for row in read_results(made)} == {"zero-shot"}
    drop_method(made)
    assert not made.exists()


def test_wrong_labels_are_a_fifth_and_all_wrong():
    y = np.repeat(np.arange(5), 10)
    assert (robustness.mislabel(y, 0) != y).sum() == 10
    in_one = robustness.mislabel(y, 0, one_class=True) != y
    assert in_one.sum() == 2
    assert len(np.unique(y[in_one])) == 1


def test_useless_text_gives_no_class_its_own():
    problem = Problem("a", None, np.arange(6), text_features=np.eye(6))
    for seed in range(5):
        shuffled = robustness.with_useless_text(problem, robustness.SHUFFLED, seed).text_features
        assert (shuffled.argmax(1) != np.arange(6)).all()
        assert sorted(shuffled.argmax(1)) == list(range(6))


def test_unbalanced_classes_run_from_one_to_the_most():
    problem = robustness.unbalanced(Problem("a", np.zeros((100, 2)), np.repeat(np.arange(5), 20)))
    draw = problem.draw(16, "none", 0)
    counts = np.bincount(problem.y[draw.train])
    assert sorted(counts) == [1, 2, 4, 8, 16]
    assert not np.isin(draw.train, draw.test).any()
    assert (np.bincount(problem.y[draw.test]) == 4).all()


PROTOCOLS = ["domain", "base-to-novel", "active"]


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("parts", "methods", "headings"),
    [
        (
            [part for part in results.PARTS if part not in PROTOCOLS],
            ["xmadapter", "zero-shot", "tip-adapter-f"],
            ["## Comparison", "### small_x_y", "## Ablation", "### Useless text", "### Wrong labels", "### Unbalanced"],
        ),
        (
            PROTOCOLS,
            ["zero-shot", "tip-adapter"],
            [
                "## Domain",
                "### emoji, domain by domain",
                "## Base-to-novel",
                "### small_x_y, base-to-novel",
                "## Labels that are asked for",
                "### small_x_y, labels that are asked for",
            ],
        ),
    ],
    ids=["parts", "protocols"],
)
def test_the_page_is_written_and_goes_on_where_it_was(parts, methods, headings, tmp_path, monkeypatch):
    for name, n_classes in (("small_x_y", 4), ("large_x_y", 6)):
        problem = make_problem(n_classes=n_classes, shots=20, n_test=1)
        save_features(
            tmp_path / f"{name}.npz",
            problem.X,
            problem.y,
            text_features=problem.text,
            class_names=list("abcdef")[:n_classes],
        )
    page, cells = tmp_path / "results.md", tmp_path / "cells.csv"
    command = ["results.py", str(tmp_path), "--seeds", "2", "--methods", *methods, "--parts", *parts]
    monkeypatch.setattr(sys, "argv", [*command, "--shots", "1", "16", "--out", str(page), "--cells", str(cells)])
    results.main()
    first, files = page.read_text(encoding="utf-8"), sorted(tmp_path.glob("cells*.csv"))
    assert len(files) == len(parts)
    for heading in headings:
        assert heading in first
    assert "nan" not in first
    assert str(tmp_path) not in first
    sizes = [len(file.read_bytes()) for file in files]
    results.main()
    assert [len(file.read_bytes()) for file in files] == sizes
    assert page.read_text(encoding="utf-8") == first


def test_unlabeled_part_says_what_the_pool_changed(tmp_path):
    from unlabeled import WITH, WITHOUT, unlabeled

    path = tmp_path / "cells.csv"
    for seed in (0, 1):
        for name, gain in (("a", 0.1), ("a: half of the classes unknown", -0.05)):
            add(path, WITHOUT, name, seed, 0.5)
            add(path, WITH, name, seed, 0.5 + gain)
            add(path, "trans-clip", name, seed, 0.4)
    text = "\n".join(unlabeled(Cells(path)))
    plain, mixed = text.split("### Half of the pool")
    assert "| 60.0 ± 0.0 (+10.0) |" in plain
    assert "| a | +10.0 ± 0.0 (10.0 → 10.0) |" in plain
    assert "−5.0 ± 0.0" in mixed
    assert unlabeled(Cells(tmp_path / "none.csv"))[2] == "Not run."


def test_protocols_say_what_the_cells_have(tmp_path):
    from protocols_page import protocols

    shifted, novel = tmp_path / "shifted.csv", tmp_path / "novel.csv"
    for name, own, other in (("a/same", 0.9, 0.8), ("a/blur", 0.5, 0.6), ("a/noise", 0.7, 0.2)):
        add(shifted, "xmadapter", name, 0, own)
        add(shifted, "zero-shot", name, 0, other)
    for name, own, other in (("a/base", 0.8, 0.5), ("a/novel", 0.4, 0.5), ("a/all", 0.3, 0.2)):
        add(novel, "xmadapter", name, 0, own)
        add(novel, "zero-shot", name, 0, other)
    nothing = Cells(tmp_path / "none.csv")
    text = "\n".join(protocols(Cells(shifted), Cells(novel), nothing))
    assert "Mean over the shifted parts that have enough images (1 shot: 2):" in text
    assert "- At 1 shot the default is first with 60.0 %, 20.0 points above the best rival, zero-shot (40.0 %)." in text
    assert "| accuracy %, 1 shot | same | blur | noise |" in text
    assert "| xmadapter (default) | **53.3 (80.0 / 40.0 / 30.0)** |" in text
    assert "| zero-shot | 50.0 (50.0 / 50.0 / 20.0) |" in text
    assert "- a/novel, 1 shot: 10.00 points below zero-shot." in text
    assert text.count("Not run.") == 1
    assert protocols(nothing, nothing, nothing).count("Not run.") == 3


def test_suggested_labels_are_weighed_in_random_ones(tmp_path):
    from protocols_page import active_learning

    path = tmp_path / "asked.csv"
    curves = {
        "a/suggested": {1: 0.6, 2: 0.9},
        "a/random": {1: 0.5, 2: 0.7},
        "b/suggested": {1: 0.4},
        "b/random": {1: 0.5},
    }
    for name, curve in curves.items():
        for shots, accuracy in curve.items():
            for seed in (0, 1):
                key = {"method": "xmadapter", "dataset": name, "shots": shots, "seed": seed, "protocol": "active"}
                append_row(path, key | {"accuracy": accuracy + 0.1 * seed, "ece": 0.1, "seen": 0.8})
    text = "\n".join(active_learning(Cells(path)))
    mean, of_a, of_b = text.split("### ")
    assert "(1C: 2; 2C: 1)" in mean
    assert "| xmadapter (default), suggested | 55.0 (0.0 ± 0.0), 80, 10.0; 1.0 | 95.0 (+20.0 ± 0.0)" in mean
    assert "| xmadapter (default), suggested | 65.0 (+10.0 ± 0.0), 80, 10.0; 1.4 |" in of_a
    assert "80, 10.0; >2 | 80.0 |" in of_a
    assert "| xmadapter (default), random | 55.0, 80, 10.0 | 75.0, 80, 10.0 | 65.0 |" in of_a
    assert "45.0 (−10.0 ± 0.0), 80, 10.0; <1 | – |" in of_b


def test_others_are_in_the_pool_and_never_learned_or_tested():
    from unlabeled import half_of_classes

    made = make_problem(n_classes=6, shots=8)
    problem = Problem("p", made.X, made.y, text_features=made.text, class_names=list("abcdef"))
    half = half_of_classes(problem)
    draw = half.draw(2, "pool", 0)
    pool, rest = half.split_pool(draw.test, 0)
    assert set(half.y) == {0, 1, 2}
    assert half.class_names == ["a", "c", "e"]
    known = len(half.y)
    assert rest.max() < known
    assert np.sum(pool >= known) == np.sum(pool < known)
    strangers = half.features(pool[pool >= known])
    assert {int(made.y[(row == made.X).all(1)][0]) for row in strangers} == {1, 3, 5}


def figures(text, heading):
    """Means of the first table after a heading, by the names of its rows."""
    table = re.search(r"(?:^\|.*\|\n)+", text.partition(heading)[2], re.MULTILINE)[0]
    rows = re.findall(r"^\| ([^|]+?) \|(.*)\|$", table, re.MULTILINE)
    return {name: re.findall(r"\d+\.\d", re.sub(r"±[^|]*", "", cells)) for name, cells in rows}


def test_figures_of_the_readme_are_means_of_the_page():
    root = Path(__file__).parents[2]
    page = (root / "docs/results.md").read_text(encoding="utf-8")
    files = [figures(page, f"### {name}") for name in ("cifar10_500_vitb32_openai", "cifar10_848_vitb32_laion2b")]
    readme = figures((root / "README.md").read_text(encoding="utf-8"), "## Compare it")
    assert "xmadapter (default)" in readme
    for name, means in readme.items():
        for shown, first, second in zip(means, *(file[name] for file in files), strict=True):
            # the page shows one decimal, so the mean of what it shows may be off by half of one
            assert float(shown) == pytest.approx((float(first) + float(second)) / 2, abs=0.051)
