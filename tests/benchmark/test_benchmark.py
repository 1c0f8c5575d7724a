"""The benchmark measures what it says, goes on where it was killed, and no failure stops the rest."""

import argparse
import csv
import gc
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from problems import make_problem
from sklearn.metrics import log_loss

from skxma._statistics import calibration_error
from skxma.baselines import SSTextUClassifier, TipAdapterClassifier, ZeroShotClassifier
from skxma.benchmark import _runner as benchmark
from skxma.benchmark._cell import PeakMemory, run_cell
from skxma.benchmark._names import METHODS
from skxma.benchmark._parts import load_parts
from skxma.benchmark._problem import Problem, load_problem
from skxma.benchmark._report import _styles, format_table, plot_curves, summarize
from skxma.benchmark._results_file import COLUMNS, append_row, failures, read_results
from skxma.benchmark._runner import run_benchmark
from skxma.cli._benchmark import add_parser
from skxma.cli.main import main
from skxma.datasets._features import save_features
from skxma.errors import EncoderNotFoundError

QUICK = ["zero-shot", "tip-adapter", "gda"]


@pytest.fixture
def features(tmp_path):
    """A feature file of five classes and twelve images each."""
    problem = make_problem(n_classes=5, shots=12)
    path = tmp_path / "small.npz"
    save_features(path, problem.X, problem.y, text_features=problem.text, class_names=[f"thing {i}" for i in range(5)])
    return path


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_cell_is_a_line(features, tmp_path):
    out = tmp_path / "r.csv"
    summary = run_benchmark([features], QUICK, shots=[1, 4], seeds=3, out=out)
    rows = lines(out)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3 * 2 * 3
    assert {(r["method"], r["shots"], r["seed"]) for r in rows} == {
        (m, k, s) for m in QUICK for k in ("1", "4") for s in ("0", "1", "2")
    }
    assert all(r["dataset"] == "small" and r["protocol"] == "none" and not r["error"] for r in rows)
    assert all(float(r["fit_s"]) > 0 and float(r["predict_s"]) > 0 for r in rows)
    assert len(summary) == 6


def test_a_cell_is_what_one_would_compute_by_hand(features):
    problem = load_problem(features)
    draw = problem.draw(4, "none", seed=7)
    fitted = TipAdapterClassifier("precomputed", text_features=problem.text_features, random_state=7)
    fitted.fit(problem.X[draw.train], problem.y[draw.train])
    probabilities = fitted.predict_proba(problem.X[draw.test])
    cell = run_cell(problem, TipAdapterClassifier(), 4, 7, "none")
    assert cell.accuracy == fitted.score(problem.X[draw.test], problem.y[draw.test])
    assert cell.nll == pytest.approx(log_loss(problem.y[draw.test], probabilities))
    correct = probabilities.argmax(1) == problem.y[draw.test]
    assert cell.ece == calibration_error(probabilities.max(1), correct)
    assert cell.n_trained == 0


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    assert calibration_error(confidence, np.array([True, True, False, True])) == pytest.approx(0.05)
    assert calibration_error(np.ones(5), np.ones(5, dtype=bool)) == 0
    assert calibration_error(np.ones(5), np.zeros(5, dtype=bool)) == 1


def test_peak_memory_sees_what_was_used_and_given_back():
    # garbage of other tests that is freed within would hide the peak, as what their threads free may do once
    gc.collect()
    for _ in range(3):
        with PeakMemory() as memory:
            block = np.ones(6 * 2**20)
            del block
        if memory.peak_mb > 40:
            break
    assert 40 < memory.peak_mb < 80 or math.isnan(memory.peak_mb)
    with PeakMemory() as memory:
        pass
    assert memory.peak_mb < 10 or math.isnan(memory.peak_mb)


def test_methods_get_the_same_support_images(features, tmp_path):
    problem = load_problem(features)
    first, again = problem.draw(2, "none", 3), problem.draw(2, "none", 3)
    assert first.train.tolist() == again.train.tolist()
    assert first.train.tolist() != problem.draw(2, "none", 4).train.tolist()


@pytest.mark.parametrize("protocol", ["few", "full"])
def test_protocols_tune_on_images_that_are_not_the_test(features, tmp_path, protocol, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "skxma.model_selection.tune",
        lambda est, X, y, Xv, yv: seen.append((len(y), len(yv))) or argparse.Namespace(estimator=est.fit(X, y)),
    )
    run_benchmark([features], ["tip-adapter"], shots=[2], seeds=1, protocol=protocol, out=tmp_path / "r.csv")
    assert seen == [(10, 10 if protocol == "few" else 25)]
    draw = load_problem(features).draw(2, protocol, 0)
    assert len(set(np.concatenate(draw))) == 60
    assert lines(tmp_path / "r.csv")[0]["protocol"] == protocol


def test_finished_cells_are_not_run_again(features, tmp_path, monkeypatch):
    out = tmp_path / "r.csv"
    run_benchmark([features], ["zero-shot"], shots=[1], seeds=2, out=out)
    calls = []
    real = benchmark.run_cell
    monkeypatch.setattr(benchmark, "run_cell", lambda *a: calls.append(a[2:]) or real(*a))
    run_benchmark([features], ["zero-shot", "gda"], shots=[1], seeds=3, out=out)
    assert sorted(calls) == [(1, 0, "none"), (1, 1, "none"), (1, 2, "none"), (1, 2, "none")]
    assert len(lines(out)) == 6


def test_a_line_that_a_kill_cut_short_is_run_again(features, tmp_path):
    out = tmp_path / "r.csv"
    run_benchmark([features], QUICK, shots=[1], seeds=2, out=out)
    whole = out.read_text()
    out.write_text(whole[:-40])
    assert len(read_results(out)) == 5
    run_benchmark([features], QUICK, shots=[1], seeds=2, out=out)
    kept = read_results(out)
    assert len(kept) == 6
    assert {r["accuracy"] for r in kept} == {r["accuracy"] for r in csv.DictReader(whole.splitlines())}


SCRIPT = """
import sys, time
from skxma.benchmark import _runner as benchmark
real = benchmark.run_cell
def slow(*arguments):
    time.sleep(0.2)
    return real(*arguments)
benchmark.run_cell = slow
benchmark.run_benchmark([sys.argv[1]], ["zero-shot", "gda"], shots=[1, 2], seeds=4, out=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_goes_on_after_sigkill(features, tmp_path):
    out = tmp_path / "r.csv"
    command = [sys.executable, "-c", SCRIPT, str(features), str(out)]
    killed = subprocess.Popen(command)
    while len(read_results(out)) < 3:
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = read_results(out)
    assert 3 <= len(before) < 16
    run_benchmark([features], ["zero-shot", "gda"], shots=[1, 2], seeds=4, out=out)
    after = read_results(out)
    assert len(after) == 16
    assert after[: len(before)] == before


class Broken(ZeroShotClassifier):
    def _fit_support(self, task):
        raise RuntimeError("out of\nluck")


def test_what_fails_is_recorded_and_the_rest_goes_on(features, tmp_path):
    out = tmp_path / "r.csv"
    methods = {"broken": Broken(), "zero-shot": ZeroShotClassifier()}
    run_benchmark([features], methods, shots=[1, 20], seeds=1, out=out)
    errors = {(r["method"], r["dataset"], r["shots"]): r["error"] for r in lines(out)}
    assert errors.pop(("zero-shot", "small", "1")) == ""
    assert errors.pop(("broken", "small", "1")) == "RuntimeError: out of luck"
    assert "class 0 has 12 images" in errors.pop(("", "small", "20"))
    assert not errors
    assert [row.method for row in summarize(out)] == ["zero-shot"]
    assert any(line.startswith("broken small 1 shots, seed 0: RuntimeError") for line in failures(read_results(out)))


def test_what_failed_is_tried_again_and_then_counts(features, tmp_path):
    out = tmp_path / "r.csv"
    run_benchmark([features], {"method": Broken()}, shots=[1], seeds=1, out=out)
    assert summarize(out) == []
    run_benchmark([features], {"method": ZeroShotClassifier()}, shots=[1], seeds=1, out=out)
    assert len(summarize(out)) == 1
    assert list(failures(read_results(out))) == []


def test_a_data_set_that_vanishes_on_the_way_is_recorded_and_the_others_run(features, tmp_path, monkeypatch):
    out, asked = tmp_path / "r.csv", []

    def vanishing(source, protocol, **how):
        asked.append(source)
        if asked.count(source) > 1 and source != features:
            raise FileNotFoundError(f"{source} is gone")
        return [load_problem(features) if source == features else Problem(source, *np.empty((2, 0)))]

    monkeypatch.setattr(benchmark, "load_parts", vanishing)
    run_benchmark(["first", features], ["zero-shot"], shots=[1], seeds=1, out=out)
    assert [(row["dataset"], row["error"]) for row in lines(out)] == [
        ("first", "FileNotFoundError: first is gone"),
        ("small", ""),
    ]


def test_data_sets_that_cannot_be_read_are_all_named_before_anything_runs(features, tmp_path):
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    sources = [features, bad, tmp_path / "gone", empty]
    with pytest.raises(ValueError, match="3 of 4 data sets cannot be read, so nothing was run") as told:
        run_benchmark(sources, {"broken": Broken()}, shots=[1], seeds=1, out=tmp_path / "r.csv")
    assert all(str(path) in str(told.value) for path in sources[1:])
    assert not (tmp_path / "r.csv").exists()


def test_data_sets_of_one_name_are_refused(features, tmp_path):
    other = tmp_path / "elsewhere" / features.name
    other.parent.mkdir()
    other.write_bytes(features.read_bytes())
    with pytest.raises(ValueError, match=f"{features} and {other} are both called 'small'"):
        run_benchmark([features, other], QUICK, shots=[1], seeds=1, out=tmp_path / "r.csv")
    assert not (tmp_path / "r.csv").exists()


def test_an_encoder_of_an_unknown_name_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(EncoderNotFoundError, match="ViT-B-32/openai"):
        run_benchmark(["emoji"], QUICK, shots=[1], seeds=1, out=tmp_path / "r.csv", encoder="ViT-B-23/openai")
    assert not (tmp_path / "r.csv").exists()


def test_a_results_file_that_cannot_be_written_is_refused_before_anything_runs(features, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for out, wanted in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "file" / "r.csv", NotADirectoryError),
        (tmp_path / "shut" / "deep" / "r.csv", PermissionError),
    ):
        if wanted is PermissionError:
            # root may write everywhere
            monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
        with pytest.raises(wanted, match=re.escape(str(tmp_path))):
            run_benchmark([features], {"broken": Broken()}, shots=[1], seeds=1, out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "small.npz"]


@pytest.mark.parametrize(
    ("image", "wanted"), [("c.xyz", "names no format of a figure; use one of .*png"), ("gone/c.png", "create it first")]
)
def test_a_figure_that_cannot_be_written_is_refused_before_anything_runs(features, tmp_path, capsys, image, wanted):
    out = tmp_path / "r.csv"
    assert main(["benchmark", str(features), "--out", str(out), "--plot", str(tmp_path / image)]) == 1
    assert re.search(wanted, capsys.readouterr().err)
    assert not out.exists()


def test_wrong_names_are_refused_before_anything_runs(features, tmp_path):
    with pytest.raises(ValueError, match="no method 'best'"):
        run_benchmark([features], ["best"], out=tmp_path / "r.csv")
    with pytest.raises(ValueError, match="protocol='all'"):
        run_benchmark([features], QUICK, protocol="all", out=tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no results file"):
        run_benchmark([features], QUICK, out=tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == "a,b\n1,2\n"


def write(out, cells):
    for method, dataset, shots, seed, accuracy in cells:
        row = {"method": method, "dataset": dataset, "shots": shots, "seed": seed, "protocol": "none"}
        append_row(
            out, row | {"accuracy": accuracy, "ece": 0.1, "nll": 1.0, "fit_s": 0.5, "predict_s": 0.1, "peak_mb": 1.0}
        )


def test_means_errors_and_ranks_by_hand(tmp_path):
    out = tmp_path / "r.csv"
    write(out, [("a", "x", 1, 0, 0.5), ("a", "x", 1, 1, 0.7), ("b", "x", 1, 0, 0.8), ("b", "x", 1, 1, 0.8)])
    write(out, [("a", "y", 1, 0, 0.9), ("a", "y", 1, 1, 0.9), ("b", "y", 1, 0, 0.9), ("b", "y", 1, 1, 0.9)])
    write(out, [("c", "x", 1, 0, 0.1)])
    rows = {(row.dataset, row.method): row for row in summarize(out)}
    assert rows["x", "a"].accuracy == pytest.approx(0.6)
    assert rows["x", "a"].accuracy_se == pytest.approx(0.1)
    assert [rows["x", m].rank for m in "abc"] == [2, 1, 3]
    assert [rows["y", m].rank for m in "ab"] == [1.5, 1.5]
    assert rows["average", "a"].accuracy == pytest.approx(0.75)
    assert rows["average", "a"].accuracy_se == pytest.approx(0.05)
    assert rows["average", "a"].rank == 1.75
    assert math.isnan(rows["x", "c"].accuracy_se)
    assert ("average", "c") not in rows
    assert math.isnan(rows["x", "a"].n_trained)


def test_the_table_names_every_method_and_says_how_many_data_sets_it_averages(tmp_path):
    out = tmp_path / "r.csv"
    write(out, [("good", "x", 1, 0, 0.5), ("bad", "x", 1, 0, 0.25), ("good", "y", 1, 0, 1.0), ("bad", "y", 1, 0, 0.0)])
    write(out, [("good", "x", 4, 0, 0.5)])
    table = format_table(summarize(out))
    average, x, y = table.split("\n\n")
    assert "over 2 at 1, 1 at 4 shots" in average
    assert [line.split()[0] for line in average.splitlines()[2:]] == ["good", "bad"]
    assert "75.0" in average
    assert "–" in x.splitlines()[3]
    assert y.splitlines()[2].split() == ["good", "100.0", "(", "1.0)", "|", "10.0"]


def test_lines_come_back_as_they_were_written(tmp_path):
    out = tmp_path / "deep" / "r.csv"
    append_row(out, {"method": 'a, "b"', "dataset": "d", "shots": 1, "seed": 0, "protocol": "none", "accuracy": 1 / 3})
    row = read_results(out)[0]
    assert row["method"] == 'a, "b"'
    assert float(row["accuracy"]) == 1 / 3
    assert row["error"] == ""


def test_curves_are_drawn_with_a_look_for_each_method(tmp_path):
    out, image = tmp_path / "r.csv", tmp_path / "c.png"
    cells = [
        (method, dataset, shots, seed, 0.5 + 0.01 * i)
        for i, method in enumerate(METHODS)
        for dataset in ("x", "y")
        for shots in (1, 2, 4)
        for seed in (0, 1)
    ]
    write(out, cells)
    plot_curves(out, image)
    with Image.open(image) as picture:
        assert picture.width > 1200
        assert len(picture.convert("P", palette=Image.Palette.ADAPTIVE).getcolors()) > 7
    looks = _styles(summarize(out))
    assert len({tuple(look.values()) for look in looks.values()}) == len(METHODS)
    assert len({look["marker"] for look in looks.values()}) == len(METHODS)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="no results to draw"):
        plot_curves(tmp_path / "r.csv", tmp_path / "c.png")


def test_images_are_encoded_once(tmp_path, monkeypatch):
    from skxma.datasets import load_emoji
    from skxma.encoder._clip_encoder import CLIPEncoder

    emoji = load_emoji()
    few = np.isin(emoji.target, np.unique(emoji.target)[:4])
    for i, (picture, label) in enumerate(zip(emoji.images[few], emoji.target[few], strict=True)):
        (tmp_path / "pets" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "pets" / label / f"{i}.png")

    store = tmp_path / "store"
    forwarded = []
    real = CLIPEncoder._forward_images
    monkeypatch.setattr(
        CLIPEncoder, "_forward_images", lambda self, batch: forwarded.append(len(batch)) or real(self, batch)
    )
    common = {"shots": [1, 2], "seeds": 2, "out": tmp_path / "r.csv", "encoder": "tiny", "memory": store}
    summary = run_benchmark([tmp_path / "pets"], ["zero-shot", "tip-adapter"], **common)
    assert {row.dataset for row in summary} == {"pets"}
    assert sum(forwarded) == 20
    run_benchmark([tmp_path / "pets"], ["gda"], **common)
    assert sum(forwarded) == 20
    assert [row["error"] for row in read_results(tmp_path / "r.csv")] == [""] * 12


def plant_coop(root, n_classes=4):
    """A miniature DTD of emoji."""
    from skxma.datasets import load_emoji

    emoji = load_emoji()
    names = np.unique(emoji.target)[:n_classes]
    rows = {"train": [], "val": [], "test": []}
    folds = ["train", "train", "val", "test", "test"]
    for label, name in enumerate(names):
        for i, picture in enumerate(emoji.images[emoji.target == name]):
            path = f"{label}/{i}.png"
            (root / "dtd" / "images" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / "dtd" / "images" / path)
            rows[folds[i]].append([path, label, str(name)])
    (root / "dtd" / "split_zhou_DescribableTextures.json").write_text(json.dumps(rows))


def test_data_sets_with_folds_learn_from_train_and_are_tested_on_test(tmp_path):
    plant_coop(tmp_path)
    problem = load_problem("dtd", root=tmp_path, encoder="tiny")
    for protocol, n_validation in (("none", 0), ("few", 4), ("full", 4)):
        draw = problem.draw(1, protocol, 0)
        assert set(problem.fold[draw.train]) == {"train"}
        assert set(problem.fold[draw.test]) == {"test"}
        assert problem.y[draw.train].tolist() == [0, 1, 2, 3]
        assert len(draw.validation) == n_validation
        assert len(draw.test) == 8
    assert problem.templates == ["{} texture."]


def test_base_to_novel_learns_base_classes_and_is_tested_among_novel_ones(tmp_path):
    plant_coop(tmp_path)
    base, novel = (load_problem(f"dtd/{half}", root=tmp_path, encoder="tiny") for half in ("base", "novel"))
    assert list(base.class_names) == [0, 1]
    assert list(novel.class_names) == [0, 1, 2, 3]
    assert set(novel.y[novel.draw(2, "none", 0).train]) == {0, 1}
    assert set(novel.y[novel.draw(2, "none", 0).test]) == {2, 3}
    everything = load_problem("dtd/all", root=tmp_path, encoder="tiny")
    assert set(everything.y[everything.draw(2, "none", 0).train]) == {0, 1}
    assert set(everything.y[everything.draw(2, "none", 0).test]) == {0, 1, 2, 3}
    parts = load_parts("dtd", "base-to-novel", root=tmp_path, encoder="tiny")
    assert [part.name for part in parts] == ["dtd/base", "dtd/novel", "dtd/all"]
    out = tmp_path / "r.csv"
    run_benchmark(["dtd/base", "dtd/novel"], QUICK, shots=[2], seeds=1, out=out, root=tmp_path, encoder="tiny")
    rows = lines(out)
    assert [row["error"] for row in rows] == [""] * 6
    assert {row["dataset"] for row in rows} == {"dtd/base", "dtd/novel"}
    by_hand = ZeroShotClassifier(
        "tiny", class_names={k: v for k, v in novel.class_names.items() if k > 1}, templates=["{} texture."]
    )
    test = novel.draw(2, "none", 0).test
    paths = [novel.X[i] for i in test]
    expected = by_hand.fit(paths[:1], novel.y[test][:1]).score(paths, novel.y[test])
    assert (
        float(next(r for r in rows if r["method"] == "zero-shot" and r["dataset"] == "dtd/novel")["accuracy"])
        == expected
    )


def test_a_shift_is_tested_with_what_was_learned_on_imagenet(tmp_path):
    rng = np.random.default_rng(0)
    for part, wnids in (
        ("imagenet/images/train", "123"),
        ("imagenet/images/val", "123"),
        ("imagenet-adversarial/imagenet-a", "13"),
    ):
        for wnid in wnids:
            (tmp_path / part / f"n0{wnid}").mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / f"n0{wnid}" / f"{i}.png")
    for folder in ("imagenet", "imagenet-adversarial"):
        (tmp_path / folder / "classnames.txt").write_text("n01 tench\nn02 goldfish\nn03 shark\n")
    problem = load_problem("imagenet_a", root=tmp_path, encoder="tiny")
    draw = problem.draw(2, "none", 0)
    assert problem.y[draw.train].tolist() == [0, 0, 1, 1, 2, 2]
    assert all("imagenet/images/train" in problem.X[i] for i in draw.train)
    assert all("imagenet-a" in problem.X[i] for i in draw.test)
    with_validation = problem.draw(1, "few", 0)
    assert not set(with_validation.train) & set(with_validation.validation)
    assert len(with_validation.validation) == 3
    cell = run_cell(problem, ZeroShotClassifier(), 2, 0, "none")
    assert 0 <= cell.accuracy <= 1


def test_unknown_halves_and_names_are_refused(tmp_path):
    plant_coop(tmp_path)
    with pytest.raises(ValueError, match="base, novel or all"):
        load_problem("dtd/new", root=tmp_path, encoder="tiny")
    with pytest.raises(FileNotFoundError, match="folder in which they lie as root"):
        load_problem("dtd")


def test_a_vocabulary_goes_to_methods_that_take_one():
    problem = make_problem()
    given = Problem("p", problem.X, problem.y, text_features=problem.text, vocabulary=problem.words)
    from skxma import XMAdapterClassifier

    assert given.settle(XMAdapterClassifier(), 5).vocabulary.shape == problem.words.shape
    assert given.settle(ZeroShotClassifier(), 5).random_state == 5


def test_all_methods_can_be_made():
    made = benchmark._estimators(None, "pool")
    assert list(made) == list(METHODS)
    assert len({type(estimator) for estimator in made.values()}) == len(METHODS)
    without = benchmark._estimators(None, "none")
    assert set(METHODS) - set(without) == {"trans-clip", "stat-a", "ss-text-u", "self-training", "label-spreading"}


def test_a_pool_is_half_of_the_test_and_its_labels_are_not_seen(features, tmp_path, monkeypatch):
    problem, seen = load_problem(features), []

    def spy(self, X, y, sample_weight=None):
        seen.append((X, y))
        return fit(self, X, y, sample_weight)

    fit = SSTextUClassifier.fit
    monkeypatch.setattr(SSTextUClassifier, "fit", spy)
    run_benchmark([features], ["ss-text-u", "zero-shot"], shots=[2], seeds=1, protocol="pool", out=tmp_path / "r.csv")
    rows = lines(tmp_path / "r.csv")
    assert [(row["protocol"], row["error"]) for row in rows] == [("pool", "")] * 2
    draw = problem.draw(2, "pool", 0)
    pool, rest = problem.split_pool(draw.test, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([pool, rest])), draw.test)
    ((X, y),) = seen
    np.testing.assert_array_equal(X, problem.X[np.concatenate([draw.train, pool])])
    assert [label is None for label in y] == [False] * len(draw.train) + [True] * len(pool)
    fitted = ZeroShotClassifier("precomputed", text_features=problem.text_features)
    fitted.fit(problem.X[draw.train], problem.y[draw.train])
    assert float(rows[1]["accuracy"]) == fitted.score(problem.X[rest], problem.y[rest])


def test_the_command_prints_a_table_and_keeps_progress_apart(features, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    out, image = tmp_path / "r.csv", tmp_path / "c.png"
    words = ["benchmark", str(features), "--methods", *QUICK, "--shots", "1", "4", "50", "--seeds", "2"]
    arguments = parser.parse_args([*words, "--out", str(out), "--plot", str(image)])
    arguments.run(arguments)
    printed = capsys.readouterr()
    assert printed.out.startswith("small, validation none")
    assert "benchmark 18/18" not in printed.out
    assert "failed: small 50 shots: ValueError" in printed.err
    assert image.stat().st_size > 10_000


def test_what_is_printed_is_what_was_asked_for(features, tmp_path, capsys):
    out, image = str(tmp_path / "r.csv"), tmp_path / "c.png"
    earlier = ["benchmark", str(features), "--methods", "zero-shot", "gda", "--shots", "1", "50", "--seeds", "1"]
    assert main([*earlier, "--out", out]) == 1
    assert f"results in {out}: 3 cells\n" in capsys.readouterr().err
    words = ["benchmark", str(features), "--methods", "zero-shot", "--shots", "1", "2", "--seeds", "2"]
    assert main([*words, "--out", out, "--plot", str(image)]) == 0
    printed = capsys.readouterr()
    assert f"results in {out}: 4 cells, 1 of them of an earlier run\n" in printed.err
    assert "failed" not in printed.err
    assert [line.split()[0] for line in printed.out.splitlines()] == ["small,", "method", "zero-shot"]
    assert len(read_results(out)) == 6
    assert image.stat().st_size > 10_000


def test_results_through_another_encoder_are_not_taken_for_those_asked_for(tmp_path, capsys):
    out = str(tmp_path / "r.csv")
    words = ["benchmark", "emoji", "--methods", "zero-shot", "--shots", "1", "--seeds", "1", "--out", out]
    assert main(words) == 0
    assert [row["encoder"] for row in read_results(out)] == ["tiny"]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--encoder", "ViT-B-32/openai"]) == 1
    assert re.search("results of emoji through the encoder 'tiny', not 'ViT-B-32/openai'", capsys.readouterr().err)


@pytest.mark.parametrize("wrong", [["--shots", "0"], ["--seeds", "-1"], ["--methods", "best"], ["--protocol", "x"]])
def test_wrong_arguments_are_refused(wrong, capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["benchmark", *wrong])
    assert wrong[0] in capsys.readouterr().err
