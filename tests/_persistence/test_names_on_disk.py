"""The names in a model file are those of its format: the table holds all of them, and no class or attribute is one."""

import json
import re
from contextlib import contextmanager
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from problems import make_problem

import skxma
from skxma import XMAdapterClassifier, baselines, encoder
from skxma._evidence.calibrated.model import CalibratedModel
from skxma._evidence.paper.model import PaperModel
from skxma._evidence.semi_supervised.model import PooledModel
from skxma._evidence.semi_supervised.pool import Pool
from skxma._persistence import format_1, model_file, names_on_disk
from skxma._persistence.names_on_disk import ENCODERS, ESTIMATORS, RECORDS
from skxma._persistence.packing import Unpacker
from skxma._persistence.record import type_on_disk
from skxma._statistics import Calibration
from skxma.benchmark import METHODS
from skxma.caches import ImageCache

FIXTURES = Path(__file__).parents[1] / "fixtures"
PUBLIC = [XMAdapterClassifier, *(getattr(baselines, name) for name in baselines.__all__)]


def estimator_class(record):
    classes = [*PUBLIC, *(getattr(encoder, record.path.partition(":")[2]) for record in ENCODERS.values())]
    return {cls.__name__: cls for cls in classes}[record.path.partition(":")[2]]


def dataclasses_of(*hints):
    """Dataclasses that type hints name, and those of their fields in turn."""
    found = set()

    def visit(hint):
        if is_dataclass(hint) and hint not in found:
            found.add(hint)
            for inner in get_type_hints(hint).values():
                visit(inner)
        for argument in get_args(hint):
            visit(argument)

    for hint in hints:
        visit(hint)
    return found


def test_every_class_that_a_model_consists_of_has_a_name_on_disk():
    parts = CalibratedModel, PaperModel, PooledModel, Pool, Calibration
    assert {record.cls for record in RECORDS.values()} == dataclasses_of(*parts)


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda record: record.name)
def test_every_field_of_a_record_has_a_name_on_disk(record):
    assert sorted(record.fields.values()) == sorted(one.name for one in fields(record.cls) if one.init)


@pytest.mark.parametrize("record", [*ENCODERS.values(), *ESTIMATORS.values()], ids=lambda record: record.name)
def test_every_parameter_of_an_estimator_has_a_name_on_disk(record):
    parameters = set(estimator_class(record)._get_param_names()) - {"encoder"}
    assert sorted(record.parameters.values()) == sorted(parameters)
    assert len(set(record.fitted.values())) == len(record.fitted)


def test_every_public_classifier_has_the_name_on_disk_that_the_benchmark_calls_it_by():
    assert {name: record.path for name, record in ESTIMATORS.items()} == METHODS
    assert {estimator_class(record) for record in ESTIMATORS.values()} == set(PUBLIC)


def names_in(state):
    """Names of the estimator, of its parts, and of all records and their fields."""
    found = {state["estimator"], *state["fitted"]}

    def note(value):
        if value.get("kind") == "record":
            found.update([value["type"], *value["fields"]])
        return value

    json.loads(json.dumps(state), object_hook=note)
    return found


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*-format2.skxma")), ids=lambda path: path.stem)
def test_no_name_of_a_class_is_in_a_file(path):
    names = names_in(model_file.read(path)[0])
    classes = {record.cls.__name__ for record in RECORDS.values()} | {cls.__name__ for cls in PUBLIC}
    assert not names & classes
    assert "image_cache/1" in names


def test_names_on_disk_stay_as_files_have_them():
    """Change this list for a new record alone: a name that was written once is read for ever."""
    assert {type_on_disk(record): sorted(record.fields) for record in RECORDS.values()} == {
        "calibration/1": ["labels", "log_proba", "models", "scores", "simulated", "weights"],
        "calibrated_evidence/2": [
            "alpha",
            "bases",
            "beta",
            "components",
            "further",
            "fusion_ratio",
            "image_cache",
            "key_clusters",
            "logit_scale",
            "residual",
            "text_cache",
        ],
        "centered_basis/1": ["basis", "mean"],
        "class_statistics/1": ["center", "means", "present", "projection", "spreads"],
        "further_metric/1": ["basis", "beta", "block", "gaussian", "scale", "weights"],
        "image_cache/2": ["blocks", "features", "groups", "keys", "labels", "n_classes", "weight_unit", "weights"],
        "key_clusters/1": ["order", "starts"],
        "metric_component/2": [
            "averaging_weight",
            "basis",
            "beta",
            "gaussian",
            "loss",
            "metric",
            "prior",
            "scale",
            "text_only",
            "weights",
        ],
        "paper_evidence/1": [
            "alpha",
            "beta",
            "fusion_ratio",
            "image_cache",
            "key_clusters",
            "logit_scale",
            "text_cache",
            "text_features",
        ],
        "pooled_evidence/1": ["base", "statistics", "weights"],
        "projection/1": ["bias", "hidden", "weight"],
        "text_cache/1": ["image_to_text", "keys", "metanet", "modality_means"],
        "text_only_fusion/1": ["centered_text", "deviations", "zero_shot"],
        "unlabeled_pool/1": ["keys", "weights"],
    }


def test_the_page_on_model_files_names_every_field():
    page = (Path(__file__).parents[2] / "docs" / "model_file.md").read_text(encoding="utf-8")
    described = {}
    for name, listed in re.findall(r"^\| `(\w+)/1`[^|]*\|[^|]*\|(.*)\|$", page, re.MULTILINE):
        described[name] = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", listed)))
    assert described == {name: set(record.fields) for name, record in RECORDS.items()}


def test_every_name_of_format_1_has_one_of_today():
    assert set(format_1._RECORDS.values()) == {f"{name}/1" for name in RECORDS} - {
        "calibration/1",
        "further_metric/1",
        "text_only_fusion/1",
    }
    younger = {"rla/1", "stat-a/1", "timo/1"}
    assert set(format_1._ESTIMATORS.values()) == {type_on_disk(record) for record in ESTIMATORS.values()} - younger
    for old, renamed in format_1._FIELDS.items():
        assert set(renamed.values()) <= set(RECORDS[format_1._RECORDS[old].partition("/")[0]].fields)


def test_later_fields_raise_the_version_of_a_record_only_where_they_hold_something():
    labels, weights = np.arange(2), np.ones(2, dtype=np.float32)
    of_one = ImageCache(np.eye(2, dtype=np.float32), labels, weights, 2)
    record = RECORDS["image_cache"]
    written, names = record.written(of_one)
    assert written == "image_cache/1"
    assert "blocks" not in names
    written, names = record.written(replace(of_one, blocks=(1, 1)))
    assert written == "image_cache/2"
    assert "blocks" in names


def renamed(record):
    """The record of a class that holds the same under other names."""
    hints = get_type_hints(record.cls)
    members = [(f"other_{name}", hints[name], field(default=None)) for name in record.fields.values()]
    cls = make_dataclass("Renamed", members)
    return replace(record, cls=cls, fields={name: f"other_{attribute}" for name, attribute in record.fields.items()})


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.skxma")), ids=lambda path: path.stem)
def test_files_are_read_into_a_class_of_another_name_with_other_attributes(path):
    state, arrays = model_file.read(path)
    records = RECORDS | {"centered_basis": renamed(RECORDS["centered_basis"])}
    records["image_cache"] = renamed(records["image_cache"])
    cache = Unpacker(arrays, records).unpack(state["fitted"]["image_cache"], "it")
    assert type(cache).__name__ == "Renamed"
    np.testing.assert_array_equal(cache.other_keys, skxma.load(path).image_cache_.keys)


def test_an_estimator_that_is_renamed_with_its_parameters_and_attributes_still_loads(tmp_path, monkeypatch):
    problem = make_problem(n_classes=3, shots=2, dim=8)
    clf = baselines.TipAdapterClassifier("precomputed", text_features=problem.text, alpha=0.5)
    clf.fit(problem.X, problem.y).save(tmp_path / "model.skxma")
    expected = clf.predict_proba(problem.X_test)

    class Renamed(baselines.TipAdapterClassifier):
        def __init__(self, encoder="precomputed", *, ratio=1.0, **others):
            super().__init__(encoder, alpha=ratio, **others)

        def _validate_params(self):
            pass

    record = ESTIMATORS["tip-adapter"]
    changed = replace(
        record,
        path="skxma.baselines:Renamed",
        parameters=record.parameters | {"alpha": "ratio"},
        fitted=record.fitted | {"n_trained": "n_samples_trained_"},
    )
    monkeypatch.setattr(baselines, "Renamed", Renamed, raising=False)
    monkeypatch.setitem(names_on_disk.ESTIMATORS, "tip-adapter", changed)
    loaded = skxma.load(tmp_path / "model.skxma")
    assert type(loaded) is Renamed
    assert loaded.alpha == 0.5
    assert loaded.n_samples_trained_ == clf.n_trained_
    np.testing.assert_array_equal(loaded.predict_proba(problem.X_test), expected)


@contextmanager
def other_names(classes):
    names = [cls.__name__ for cls in classes]
    for cls in classes:
        cls.__name__ = f"Other{cls.__name__}"
    try:
        yield
    finally:
        for cls, name in zip(classes, names, strict=True):
            cls.__name__ = name


@pytest.mark.parametrize("evidence", ["calibrated", "paper"])
def test_a_model_is_saved_and_loaded_while_every_class_has_another_name(evidence, tmp_path):
    problem = make_problem(n_classes=3, shots=2, dim=8)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, evidence=evidence, n_epochs=2, random_state=0)
    clf.fit(problem.X, problem.y).save(tmp_path / "before.skxma")
    expected = clf.predict_proba(problem.X_test)
    with other_names([XMAdapterClassifier, *(record.cls for record in RECORDS.values())]):
        clf.save(tmp_path / "after.skxma")
        loaded = skxma.load(tmp_path / "before.skxma")
    assert model_file.read(tmp_path / "before.skxma")[0] == model_file.read(tmp_path / "after.skxma")[0]
    np.testing.assert_array_equal(loaded.predict_proba(problem.X_test), expected)
