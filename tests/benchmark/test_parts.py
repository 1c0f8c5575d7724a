"""Domain generalization and base-to-novel: what is learned, what is tested, and what the tables say of it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from problems import make_problem

from skxma.baselines import ZeroShotClassifier
from skxma.benchmark import format_table, read_results, run_benchmark, summarize
from skxma.benchmark._cell import run_cell
from skxma.benchmark._corruptions import CORRUPTIONS
from skxma.benchmark._names import BASE_TO_NOVEL, DOMAIN
from skxma.benchmark._parts import halves, load_parts
from skxma.benchmark._problem import Problem
from skxma.benchmark._results_file import append_row
from skxma.datasets import load_emoji
from skxma.datasets._coop import SHIFTS
from skxma.datasets._features import save_features


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    """A feature file of four emoji in five styles, with their images in the size of CIFAR's."""
    emoji = load_emoji()
    few = np.isin(emoji.target, emoji.target_names[:4])
    images = np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in emoji.images[few]])
    labels = np.searchsorted(emoji.target_names[:4], emoji.target[few])
    path = tmp_path_factory.mktemp("features") / "images.npz"
    nothing = np.ones((len(labels), 2))
    save_features(path, nothing, labels, class_names=emoji.target_names[:4].astype(str), images=images)
    return path


def parts_by_name(source, protocol, **how):
    return {part.name: part for part in load_parts(source, protocol, **how)}


def test_each_style_of_the_emoji_is_tested_with_what_was_learned_on_the_others():
    parts = parts_by_name("emoji", DOMAIN)
    styles = load_emoji().sets
    assert set(parts) == {f"emoji/{style}" for style in styles}
    for style in np.unique(styles):
        for shots in (1, 4):
            draw = parts[f"emoji/{style}"].draw(shots, DOMAIN, 0)
            assert len(draw.train) == 40 * shots
            assert style not in styles[draw.train]
            assert set(styles[draw.test]) == {style}
            assert len(draw.validation) == 0
    with pytest.raises(ValueError, match=r"has 4 images to learn from, fewer than 5 shots"):
        parts["emoji/noto"].draw(5, DOMAIN, 0)


def test_corrupted_images_are_tested_with_what_was_learned_on_other_clean_ones(image_file):
    parts = parts_by_name(image_file, DOMAIN)
    assert set(parts) == {f"images/{name}" for name in ("same", *CORRUPTIONS)}
    for name, part in parts.items():
        draw = part.draw(2, DOMAIN, 3)
        assert set(part.domains[draw.train]) == {"clean"}
        assert set(part.domains[draw.test]) == {"clean" if name.endswith("same") else name.rpartition("/")[2]}
        assert not np.isin(part.groups[draw.test], part.groups[draw.train]).any()
        assert len(draw.test) == 12
        assert part.encoder.model == "tiny"
    learned = {part.draw(2, DOMAIN, 3).train.tobytes() for part in parts.values()}
    assert len(learned) == 1


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=list(CORRUPTIONS))
def test_a_corrupted_image_is_still_that_image(corrupt, image_file):
    images = np.load(image_file)["images"]
    before = images.copy()
    found = corrupt(images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(found, corrupt(images))
    assert found.shape == images.shape
    assert found.dtype == np.uint8
    off = np.abs(found.astype(float) - images).mean()
    assert 0.5 < off < np.abs(images[::-1].astype(float) - images).mean()


def test_folders_of_domains_have_the_classes_that_all_share(tmp_path):
    emoji = load_emoji()
    for style, names in {"noto": "bear fox snail", "twemoji": "bear fox"}.items():
        for name in names.split():
            place = tmp_path / "zoo" / style / name
            place.mkdir(parents=True)
            image = emoji.images[(emoji.target == name) & (emoji.sets == style)][0]
            Image.fromarray(image).save(place / "1.png")
    parts = parts_by_name(tmp_path / "zoo", DOMAIN, encoder="tiny")
    assert set(parts) == {"zoo/noto", "zoo/twemoji"}
    draw = parts["zoo/noto"].draw(1, DOMAIN, 0)
    assert sorted(parts["zoo/noto"].y[draw.train]) == ["bear", "fox"]
    assert all("twemoji" in parts["zoo/noto"].X[i] for i in draw.train)
    with pytest.raises(ValueError, match="share 0 classes"):
        load_parts(tmp_path / "zoo" / "noto" / "bear", DOMAIN, encoder="tiny")


def test_imagenet_is_tested_on_the_shifts_that_are_there(tmp_path):
    for part in ("imagenet/images/train", "imagenet/images/val", "imagenet-adversarial/imagenet-a"):
        for wnid in "12":
            (tmp_path / part / f"n0{wnid}").mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (8, 8), (40 * i, 90, 10 * int(wnid))).save(tmp_path / part / f"n0{wnid}" / f"{i}.png")
    for folder in ("imagenet", SHIFTS["imagenet_a"].folder):
        (tmp_path / folder / "classnames.txt").write_text("n01 tench\nn02 goldfish\n")
    parts = parts_by_name("imagenet", DOMAIN, root=tmp_path, encoder="tiny")
    assert set(parts) == {"imagenet/same", "imagenet/a"}
    draws = [part.draw(1, DOMAIN, 0) for part in parts.values()]
    learned = [[part.X[i] for i in draw.train] for part, draw in zip(parts.values(), draws, strict=True)]
    assert all("imagenet/images/train" in path for paths in learned for path in paths)
    assert all("imagenet-a" in parts["imagenet/a"].X[i] for i in draws[1].test)


def test_what_has_no_domains_is_refused(image_file, tmp_path):
    problem = make_problem()
    save_features(tmp_path / "plain.npz", problem.X, problem.y)
    with pytest.raises(ValueError, match="lacks images to corrupt"):
        load_parts(tmp_path / "plain.npz", DOMAIN)
    with pytest.raises(ValueError, match=r"p has no domains\. Protocol 'domain' takes emoji"):
        load_parts(Problem("p", problem.X, problem.y), DOMAIN)
    with pytest.raises(ValueError, match="1 of 1 data sets cannot be read"):
        run_benchmark([tmp_path / "plain.npz"], ["zero-shot"], protocol=DOMAIN, out=tmp_path / "r.csv")


def of_five_classes(**changes):
    made = make_problem(n_classes=5, shots=6)
    return replace(Problem("p", made.X, made.y, text_features=made.text, class_names=list("edcba")), **changes)


def test_novel_classes_are_known_by_text_alone_and_tested_among_themselves():
    problem = of_five_classes()
    base, novel, everything = halves(problem)
    assert [part.name for part in (base, novel, everything)] == ["p/base", "p/novel", "p/all"]
    assert base.class_names == {0: "e", 1: "d", 2: "c"}
    assert novel.class_names == everything.class_names == dict(enumerate("edcba"))
    for part, tested in ((base, {0, 1, 2}), (novel, {3, 4}), (everything, {0, 1, 2, 3, 4})):
        draw = part.draw(2, BASE_TO_NOVEL, 0)
        assert set(problem.y[draw.train]) == {0, 1, 2}
        assert set(problem.y[draw.test]) == tested
        assert not np.isin(draw.test, draw.train).any()
        cosines = problem.X[draw.test] @ problem.text_features[sorted(tested)].T
        by_hand = np.array(sorted(tested))[cosines.argmax(1)] == problem.y[draw.test]
        cell = run_cell(part, ZeroShotClassifier("precomputed"), 2, 0, BASE_TO_NOVEL)
        assert cell.accuracy == pytest.approx(by_hand.mean())


def test_string_labels_are_names_and_views_of_an_image_stay_together():
    problem = of_five_classes()
    labels = np.array(list("abcde"))[problem.y]
    text = dict(zip("abcde", problem.text_features, strict=True))
    groups = np.arange(len(labels)) // 2
    base, novel, _ = halves(replace(problem, y=labels, class_names=None, text_features=text, groups=groups))
    assert list(base.class_names) == ["a", "b", "c"]
    draw = novel.draw(3, BASE_TO_NOVEL, 0)
    assert len(np.unique(groups[draw.train])) == 9
    draw = base.draw(2, BASE_TO_NOVEL, 0)
    assert len(draw.test) == 18 - 12
    with pytest.raises(ValueError, match="leave no image"):
        base.draw(3, BASE_TO_NOVEL, 0)


def test_without_text_there_are_no_novel_classes():
    with pytest.raises(ValueError, match="no text, by which alone novel classes are known"):
        list(halves(of_five_classes(text_features=None)))


def test_each_part_is_a_line_and_the_tables_put_them_together(tmp_path, capsys):
    out = tmp_path / "r.csv"
    methods = ["zero-shot", "tip-adapter"]
    run_benchmark([of_five_classes()], methods, shots=[1, 2], seeds=2, protocol=BASE_TO_NOVEL, out=out)
    rows = read_results(out)
    assert len(rows) == 3 * 2 * 2 * 2
    assert {row["dataset"] for row in rows} == {"p/base", "p/novel", "p/all"}
    table = format_table(summarize(out))
    means = {(row.dataset, row.method, row.shots): 100 * row.accuracy for row in summarize(out)}
    base, novel, everything = (means[f"p/{half}", "zero-shot", 1] for half in ("base", "novel", "all"))
    line = next(line for line in table.splitlines() if line.startswith("zero-shot"))
    harmonic = 2 * base * novel / (base + novel)
    assert line.split()[2:6] == [f"{value:.1f}" for value in (base, novel, harmonic, everything)]


def test_averages_are_of_parts_of_one_kind(tmp_path):
    path = tmp_path / "r.csv"
    for protocol, accuracies in {
        DOMAIN: {"a/same": 0.9, "a/blur": 0.5, "b/x": 0.3, "c/same": 0.7},
        BASE_TO_NOVEL: {"a/base": 0.8, "a/novel": 0.4, "a/all": 0.5, "b/base": 0.6, "b/novel": 0.2, "b/all": 0.3},
    }.items():
        for name, accuracy in accuracies.items():
            key = {"method": "m", "dataset": name, "shots": 1, "seed": 0, "protocol": protocol}
            append_row(path, key | {"accuracy": accuracy, "ece": 0.1})
    found = {(row.protocol, row.dataset): row.accuracy for row in summarize(path) if row.n_datasets > 1}
    assert found == pytest.approx(
        {
            (DOMAIN, "average/same"): 0.8,
            (DOMAIN, "average/shifted"): 0.4,
            (BASE_TO_NOVEL, "average/base"): 0.7,
            (BASE_TO_NOVEL, "average/novel"): 0.3,
            (BASE_TO_NOVEL, "average/all"): 0.4,
        }
    )
    table = format_table(summarize(path), per_dataset=False)
    assert "average/shifted, protocol domain" in table
    assert "70.0  30.0  42.0  40.0" in table


def test_the_command_takes_the_protocol(tmp_path, capsys):
    from skxma.cli.main import main

    out = str(tmp_path / "r.csv")
    words = ["benchmark", "emoji", "--methods", "zero-shot", "--shots", "1", "--seeds", "1", "--quiet", "--out", out]
    assert main([*words, "--protocol", "domain"]) == 0
    assert "emoji/twemoji, protocol domain" in capsys.readouterr().out
