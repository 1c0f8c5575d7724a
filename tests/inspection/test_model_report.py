import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.baselines import GDAClassifier
from skxma.datasets import load_emoji


@pytest.fixture(scope="module")
def emoji_report():
    """A fit on files with a wrong label, an image in two classes, and a class of one image."""
    emoji = load_emoji(as_paths=True)
    rows = np.flatnonzero(np.isin(emoji.target, emoji.target_names[:4]))
    labels = emoji.target[rows].copy()
    wrong = int(np.flatnonzero(labels == emoji.target_names[0])[0])
    labels[wrong] = emoji.target_names[1]
    paths = [str(emoji.images[i]) for i in rows]
    only = int(np.flatnonzero(labels == emoji.target_names[3])[0])
    kept = [i for i in range(len(rows)) if labels[i] != emoji.target_names[3] or i == only]
    paths, labels = [paths[i] for i in kept], labels[kept]
    clf = XMAdapterClassifier("tiny", n_epochs=0).fit([*paths, paths[-1]], [*labels, emoji.target_names[0]])
    return clf, clf.report(suggested=["next.png"]), paths


def section(report, title):
    return next(one for one in report.sections if one.title == title)


def test_the_accuracy_is_that_of_the_fit(emoji_report):
    clf, report, _ = emoji_report
    low, high = clf.left_out_interval_
    line = section(report, "Accuracy").lines[0]
    assert f"{clf.left_out_score_:.1%}" in line
    assert f"{low:.1%} to {high:.1%}" in line


def test_an_image_of_two_classes_is_a_near_duplicate(emoji_report):
    _, report, paths = emoji_report
    pairs = [one.samples for one in section(report, "Near-duplicates").findings]
    assert (len(paths) - 1, len(paths)) in pairs
    assert "cosine 1.000" in section(report, "Near-duplicates").findings[0].words


def test_a_class_with_one_image_has_too_few(emoji_report):
    clf, report, _ = emoji_report
    assert f"{clf.classes_[3]} (1)" in section(report, "Classes with too few images").lines[0]


def test_confusions_are_those_of_the_left_out_answers(emoji_report):
    clf, report, paths = emoji_report
    given = np.append(clf.classes_[clf.image_cache_.labels[clf.sample_position_[: len(paths)]]], clf.classes_[0])
    lines = section(report, "Classes that are confused").lines
    # nothing is left of the class whose only image is left out
    wrong = (clf.left_out_label_ != given)[given != clf.classes_[-1]]
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == wrong.sum()


def test_text_and_page_say_the_same_and_the_page_shows_the_images(emoji_report, tmp_path):
    _, report, _ = emoji_report
    text, page = str(report), report.to_html()
    for one in report.sections:
        assert one.title in text
        assert f"<h2>{one.title}</h2>" in page
    assert "next.png" in text
    n_shown = sum(len(finding.samples) for one in report.sections for finding in one.findings)
    # all but next.png, of which there is no file
    assert page.count('src="data:image/png;base64,') == n_shown - 1 > 0
    assert "http" not in page
    report.save(tmp_path / "report.html")
    report.save(tmp_path / "report.txt")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == text + "\n"


def test_an_outlier_is_found():
    rng = np.random.default_rng(0)
    X = np.eye(16)[[0, 1] * 10] + 0.1 * rng.standard_normal((20, 16))
    X[7] = np.eye(16)[9]
    clf = XMAdapterClassifier("precomputed", vocabulary=None, n_epochs=0).fit(X, [0, 1] * 10)
    assert section(clf.report(), "Outliers").findings[0].samples == (7,)


def test_names_of_classes_are_text_not_markup():
    problem = make_problem(n_classes=2, shots=1)
    clf = GDAClassifier("precomputed").fit(problem.X, ["<b>a</b>", "c"])
    page = clf.report().to_html()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "second image" in str(clf.report())


def test_what_is_proved_of_sets_by_folds():
    problem = make_problem(n_classes=4, shots=5)
    clf = GDAClassifier("precomputed", text_features=problem.text, conformal="cross").fit(problem.X, problem.y)
    lines = section(clf.report(), "Prediction sets").lines
    assert lines[0].startswith("20 different images")
    # 1 - 0.2 - min(1.6 / 5, 0.75 / 6)
    assert "67.5%" in lines[1]


@pytest.mark.bad_input
def test_images_of_another_fit():
    problem = make_problem(n_classes=2, shots=2)
    clf = GDAClassifier("precomputed").fit(problem.X, problem.y)
    with pytest.raises(ValueError, match="1 images were given, and the model was fitted on 4"):
        clf.report(images=[None])


def test_names_with_newlines_or_a_terminals_commands_stay_in_their_lines():
    problem = make_problem(n_classes=3, shots=3)
    names = np.array(["heron\nforged line", "\x1b[2Jegret", "owl"])
    report = XMAdapterClassifier("precomputed").fit(problem.X, names[problem.y]).report(suggested=["a\nb.png"])
    for page in (str(report), report.to_html()):
        assert "\x1b" not in page
        assert r"\x1b[2Jegret" in page
        assert r"heron\nforged line" in page
        assert r"a\nb.png" in page
