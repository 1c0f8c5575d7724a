import numpy as np
import pytest
from PIL import Image

from skxma import XMAdapterClassifier
from skxma.baselines import ZeroShotClassifier
from skxma.datasets import load_emoji
from skxma.inspection import FewShotCurveDisplay, FusionDisplay, HardSamplesDisplay, RetrievalDisplay
from skxma.inspection._draw import RIGHT, WRONG

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(scope="module")
def fitted():
    emoji = load_emoji()
    support = np.isin(emoji.sets, np.unique(emoji.sets)[:2])
    images = [image for image, kept in zip(emoji.images, support, strict=True) if kept]
    queries = [image for image, kept in zip(emoji.images, support, strict=True) if not kept][:60:15]
    clf = XMAdapterClassifier("tiny").fit(images, emoji.target[support])
    return clf, images, emoji.target[support], queries, emoji.target[~support][:60:15]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def texts_of(figure):
    """Boxes of all texts that show something, in pixels."""
    figure.canvas.draw()
    found = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in found]


def assert_no_overlap(figure):
    boxes = texts_of(figure)
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            inside = a.shrunk(0.9, 0.8).overlaps(b.shrunk(0.9, 0.8))
            assert not inside, f"{one!r} lies on {other!r}"


def test_retrieval_shows_what_kneighbors_and_predict_proba_say(fitted):
    clf, images, labels, queries, right = fitted
    display = RetrievalDisplay.from_estimator(clf, queries, right, support=images, n_neighbors=3)
    assert display.axes_.shape == (4, 5)
    image, text, found = clf.kneighbors(queries, 3)
    ax = display.axes_[1, 2]
    assert ax.get_title() == labels[found[1, 0]]
    assert f"{image[1, 0]:+.2f}" in ax.get_xlabel()
    assert f"“{labels[found[1, 0]]}” {text[1, 0]:+.2f}" in ax.get_xlabel()
    best = clf.predict_proba(queries).max(1)
    assert [max(bar.get_width() for bar in row[1].patches) for row in display.axes_] == pytest.approx(best)
    assert_no_overlap(display.figure_)


def test_embeddings_show_labels_in_the_place_of_images(fitted):
    clf, _, _, queries, _ = fitted
    display = RetrievalDisplay.from_estimator(clf, np.asarray(clf.encode(queries[:1])), n_classes=5)
    assert display.axes_.shape == (1, 6)
    assert not any(ax.images for ax in display.axes_.flat)
    assert_no_overlap(display.figure_)


@pytest.fixture
def on_disk(tmp_path, fitted):
    """The classifier of the same images as files, two of which have gone, and one of which is none any more."""
    _, images, labels, queries, right = fitted
    paths = [tmp_path / f"{i} {label}.png" for i, label in enumerate(labels)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    clf = XMAdapterClassifier("tiny").fit(list(map(str, paths)), labels)
    found = RetrievalDisplay.from_estimator(clf, queries, right).found
    gone, broken = found[0, 0], found[1, 0]
    paths[gone].unlink()
    paths[broken].write_bytes(b"")
    return clf, queries, right, found, (gone, broken)


def words_in(ax):
    return " ".join(text.get_text() for text in ax.texts).replace("\n", " ")


def test_images_come_from_the_paths_that_the_model_keeps_and_names_stand_for_those_that_are_gone(on_disk):
    clf, queries, right, found, missing = on_disk
    display = RetrievalDisplay.from_estimator(clf, queries, right)
    for row, samples in zip(display.axes_, found, strict=True):
        for ax, sample in zip(row[2:], samples, strict=True):
            assert bool(ax.images) is (sample not in missing)
            if sample in missing:
                assert words_in(ax).startswith(f"sample {sample} {sample} {clf.sample_names_[sample].split()[1][:3]}")
    assert_no_overlap(display.figure_)
    clf.sample_names_ = None
    display = RetrievalDisplay.from_estimator(clf, queries, right)
    assert words_in(display.axes_[0, 2]) == f"sample {found[0, 0]}"
    hard = HardSamplesDisplay.from_estimator(clf, n_samples=3)
    worst = np.argsort(-clf.hardness_, kind="stable")[:3]
    assert [words_in(ax) for ax in hard.axes_.flat] == [f"sample {i}" for i in worst]
    assert_no_overlap(hard.figure_)


def legend_of(figure):
    figure.canvas.draw()
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def test_colors_are_explained(fitted):
    clf, images, _, queries, right = fitted
    known = RetrievalDisplay.from_estimator(clf, queries, right, support=images)
    assert legend_of(known.figure_) == ["the class of the query", "another class"]
    unknown = RetrievalDisplay.from_estimator(clf, queries, support=images)
    assert legend_of(unknown.figure_) == ["the class that is answered", "another class"]
    answered = clf.predict(queries)
    for row, answer in zip(unknown.axes_, answered, strict=True):
        for ax in row[2:]:
            expected = RIGHT if ax.get_title() == answer else WRONG
            assert ax.title.get_color() == expected
    hard = HardSamplesDisplay.from_estimator(clf, images, n_samples=4)
    assert legend_of(hard.figure_) == ["the model agrees with the label", "the model suggests another class"]
    fusion = FusionDisplay.from_estimator(clf)
    assert legend_of(fusion.figure_) == ["text alone (zero-shot)", "text, adapted to the images", "support images"]
    assert "nearest support images" in [text.get_text() for text in fusion.axes_[0].get_yticklabels()]
    for display in (known, unknown, hard, fusion):
        assert_no_overlap(display.figure_)


def test_answers_that_are_at_hand_are_drawn_alike(fitted):
    clf, images, labels, queries, right = fitted
    of_estimator = RetrievalDisplay.from_estimator(clf, queries, right, support=images)
    of_answers = RetrievalDisplay.from_predictions(
        clf.kneighbors(queries, 4),
        clf.predict_proba(queries).tolist(),
        clf.classes_.tolist(),
        labels,
        right,
        queries=queries,
        support=images,
        texts=labels,
    )
    assert [text for text, _ in texts_of(of_answers.figure_)] == [text for text, _ in texts_of(of_estimator.figure_)]
    judged = HardSamplesDisplay.from_predictions(
        labels.tolist(), clf.left_out_label_, hardness=clf.hardness_, label_noise=clf.label_noise_.tolist(), n_samples=4
    )
    drawn = HardSamplesDisplay.from_estimator(clf, n_samples=4)
    assert [text for text, _ in texts_of(judged.figure_)] == [text for text, _ in texts_of(drawn.figure_)]


@pytest.mark.parametrize("by", ["hardness", "label_noise"])
def test_hard_samples_come_in_their_order(fitted, by):
    clf, images, labels, _, _ = fitted
    display = HardSamplesDisplay.from_estimator(clf, images, by=by, n_samples=8)
    assert display.axes_.shape == (2, 6)
    worst = np.argsort(-getattr(clf, f"{by}_"), kind="stable")[:8]
    assert [ax.get_title() for ax in display.axes_.flat[:8]] == [labels[i][:22] for i in worst]
    assert_no_overlap(display.figure_)
    with pytest.raises(ValueError, match="'hardness' or"):
        display.plot(by="age")


def test_fusion_shows_the_weights_and_what_was_trained(fitted):
    clf, images, labels, _, _ = fitted
    display = FusionDisplay.from_estimator(clf)
    assert len(display.axes_) == 1 + bool(clf.loss_curve_)
    lengths = [bar.get_width() for bar in display.axes_[0].patches]
    assert lengths == pytest.approx(list(np.average(display.weights, 0, display.shares)))
    assert display.names[0] == "zero_shot"
    assert f"alpha {clf.alpha_:.3g}" in display.figure_.get_suptitle()
    assert_no_overlap(display.figure_)
    paper = XMAdapterClassifier("tiny", evidence="paper", n_epochs=3).fit(clf.encode(images), labels)
    display = FusionDisplay.from_estimator(paper)
    assert len(display.axes_[0].lines[0].get_ydata()) == 3
    assert_no_overlap(display.figure_)


def test_the_curve_has_a_line_a_method_and_its_own_axes_or_the_callers(fitted):
    clf, images, labels, _, _ = fitted
    X = clf.encode(images)
    methods = {"XMAdapter": XMAdapterClassifier("tiny"), "zero-shot": ZeroShotClassifier("tiny")}
    display = FewShotCurveDisplay.from_estimator(methods, X, labels, shots=(1,), n_splits=2)
    assert len(display.lines_) == 2
    assert display.scores["XMAdapter"][1].mean() > display.scores["zero-shot"][1].mean()
    _, ax = matplotlib.pyplot.subplots()
    again = FewShotCurveDisplay.from_scores({"a": {1: [0.5, 0.7], 4: [0.8]}}, ax=ax)
    assert again.ax_ is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4"]
    np.testing.assert_allclose(np.asarray(again.lines_[0].lines[0].get_ydata(), dtype=float), [60, 80])
    assert_no_overlap(again.figure_)
