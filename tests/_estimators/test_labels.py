"""Labels of every container and kind, at every place where an estimator takes them."""

import unicodedata
import warnings

import numpy as np
import pytest
import torch
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, cross_val_score, learning_curve

import skxma
from skxma import XMAdapterClassifier
from skxma.baselines import TipAdapterClassifier
from skxma.datasets import load_emoji
from skxma.model_selection import FewShotSplit, UnlabeledInTraining, tune

pd = pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
CENTERS = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
X = np.repeat(CENTERS[:3], 4, axis=0) + RNG.normal(0, 0.2, (12, 8))
WORDS = ["cat"] * 4 + ["dog"] * 4 + ["owl"] * 4
NUMBERS = [0] * 4 + [1] * 4 + [2] * 4
COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


def classifier(**parameters):
    return XMAdapterClassifier("precomputed", **parameters)


def with_hole(labels, hole):
    return [labels[0], hole, *labels[2:]]


HOLES = {
    "list, None": with_hole(WORDS, None),
    "list, nan": with_hole(WORDS, float("nan")),
    "list, numpy nan": with_hole(WORDS, np.float64("nan")),
    "list, NA": with_hole(WORDS, pd.NA),
    "list, NaT": with_hole(WORDS, pd.NaT),
    "list of numbers": with_hole(NUMBERS, None),
    "tuple": tuple(with_hole(WORDS, None)),
    "object array": np.array(with_hole(WORDS, None), dtype=object),
    "float array": np.array(with_hole(NUMBERS, np.nan), dtype=float),
    "masked array": np.ma.array(NUMBERS, mask=[i == 1 for i in range(12)]),
    "masked list": list(np.ma.array(NUMBERS, mask=[i == 1 for i in range(12)])),
    "Series of objects": pd.Series(with_hole(WORDS, None), dtype=object),
    "Series of strings": pd.Series(with_hole(WORDS, pd.NA), dtype="string"),
    "Series of inferred strings": pd.Series(with_hole(WORDS, None)),
    "Series of integers": pd.Series(with_hole(NUMBERS, pd.NA), dtype="Int8"),
    "Series of floats": pd.Series(with_hole(NUMBERS, np.nan)),
    "Series of categories": pd.Series(with_hole(WORDS, None), dtype="category"),
    "frame of one column": pd.DataFrame({"label": with_hole(WORDS, None)}),
}


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("name", HOLES)
def test_a_missing_label_is_refused_in_every_container(name):
    y = HOLES[name]
    missing = r"^y\[1\] is (nan|None|<NA>|NaT): sample 1 has no label\. Remove it, or pass"
    with pytest.raises(ValueError, match=missing):
        classifier().fit(X, y)
    numbers = "number" in name or "masked" in name or "integer" in name or "float" in name
    fitted = classifier().fit(X, NUMBERS if numbers else WORDS)
    with pytest.raises(ValueError, match=missing):
        fitted.partial_fit(X, y)


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("name", HOLES)
def test_the_advice_on_a_missing_label_works(name):
    y = HOLES[name]
    with pytest.raises(ValueError, match=r"pass unlabeled_label=float\('nan'\)"):
        classifier().fit(X, y)
    clf = classifier(unlabeled_label=float("nan")).fit(X, y)
    assert len(clf.classes_) == 3
    assert clf.soft_labels_.shape == (1, 3)


def test_splits_and_tuning_refuse_a_missing_label():
    y = with_hole(WORDS, None)
    with pytest.raises(ValueError, match=r"y\[1\] is None"):
        next(FewShotSplit(random_state=0).split(X, y))
    with pytest.raises(ValueError, match=r"y\[1\] is None"):
        next(UnlabeledInTraining(cv=2, unlabeled_label="?").split(X, y))
    with pytest.raises(ValueError, match=r"y_validation\[1\] is None"):
        tune(classifier(), X, WORDS, X, y, grid={})


def test_a_missing_label_beside_a_marker_is_refused():
    with pytest.raises(ValueError, match=r"y\[1\] is None: sample 1 has no label.*mark it with -1"):
        classifier(unlabeled_label=-1).fit(X, with_hole(NUMBERS, None))
    assert classifier(unlabeled_label=-1).fit(X, with_hole(NUMBERS, -1)).classes_.tolist() == [0, 1, 2]


def test_strings_that_numpy_made_of_missing_labels_are_warned_of():
    y = np.array(with_hole(WORDS, np.nan))
    assert y.dtype.kind == "U"
    with pytest.warns(UserWarning, match=r"labels hold the text 'nan', which .* missing label.* class_names"):
        classifier().fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(class_names={label: label for label in ("cat", "dog", "owl", "nan")}).fit(X, y)


def test_labels_of_several_kinds_are_refused_in_every_container():
    mixed = [0, 0, 0, 0, 1, 1, 1, 1, "owl", "owl", "owl", "owl"]
    for y in (mixed, tuple(mixed), np.array(mixed, dtype=object), pd.Series(mixed)):
        with pytest.raises(ValueError, match=r"y holds labels of several kinds \(int, str\): 0 and 'owl'"):
            classifier().fit(X, y)
    # the advice
    assert classifier().fit(X, [str(label) for label in mixed]).classes_.tolist() == ["0", "1", "owl"]


def test_labels_of_another_kind_than_the_models_are_refused():
    clf = classifier().fit(X[:8], NUMBERS[:8])
    for change in (clf.partial_fit, lambda X, y: clf.partial_fit(X, y, classes=[0, 1, "owl"])):
        with pytest.raises(ValueError, match=r"several kinds|'owl' \(str\), but the model's classes are"):
            change(X[8:], WORDS[8:])
    with pytest.raises(ValueError, match="'owl'"):
        clf.drop(["owl"])
    assert clf.classes_.tolist() == [0, 1]
    marked = classifier(unlabeled_label=-1).fit(X, with_hole(NUMBERS, -1))
    with pytest.raises(ValueError, match="another kind"):
        marked.partial_fit(X[8:10], ["owl", -1])


def test_dropping_what_is_missing_is_refused():
    clf = classifier().fit(X, WORDS)
    for nothing in (None, [None], [float("nan")], ["cat", pd.NA]):
        with pytest.raises(ValueError, match=r"classes\[\d\] is .*no label"):
            clf.drop(nothing)


def test_a_marker_that_numpy_made_a_string_is_noticed():
    y = np.array(with_hole(WORDS, -1))
    with pytest.raises(ValueError, match=r"unlabeled_label=-1 is no string, and y holds the string '-1'"):
        classifier(unlabeled_label=-1).fit(X, y)
    # both remedies
    for clf, labels in ((classifier(unlabeled_label="-1"), y), (classifier(unlabeled_label=-1), with_hole(WORDS, -1))):
        assert clf.fit(X, labels).classes_.tolist() == ["cat", "dog", "owl"]


def test_a_marker_is_no_class_to_name():
    names = {0: "cat", 1: "dog", 2: "owl", -1: "anything"}
    with pytest.raises(ValueError, match=r"class_names names -1.*unlabeled_label"):
        classifier(unlabeled_label=-1, class_names=names).fit(X, with_hole(NUMBERS, -1))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "uint64", "float32"])
def test_an_unknown_label_never_becomes_a_class(dtype):
    y = np.repeat([0, 1, 2], 4).astype(dtype)
    strangers = -CENTERS[:3]
    for unknown in (None, -1, 999, 255):
        clf = classifier(false_rejection_rate=0.2, unknown_label=unknown).fit(X, y)
        refused = clf.open_set_score(strangers) > clf.reject_threshold_
        assert refused.any()
        assert set(clf.predict(strangers)[refused].tolist()) == {-1 if unknown is None else unknown}
        # the same type whether anything is refused or not
        assert clf.predict(X[:1]).dtype == clf.predict(strangers).dtype


def test_an_unknown_label_that_no_type_holds_beside_the_classes_is_refused():
    y = np.uint64(2**63) + np.repeat([0, 1, 2], 4).astype(np.uint64)
    with pytest.raises(ValueError, match=r"unknown_label=-1 .* no integer type"):
        classifier(false_rejection_rate=0.2).fit(X, y)
    clf = classifier(false_rejection_rate=0.2, unknown_label=0).fit(X, y)
    assert 0 in clf.predict(-CENTERS[:3])


def test_labels_of_class_names_widen_the_type():
    y = np.repeat([0, 1, 2], 4).astype(np.uint8)
    clf = classifier(class_names={0: "a", 1: "b", 2: "c", 300: "d"}).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 2, 300]
    text = RNG.normal(size=(300, 8))
    clf = classifier(class_names=[f"c{i}" for i in range(300)], text_features=text).fit(X, y.astype(np.int8))
    assert clf.classes_.tolist() == list(range(300))
    clf.partial_fit(X[:1], np.array([299]))
    assert clf.classes_.tolist() == list(range(300))


def test_large_hashes_keep_their_digits():
    for start in (10**18, 2**63 + 1):
        y = np.uint64(start) + np.repeat([0, 1, 2], 4).astype(np.uint64)
        labels = [start, start + 1, start + 2]
        clf = classifier(class_names=dict(zip(labels, "abc", strict=True))).fit(X, y)
        assert clf.classes_.tolist() == labels
        assert clf.class_names_ == ["a", "b", "c"]
        assert clf.partial_fit(X[:1], [start]).classes_.tolist() == labels
        assert clf.drop([start]).classes_.tolist() == labels[1:]
        assert clf.partial_fit(X[:1], [start]).classes_.tolist() == labels


def test_growing_widens_the_type_and_wraps_nothing():
    clf = classifier().fit(X[:8], np.repeat([0, 255], 4).astype(np.uint8))
    assert clf.partial_fit(X[8:], [-1] * 4).classes_.tolist() == [-1, 0, 255]


def test_a_frame_is_aligned_by_its_index():
    text = pd.DataFrame(CENTERS[[1, 2, 0]], index=["dog", "owl", "cat"])
    clf = classifier(text_features=text).fit(X, WORDS)
    np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)
    # names in the place of labels
    clf = classifier(text_features=text, class_names=["cat", "dog", "owl"]).fit(X, NUMBERS)
    np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)
    # labels themselves
    clf = classifier(text_features=text.set_axis([1, 2, 0])).fit(X, NUMBERS)
    np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)
    # an index that says nothing: rows as those of an array
    plain = pd.DataFrame(CENTERS[:3])
    for y in (NUMBERS, WORDS):
        clf = classifier(text_features=plain).fit(X, y)
        np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)


def test_sample_weights_stay_positional():
    weights = pd.Series([0.0, *[1.0] * 11], index=range(11, -1, -1))
    clf = classifier().fit(X, WORDS, sample_weight=weights)
    assert clf.sample_position_[0] == -1


def test_names_in_a_series_are_aligned_by_its_index():
    names = pd.Series(["egret", "heron", "ibis"], index=[1, 0, 2])
    assert classifier(class_names=names).fit(X, NUMBERS).class_names_ == ["heron", "egret", "ibis"]
    # with string labels the values are the labels, whatever rows they came from
    table = pd.DataFrame({"name": ["owl", "x", "cat", "dog"]})
    assert classifier(class_names=table["name"][[0, 2, 3]]).fit(X, WORDS).class_names_ == ["cat", "dog", "owl"]
    assert classifier(class_names=table).fit(X, WORDS).class_names_ == ["cat", "dog", "owl", "x"]


def test_a_table_whose_index_does_not_hold_the_labels_is_refused_and_the_advice_works():
    text = pd.DataFrame(CENTERS[:3], index=[7, 3, 5])
    for y in (WORDS, NUMBERS):
        with pytest.raises(ValueError, match=r"text_features is indexed by 7, 3, 5, which lacks .*\.to_numpy\(\)"):
            classifier(text_features=text).fit(X, y)
        clf = classifier(text_features=text.to_numpy()).fit(X, y)
        np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)
    names = pd.Series(["cat", "dog", "owl"], index=list("xyz"))
    with pytest.raises(ValueError, match=r"class_names is indexed by 'x', 'y', 'z', which lacks .*\.tolist\(\)"):
        classifier(class_names=names).fit(X, NUMBERS)
    assert classifier(class_names=names.tolist()).fit(X, NUMBERS).class_names_ == ["cat", "dog", "owl"]
    with pytest.raises(ValueError, match="rows of one label"):
        classifier(text_features=pd.DataFrame(CENTERS[:4], index=[0, 1, 2, 2])).fit(X, NUMBERS)


def test_a_table_that_could_be_meant_two_ways_is_refused():
    names = {2: "owl", 1: "dog", 0: "cat"}
    text = pd.DataFrame(CENTERS[[2, 1, 0]])
    with pytest.raises(ValueError, match=r"another order \(2, 1, 0\).*to_numpy\(\)"):
        classifier(class_names=names, text_features=text).fit(X, NUMBERS)
    clf = classifier(class_names=names, text_features=text.to_numpy()).fit(X, NUMBERS)
    np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("y", "parameters"),
    [
        (WORDS, {"text_features": pd.DataFrame(CENTERS[[1, 2, 0]], index=["dog", "owl", "cat"])}),
        (WORDS, {"text_features": pd.DataFrame(CENTERS[:3])}),
        (NUMBERS, {"text_features": pd.DataFrame(CENTERS[:3])}),
        (NUMBERS, {"class_names": pd.Series(["egret", "heron", "ibis"], index=[1, 0, 2])}),
        (WORDS, {"class_names": pd.Series(["owl", "cat", "dog"], index=[4, 9, 1])}),
        (WORDS, {"class_names": pd.DataFrame({"name": ["owl", "cat", "dog"]})}),
        (NUMBERS, {"class_names": pd.DataFrame({"name": ["owl", "cat"]}, index=[2, 1]).reindex([2, 1, 0])}),
    ],
)
def test_a_saved_model_keeps_what_its_tables_say(tmp_path, y, parameters):
    clf = classifier(**parameters).fit(X, y)
    clf.save(tmp_path / "model.skxma")
    loaded = skxma.load(tmp_path / "model.skxma").partial_fit(X[:1], y[:1])
    assert loaded.class_names_ == clf.class_names_
    np.testing.assert_array_equal(loaded.classes_, clf.classes_)
    if "text_features" in parameters:
        np.testing.assert_allclose(loaded.text_features_, CENTERS[:3], atol=1e-6)


def test_a_classifier_without_pandas_objects_is_as_before():
    clf = classifier(class_names=("owl", "cat", "dog"), text_features=CENTERS[[2, 0, 1]]).fit(X, WORDS)
    np.testing.assert_allclose(clf.text_features_, CENTERS[:3], atol=1e-6)


@pytest.fixture(scope="module")
def emoji():
    bunch = load_emoji(sets=["noto", "twemoji", "emojione"])
    keep = np.isin(bunch.target, ["bear", "crab", "fox", "snail"])
    return [image for image, k in zip(bunch.images, keep, strict=True) if k], bunch.target[keep]


def test_numbers_of_a_tool_are_explained_and_the_advice_gives_the_text_its_part(emoji):
    images, y = emoji
    clf = XMAdapterClassifier("tiny", vocabulary=None)
    with pytest.warns(UserWarning, match=r"cross_val_predict.*class_names=sorted\(set\(y\)\)"):
        without = cross_val_predict(clf, images, y, cv=3, method="predict_proba")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advised = clf.set_params(class_names=sorted(set(y)))
        found = cross_val_predict(advised, images, y, cv=3, method="predict_proba")
        folds = list(FewShotSplit(2, n_splits=1, random_state=0).split(images, y))
        train, test = folds[0]
        of_words = advised.fit([images[i] for i in train], y[train]).predict_proba([images[i] for i in test])
        of_numbers = advised.fit([images[i] for i in train], np.unique(y, return_inverse=True)[1][train]).predict_proba(
            [images[i] for i in test]
        )
    assert not np.allclose(found, without)
    np.testing.assert_allclose(of_words, of_numbers, atol=1e-6)


def test_labels_that_no_tool_made_are_not_laid_at_a_tools_door(emoji):
    images, y = emoji
    numbers = 10 + np.unique(y, return_inverse=True)[1]
    with pytest.warns(UserWarning, match=r"Pass class_names=\{label: name\}") as found:
        XMAdapterClassifier("tiny", vocabulary=None).fit(images, numbers)
    assert "cross_val_predict" not in str(found[0].message)


def test_names_by_label_do_not_suit_numbers_of_a_tool_and_the_error_says_what_does(emoji):
    images, y = emoji
    names = {label: f"a small {label}" for label in sorted(set(y))}
    clf = XMAdapterClassifier("tiny", vocabulary=None, class_names=names)
    with pytest.raises(ValueError, match=r"class_names=\[class_names\[label\] for label in sorted\(set\(y\)\)\]"):
        cross_val_predict(clf, images, y, cv=3, method="predict_proba")
    advised = clf.set_params(class_names=[names[label] for label in sorted(set(y))])
    assert cross_val_predict(advised, images, y, cv=3, method="predict_proba").shape == (len(y), 4)


def test_stacking_numbers_labels_and_takes_the_names():
    stack = StackingClassifier(
        [("ours", classifier(class_names=["cat", "dog", "owl"], text_features=CENTERS[:3]))],
        LogisticRegression(),
        cv=2,
    )
    assert stack.fit(X, WORDS).score(X, WORDS) == 1


def both_forms(y):
    return [DECOMPOSED if i % 2 and label == COMPOSED else label for i, label in enumerate(y)]


def test_two_unicode_forms_of_a_name_are_one_class():
    composed = [COMPOSED if label == "cat" else label for label in WORDS]
    mixed = both_forms(composed)
    assert len(set(mixed)) == 4
    with pytest.warns(UserWarning, match="two Unicode forms") as found:
        clf = classifier().fit(X, mixed)
    assert len(found) == 1
    assert clf.classes_.tolist() == sorted({COMPOSED, "dog", "owl"})
    assert clf.score(X, mixed) == 1
    # the advice: labels of one form beforehand
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier().fit(X, [unicodedata.normalize("NFC", label) for label in mixed])


@pytest.mark.filterwarnings("ignore:.*two Unicode forms")
def test_one_form_alone_stays_and_names_of_the_other_suit_it():
    y = [DECOMPOSED if label == "cat" else label for label in WORDS]
    names = {COMPOSED: "a coffee house", "dog": "dog", "owl": "owl"}
    text = {COMPOSED: CENTERS[0], "dog": CENTERS[1], "owl": CENTERS[2]}
    clf = classifier(class_names=names, text_features=text).fit(X, y)
    assert set(clf.classes_.tolist()) == {DECOMPOSED, "dog", "owl"}
    assert "a coffee house" in clf.class_names_
    # a second batch, and what is dropped, in the other form
    clf.partial_fit(X[:1], [COMPOSED])
    assert len(clf.classes_) == 3
    clf.drop([DECOMPOSED])
    assert clf.classes_.tolist() == ["dog", "owl"]
    assert len(clf.partial_fit(X[:1], [DECOMPOSED]).classes_) == 3


@pytest.mark.filterwarnings("ignore:.*two Unicode forms")
def test_splits_count_two_forms_as_one_class_and_scores_agree():
    mixed = both_forms([COMPOSED if label == "cat" else label for label in WORDS])
    train, _ = next(FewShotSplit(1, n_splits=1, random_state=0).split(X, mixed))
    assert len(train) == 3
    assert cross_val_score(classifier(), X, mixed, cv=FewShotSplit(2, n_splits=2, random_state=0)).tolist() == [1, 1]
    assert tune(classifier(), X, mixed, X, mixed, grid={}).score == 1


@pytest.mark.filterwarnings("ignore:.*two Unicode forms")
def test_names_of_both_forms_are_one_and_differing_ones_are_refused():
    y = [COMPOSED if label == "cat" else label for label in WORDS]
    both = {COMPOSED: "coffee house", DECOMPOSED: "coffee house", "dog": "dog", "owl": "owl"}
    assert "coffee house" in classifier(class_names=both).fit(X, y).class_names_
    with pytest.raises(ValueError, match=r"class_names has the key .* twice, in two Unicode forms"):
        classifier(class_names={**both, DECOMPOSED: "tea house"}).fit(X, y)


def test_classes_of_one_name_are_warned_of():
    y = ["hot_dog", "hot_dog", "hot dog", "hot_dog", *WORDS[4:]]
    with pytest.warns(UserWarning, match=r"'hot dog' and 'hot_dog'.*one class"):
        clf = classifier().fit(X, y)
    assert len(clf.classes_) == 4


def test_partial_fit_announces_classes():
    clf = classifier().partial_fit(X[:4], WORDS[:4], classes=["owl", "cat", "dog"])
    assert clf.classes_.tolist() == ["cat", "dog", "owl"]
    assert clf.predict_proba(X).shape == (12, 3)
    clf.partial_fit(X[4:8], WORDS[4:8])
    assert clf.classes_.tolist() == ["cat", "dog", "owl"]
    clf.partial_fit(X[8:], WORDS[8:], classes=np.array(["cat", "dog", "owl"]))
    np.testing.assert_allclose(clf.predict_proba(X), classifier().fit(X, WORDS).predict_proba(X), atol=1e-6)


def test_classes_of_which_nothing_is_known_are_named():
    with pytest.warns(UserWarning, match=r"Classes 'owl', 'yak' have neither images nor a text"):
        clf = classifier().partial_fit(X[:8], WORDS[:8], classes=["cat", "dog", "owl", "yak"])
    with pytest.warns(UserWarning, match=r"Class 'yak' has neither images nor a text, so nothing is known of it"):
        clf.partial_fit(X[8:], WORDS[8:])
    with pytest.warns(UserWarning, match=r"Class 3 has neither"):
        classifier(class_names=["cat", "dog", "owl", "yak"]).fit(X, np.repeat([0, 1, 2], 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = dict(zip(["cat", "dog", "owl"], np.eye(X.shape[1])[:3], strict=True))
        classifier(text_features=text).partial_fit(X[:8], WORDS[:8], classes=["cat", "dog", "owl"])


def test_announced_classes_are_known_by_their_text(emoji):
    images, y = emoji
    first = [i for i, label in enumerate(y) if label == "fox"]
    clf = XMAdapterClassifier("tiny", vocabulary=None)
    clf.partial_fit([images[i] for i in first], y[first], classes=np.unique(y))
    assert clf.class_names_ == ["bear", "crab", "fox", "snail"]
    named = XMAdapterClassifier("tiny", vocabulary=None, class_names=sorted(set(y)))
    named.fit([images[i] for i in first], y[first])
    np.testing.assert_array_equal(clf.predict_proba(images), named.predict_proba(images))


def test_labels_outside_the_announced_classes_are_refused():
    with pytest.raises(ValueError, match=r"y holds 'dog', which is not among classes"):
        classifier().partial_fit(X[:8], WORDS[:8], classes=["cat", "owl"])
    clf = classifier().partial_fit(X[:8], WORDS[:8], classes=["cat", "dog"])
    with pytest.raises(ValueError, match=r"y holds 'owl', which is not among classes"):
        clf.partial_fit(X[8:], WORDS[8:], classes=["cat", "dog"])
    with pytest.raises(ValueError, match=r"classes .*same as on the last call.* lacks 'dog'"):
        clf.partial_fit(X[8:], WORDS[8:], classes=["cat", "owl"])
    # either remedy: more classes, or none
    assert len(clf.partial_fit(X[8:], WORDS[8:], classes=["cat", "dog", "owl"]).classes_) == 3
    with pytest.raises(ValueError, match=r"classes\[1\] is None"):
        classifier().partial_fit(X[:8], WORDS[:8], classes=["cat", None])


def test_announced_classes_without_a_name_are_refused_where_names_are_given():
    clf = classifier(class_names={"cat": "cat", "dog": "dog"})
    with pytest.raises(ValueError, match=r"class_names has no entry for 'owl', which classes announces"):
        clf.partial_fit(X[:8], WORDS[:8], classes=["cat", "dog", "owl"])


def test_the_marker_of_no_label_is_not_announced():
    y = with_hole(NUMBERS, -1)
    clf = classifier(unlabeled_label=-1).partial_fit(X, y, classes=np.unique(y))
    assert clf.classes_.tolist() == [0, 1, 2]


def test_dropped_classes_stay_away_until_they_have_images_again():
    clf = classifier().partial_fit(X, WORDS, classes=["cat", "dog", "owl", "yak"])
    clf.drop(["cat"])
    assert clf.classes_.tolist() == ["dog", "owl", "yak"]
    assert clf.partial_fit(X[4:5], ["dog"]).classes_.tolist() == ["dog", "owl", "yak"]
    assert clf.partial_fit(X[:1], ["cat"]).classes_.tolist() == ["cat", "dog", "owl", "yak"]


@pytest.mark.parametrize("kind", [XMAdapterClassifier, TipAdapterClassifier])
def test_learning_curves_may_learn_incrementally(kind):
    rows = np.r_[X, X + 0.01]
    order = np.argsort(WORDS * 2, kind="stable")
    labels = np.array(WORDS * 2)[order]
    scores = learning_curve(
        kind("precomputed"),
        rows[order],
        labels,
        cv=3,
        train_sizes=[0.3, 1.0],
        exploit_incremental_learning=True,
        error_score="raise",
    )[2]
    assert scores[-1].mean() == 1


def test_tensors_are_labels():
    for y in (torch.as_tensor(NUMBERS), list(torch.as_tensor(NUMBERS))):
        assert classifier().fit(X, y).classes_.tolist() == [0, 1, 2]


def test_nothing_wraps_beyond_64_bits():
    y = [10**30 + i for i in NUMBERS]
    with pytest.raises(ValueError, match=r"beyond 64 bits.*str"):
        classifier().fit(X, y)
    assert len(classifier().fit(X, [str(label) for label in y]).classes_) == 3


def test_nothing_to_fit_is_called_so():
    with pytest.raises(ValueError, match="y is empty; give some labeled images"):
        XMAdapterClassifier("tiny").fit([], [])
