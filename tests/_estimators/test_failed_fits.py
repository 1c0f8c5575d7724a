"""A fit, a partial_fit or a drop that fails or is interrupted, wherever it does, leaves the estimator as it was."""

import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
import torch
from problems import make_problem

import skxma
from skxma import XMAdapterClassifier
from skxma._evidence.fitted import LeftOutPredictions
from skxma.baselines import APETClassifier, GDAClassifier, TransCLIPClassifier

PACKAGE = str(Path(skxma.__file__).parent)
PROBLEM = make_problem(n_classes=3, shots=2, dim=6, n_test=8)
# with one shot a fit tries few metrics, so that many fits can be made
X, Y = PROBLEM.X[::2], PROBLEM.y[::2]
MORE, MORE_Y = PROBLEM.X_test[::8], PROBLEM.y_test[::8]
pytestmark = pytest.mark.fault


class Interrupt(BaseException):
    """Nothing that the package could expect."""


def test_an_interrupted_fit_has_no_part_in_the_next(monkeypatch):
    X_all = np.r_[PROBLEM.X, PROBLEM.X_test]
    y_all = np.r_[PROBLEM.y, np.full(len(PROBLEM.X_test), -1)]
    common = {"encoder": "precomputed", "text_features": PROBLEM.text, "unlabeled_label": -1, "random_state": 0}
    clf = XMAdapterClassifier(**common, false_rejection_rate=0.25)

    def interrupt(self, rate):
        if rate == 0.25:
            raise KeyboardInterrupt
        return threshold(self, rate)

    threshold = LeftOutPredictions.rejection_threshold
    with monkeypatch.context() as patch:
        patch.setattr(LeftOutPredictions, "rejection_threshold", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X_all, y_all)
    assert set(vars(clf)) == set(clf.get_params())
    clf.set_params(evidence="paper", n_epochs=0).fit(X_all, y_all)
    fresh = XMAdapterClassifier(**common, evidence="paper", n_epochs=0).fit(X_all, y_all)
    assert clf.n_unlabeled_used_ == fresh.n_unlabeled_used_ == 0
    np.testing.assert_array_equal(clf.soft_labels_, fresh.soft_labels_)


def fitted(kind=XMAdapterClassifier, n_unlabeled=0, **parameters):
    clf = kind("precomputed", **{"text_features": PROBLEM.text, "random_state": 0, **parameters})
    return clf.fit(np.r_[X, PROBLEM.X_test[1 : 1 + n_unlabeled]], np.r_[Y, np.full(n_unlabeled, -1)])


def unfitted(**parameters):
    return XMAdapterClassifier("precomputed", text_features=PROBLEM.text, random_state=0, **parameters)


# without the training of the residual, which takes most of the time of a small fit
QUICK = {"n_epochs": 0}
POOL = {"unlabeled_label": -1, "n_unlabeled": 9}
SCENARIOS = {
    "first fit": (lambda: unfitted(), lambda clf: clf.fit(X, Y)),
    "fit": (lambda: fitted(text_features=None), lambda clf: clf.fit(X[:, :4], Y)),
    "partial_fit": (lambda: fitted(**QUICK), lambda clf: clf.partial_fit(MORE, MORE_Y)),
    "drop": (lambda: fitted(**QUICK), lambda clf: clf.drop(1)),
    "drop, then partial_fit": (lambda: fitted(**QUICK).drop(1), lambda clf: clf.partial_fit(X, Y)),
    "paper": (lambda: fitted(evidence="paper", n_epochs=2), lambda clf: clf.partial_fit(MORE, MORE_Y)),
    "to the paper's form": (
        lambda: fitted(**POOL, **QUICK),
        lambda clf: clf.set_params(evidence="paper", n_epochs=1).fit(X, Y),
    ),
    "pool": (
        lambda: fitted(**POOL, **QUICK, false_rejection_rate=0.1),
        lambda clf: clf.partial_fit(MORE, [-1, 1, 2]),
    ),
    "first fit with a pool": (
        lambda: unfitted(**QUICK, unlabeled_label=-1, false_rejection_rate=0.1),
        lambda clf: clf.fit(np.r_[PROBLEM.X, MORE], np.r_[PROBLEM.y, np.full(3, -1)]),
    ),
    "open set": (lambda: fitted(**QUICK), lambda clf: clf.set_params(false_rejection_rate=0.2).fit(X, Y)),
    "warm start": (lambda: fitted(**QUICK, warm_start=True), lambda clf: clf.fit(MORE, MORE_Y)),
    "the paper's warm start": (
        lambda: fitted(evidence="paper", n_epochs=2, warm_start=True),
        lambda clf: clf.fit(MORE, MORE_Y),
    ),
    "a rival": (lambda: fitted(GDAClassifier), lambda clf: clf.partial_fit(MORE, MORE_Y)),
    "a trained rival": (lambda: fitted(APETClassifier, n_epochs=2), lambda clf: clf.fit(MORE, MORE_Y)),
    "a rival with a pool": (lambda: fitted(TransCLIPClassifier, **POOL), lambda clf: clf.drop(0)),
}


@dataclass
class FollowedCalls:
    """Follows the calls of the package's functions, and passes the index and the frame of each to a function."""

    reach: Callable
    n_calls: int = 0

    def __call__(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.n_calls += 1
            self.reach(self.n_calls - 1, frame)

    def __enter__(self):
        self.trace, self.hook, self.threads = sys.gettrace(), sys.unraisablehook, torch.get_num_threads()
        self.limits = threadpoolctl.threadpool_limits().__enter__()
        sys.unraisablehook = self.drop
        sys.settrace(self)
        return self

    def __exit__(self, *error):
        sys.settrace(self.trace)
        sys.unraisablehook = self.hook
        # a context that is interrupted while it ends puts nothing back, nor its count of the limits of this thread
        if hasattr(threadpoolctl, "CONTROLLING_THREAD_OWNERSHIP"):
            threadpoolctl.CONTROLLING_THREAD_OWNERSHIP.count = 1
        self.limits.__exit__(*error)
        torch.set_num_threads(self.threads)

    def drop(self, unraisable):
        """Keep silent about an interrupt while an object is finalized, where Python drops errors."""
        if unraisable.exc_type is not Interrupt:
            self.hook(unraisable)


def place(frame):
    """File and name of the function that a frame runs."""
    return f"{frame.f_code.co_filename}:{frame.f_code.co_name}"


def some_calls(calls):
    """The last calls of some of the functions, and the last calls of all, where results are stored."""
    last = sorted({name: k for k, name in enumerate(calls)}.values())
    return sorted({*last[:: max(1, len(last) // 12)], *range(max(0, len(calls) - 4), len(calls))})


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_failure_at_some_calls_leaves_the_estimator_and_later_fits_as_they_were(scenario):
    make, change = SCENARIOS[scenario]
    clf = make()
    parameters = {name: value for name, value in vars(clf).items() if name in clf.get_params()}
    before = dict(vars(clf))
    answers = clf.predict_proba(PROBLEM.X_test) if hasattr(clf, "classes_") else None
    other, calls = make(), []
    with FollowedCalls(lambda k, frame: calls.append(place(frame))):
        change(other)
    for at in some_calls(calls):

        def interrupt(k, frame, at=at):
            if k == at:
                raise Interrupt

        try:
            with FollowedCalls(interrupt):
                change(clf)
        except Interrupt:
            clf.set_params(**parameters)
            assert set(vars(clf)) == set(before), calls[at]
            assert all(vars(clf)[name] is value for name, value in before.items()), calls[at]
        else:
            # there Python drops errors, as when an object is finalized
            clf = make()
            before = dict(vars(clf))
    if answers is not None:
        np.testing.assert_array_equal(clf.predict_proba(PROBLEM.X_test), answers)
    change(clf)
    X_test = PROBLEM.X_test[:, : clf.n_features_in_]
    np.testing.assert_array_equal(clf.predict_proba(X_test), change(make()).predict_proba(X_test))


def call_site(frame):
    """The line that called the function of a frame, and that function."""
    caller = frame.f_back
    return caller.f_code, caller.f_lineno, frame.f_code


def describe_changes(clf, before, state):
    """Names of the attributes that are not what they were, or the fact that a value was changed in place."""
    now = vars(clf)
    changed = sorted(name for name in {*before, *now} if name not in now or now[name] is not before.get(name, now))
    if not changed and pickle.dumps(now) != state:
        changed = ["a value, in place"]
    return ", ".join(changed)


@contextmanager
def children_end_here(report):
    """End the processes that were forked within, with a status and a report of what failed in them."""
    parent = os.getpid()
    try:
        yield
    except BaseException:
        if os.getpid() != parent:
            with report.open("a") as file:
                traceback.print_exc(file=file)
            os._exit(1)
        raise
    if os.getpid() != parent:
        os._exit(0)


# most calls of the others are calls of these too
EACH_TIME = ("first fit", "partial_fit", "paper", "first fit with a pool", "a rival")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize(
    "scenario",
    [pytest.param(name, marks=pytest.mark.slow if name in EACH_TIME else pytest.mark.weekly) for name in SCENARIOS],
)
def test_a_failure_at_every_call_leaves_the_estimator_as_it_was(scenario, tmp_path):
    """Interrupt one fit at the first call of each function of the package from each line that calls it.

    Each failure happens in a forked process, so that the fit itself runs once; the process compares the attributes by
    identity and their values as a pickle. Whether later fits in the same process are as they were is tested above, for
    fewer calls.
    """
    make, change = SCENARIOS[scenario]
    # what a process does once, such as an import, is done before
    change(make())
    clf, sites = make(), []
    with FollowedCalls(lambda k, frame: sites.append(call_site(frame))):
        change(clf)
    chosen = {sites.index(site) for site in set(sites)}

    clf, statuses = make(), []
    parameters = {name: value for name, value in vars(clf).items() if name in clf.get_params()}
    before, state = dict(vars(clf)), pickle.dumps(vars(clf))
    report = tmp_path / "report.txt"

    def fork(k, frame):
        if k in chosen:
            with warnings.catch_warnings():
                # the threads of pytest-xdist hold nothing that the child needs
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                raise Interrupt(place(frame))
            statuses.append(os.waitpid(child, 0)[1])

    with children_end_here(report):
        try:
            with FollowedCalls(fork):
                change(clf)
        except Interrupt as interrupt:
            clf.set_params(**parameters)
            if changed := describe_changes(clf, before, state):
                raise AssertionError(f"{interrupt} left changes behind: {changed}") from None
    if any(statuses):
        pytest.fail(report.read_text()[:4000], pytrace=False)
    assert len(statuses) == len(chosen)
