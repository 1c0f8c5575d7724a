"""Labels that are asked for: what is drawn, the rounds, and what the table says of them."""

import math

import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.active import suggest
from skxma.benchmark import format_table, read_results, run_benchmark, summarize
from skxma.benchmark._asked import Rounds
from skxma.benchmark._names import ACTIVE
from skxma.benchmark._parts import load_parts
from skxma.benchmark._problem import Problem
from skxma.benchmark._report import curve_area, labels_worth, worth_text
from skxma.benchmark._results_file import COLUMNS, EARLIER, append_row


def small(**changes):
    made = make_problem(n_classes=4, shots=30, n_test=1)
    labels = np.array(list("abcd"))[made.y]
    return Problem("p", made.X, labels, **{"text_features": dict(zip("abcd", made.text, strict=True)), **changes})


def parts(**changes):
    return {part.asked: part for part in load_parts(small(**changes), ACTIVE)}


def test_the_pool_and_the_test_share_no_image():
    groups = np.repeat(np.arange(60), 2)
    for part in (parts()["suggested"], parts(groups=groups)["random+rest"]):
        draw = part.draw(2, ACTIVE, 0)
        assert not set(draw.train) & set(draw.test)
        assert len(draw.validation) == 0
        n = len(draw.train) + len(draw.test)
        assert n == (120 if part.groups is None else 60)
        assert len(draw.test) == pytest.approx(0.4 * n, abs=4)
    assert len({*groups[draw.train], *groups[draw.test]}) == 60
    with pytest.raises(ValueError, match=r"64 labels are more than two thirds of the 72 images"):
        parts()["random"].draw(16, ACTIVE, 0)


def test_a_data_set_with_folds_is_asked_in_its_training_part():
    fold = np.where(np.arange(120) % 3, "train", "test")
    draw = parts(fold=fold)["suggested"].draw(1, ACTIVE, 0)
    assert set(fold[draw.train]) == {"train"}
    assert set(fold[draw.test]) == {"test"}


def test_rounds_are_those_of_suggest_and_do_not_depend_on_what_is_measured():
    part = parts()["suggested"]
    clf = XMAdapterClassifier("precomputed")
    pool = part.draw(1, ACTIVE, 0).train
    X, y = part.X[pool], part.y[pool]
    first = suggest(part.settle(clf, 0), X, 4, random_state=0)
    fitted = part.settle(clf, 0).fit(X[first], y[first])
    rest = np.setdiff1d(np.arange(len(pool)), first)
    second = np.append(first, rest[suggest(fitted, X[rest], 4, random_state=0)])
    found = Rounds(part, clf, 0).measure(2)
    wanted = part.settle(clf, 0).fit(X[second], y[second])
    test = part.draw(1, ACTIVE, 0).test
    assert found.accuracy == np.mean(wanted.predict(part.X[test]) == part.y[test])
    assert found.seen == len(set(y[second])) / 4
    step_by_step = Rounds(part, clf, 0)
    assert [step_by_step.measure(n).nll for n in (1, 3, 2)][2] == found.nll


def test_images_that_cannot_be_read_fail_in_the_cells_alone(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("a damaged file")

    monkeypatch.setattr(Problem, "features", fail)
    methods, out = {"ours": XMAdapterClassifier("precomputed")}, tmp_path / "cells.csv"
    run_benchmark([small()], methods, shots=[1], seeds=1, protocol=ACTIVE, out=out)
    errors = [row["error"] for row in read_results(out)]
    assert errors == ["OSError: a damaged file"] * 4


def test_the_rest_of_the_pool_is_learned_from_without_labels():
    part = parts()["random+rest"]
    fit = Rounds(part, XMAdapterClassifier("precomputed"), 0)._fit(2)
    assert fit.classifier.soft_labels_.shape == (len(part.draw(1, ACTIVE, 0).train) - 8, 4)
    alone = Rounds(parts()["random"], XMAdapterClassifier("precomputed"), 0)._fit(2)
    assert alone.labeled.tolist() == fit.labeled.tolist()
    assert alone.classifier.unlabeled_label is None


def test_a_class_that_was_not_found_counts_as_wrong():
    part = parts(text_features=None)["random"]
    # integers are no names, so that a class without an image is none
    part = Problem("p/random", part.X, np.searchsorted(list("abcd"), part.y), asked="random")
    found = Rounds(part, XMAdapterClassifier("precomputed"), 3).measure(1)
    assert found.seen < 1
    assert found.accuracy <= found.seen + 0.01
    assert np.isfinite(found.nll)


def test_the_command_goes_on_where_it_was_and_puts_the_ways_side_by_side(tmp_path):
    out = tmp_path / "r.csv"
    how = {"shots": [1, 2, 64], "seeds": 1, "protocol": ACTIVE, "out": out}
    run_benchmark([small()], **how)
    rows = read_results(out)
    assert {row["method"] for row in rows} == {"xmadapter", ""}
    assert sum(not row["error"] for row in rows) == 4 * 2
    assert {row["error"].partition(":")[0] for row in rows} == {"", "ValueError"}
    before = out.read_text()
    run_benchmark([small()], **(how | {"shots": [1, 2]}))
    assert out.read_text() == before
    table = format_table(summarize(out))
    for way in ("suggested", "random", "suggested+rest", "random+rest"):
        assert f"xmadapter, {way} " in table
    random = {row.shots: row.accuracy for row in summarize(out) if row.dataset == "p/random"}
    chosen = {row.shots: row.accuracy for row in summarize(out) if row.dataset == "p/suggested"}
    line = next(line for line in table.splitlines() if line.startswith("xmadapter, suggested "))
    assert line.split("|")[1].split() == [f"{100 * chosen[n]:.1f}" for n in (1, 2)]
    assert line.split("|")[4].split() == [worth_text(chosen[n], random) for n in (1, 2)]
    assert float(line.split("|")[5]) == pytest.approx(100 * curve_area(chosen), abs=0.1)


def test_area_and_worth():
    assert curve_area({1: 0.2, 2: 0.4, 4: 0.8}) == pytest.approx(0.45)
    assert math.isnan(curve_area({1: 0.2}))
    random = {1: 0.2, 4: 0.6, 2: 0.4}
    assert labels_worth(0.5, random) == pytest.approx(2**1.5)
    assert labels_worth(0.2, random) == 1
    assert labels_worth(0.61, random) == math.inf
    assert labels_worth(0.1, random) == 0
    assert math.isnan(labels_worth(0.1, {}))


def test_files_of_earlier_releases_are_read_and_continued(tmp_path):
    out = tmp_path / "r.csv"
    out.write_text(",".join(EARLIER[0]) + "\n" + "m,d,1,0,none,0.5,0.1,,,,,,\n")
    append_row(out, {"method": "m", "dataset": "d", "shots": 1, "seed": 1, "protocol": "none", "accuracy": 0.7})
    found = read_results(out)
    assert [row["accuracy"] for row in found] == ["0.5", "0.7"]
    assert {tuple(row) for row in found} == {COLUMNS}
    assert summarize(out)[0].accuracy == pytest.approx(0.6)
