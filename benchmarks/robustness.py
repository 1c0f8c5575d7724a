"""Hard conditions: useless text, wrong labels, unbalanced classes."""

from dataclasses import dataclass, replace

import numpy as np
from ablation import NoScreening
from sklearn.utils import check_random_state

from skxma import XMAdapterClassifier
from skxma.baselines import GDAClassifier, LogisticRegressionProbe, TipAdapterFClassifier, ZeroShotClassifier
from skxma.benchmark._names import METHODS
from skxma.benchmark._problem import Problem
from skxma.benchmark._runner import run_benchmark

WRONG_SHARE = 0.2
NOISY_SHOTS = (4, 16)
FEWEST, MOST = 1, 16
NO_TEXT, SHUFFLED, RANDOM = "no text", "text shuffled", "text random"
WRONG, WRONG_IN_ONE = "wrong labels", "wrong labels in one class"
UNBALANCED = "unbalanced"
UNSCREENED = "xmadapter, no screening"
IMAGE_ONLY = {
    "logistic-regression": LogisticRegressionProbe(),
    "gda": GDAClassifier(),
    "nearest class mean": ZeroShotClassifier(),
}


def condition(problem, name, **changes):
    return replace(problem, name=f"{problem.name}: {name}", **changes)


def without_text(problem):
    """Class means stand for the text in every method that asks for some."""
    return condition(problem, NO_TEXT, text_features=None, class_names=None, vocabulary=None)


def with_useless_text(problem, kind, seed):
    """Every class has the text of another class, or a random direction; no vocabulary."""
    rng = np.random.default_rng(seed)
    text = np.asarray(problem.text_features)
    if kind == SHUFFLED:
        order = rng.permutation(len(text))
        useless = np.empty_like(text)
        useless[order] = text[np.roll(order, 1)]
    else:
        useless = rng.standard_normal(text.shape).astype(text.dtype)
    return condition(problem, kind, text_features=useless, vocabulary=None)


class WrongLabels:
    """For a few-shot classifier whose support labels are wrong in part.

    Some labels become another class's, each as likely as the others; `one_class` keeps that to one class.
    """

    one_class = False

    def fit(self, X, y, sample_weight=None):
        """Fit on labels of which some are wrong; the seed says which."""
        return super().fit(X, mislabel(y, self.random_state, self.one_class), sample_weight)


def mislabel(y, seed, one_class=False):
    """A copy of the labels with a share of them wrong, of all or of one class's.

    Parameters
    ----------
    y : ndarray of shape (n,)
    seed : int
    one_class : bool, default=False
    """
    rng = check_random_state(seed)
    classes = np.unique(y)
    pool = np.flatnonzero(y == rng.choice(classes)) if one_class else np.arange(len(y))
    y = y.copy()
    for i in rng.permutation(pool)[: max(1, round(WRONG_SHARE * len(pool)))]:
        y[i] = rng.choice(classes[classes != y[i]])
    return y


class NoisyXMAdapter(WrongLabels, XMAdapterClassifier):
    """The default on wrong labels."""


class NoisyNoScreening(WrongLabels, NoScreening):
    """The default on wrong labels, all of which it keeps."""


class NoisyTipAdapterF(WrongLabels, TipAdapterFClassifier):
    """Tip-Adapter-F on wrong labels."""


class NoisyInOneXMAdapter(NoisyXMAdapter):
    """The default on wrong labels in one class."""

    one_class = True


class NoisyInOneTipAdapterF(NoisyTipAdapterF):
    """Tip-Adapter-F on wrong labels in one class."""

    one_class = True


@dataclass(frozen=True)
class Unbalanced(Problem):
    """A problem whose classes have from 1 to as many images as the draw has, evenly spaced in the logarithm."""

    def draw(self, n_shots, protocol, seed):
        """Thin out a balanced draw; which class gets how many, the seed says."""
        whole = super().draw(n_shots, protocol, seed)
        classes = np.unique(self.y)
        counts = np.geomspace(FEWEST, n_shots, len(classes)).round().astype(int)
        rng = np.random.default_rng(seed)
        counts = dict(zip(classes, rng.permutation(counts), strict=True))
        train = rng.permutation(whole.train)
        kept = np.concatenate([train[self.y[train] == label][: counts[label]] for label in classes])
        return whole._replace(train=np.sort(kept))


def unbalanced(problem):
    held = {name: getattr(problem, name) for name in problem.__dataclass_fields__}
    return Unbalanced(**held | {"name": f"{problem.name}: {UNBALANCED}"})


def run_useless_text(problem, shots, seeds, out):
    run_benchmark([without_text(problem)], IMAGE_ONLY, shots=shots, seeds=seeds, out=out)
    for kind in (SHUFFLED, RANDOM):
        for seed in range(seeds):
            # each seed has its own useless text
            broken = with_useless_text(problem, kind, seed)
            run_benchmark([broken], ["xmadapter", "zero-shot"], shots=shots, seeds=[seed], out=out)


def run_wrong_labels(problem, shots, seeds, out):
    whole = {"xmadapter": NoisyXMAdapter(), UNSCREENED: NoisyNoScreening(), "tip-adapter-f": NoisyTipAdapterF()}
    in_one = {"xmadapter": NoisyInOneXMAdapter(), "tip-adapter-f": NoisyInOneTipAdapterF()}
    shots = [count for count in NOISY_SHOTS if count in shots]
    for name, methods in ((WRONG, whole), (WRONG_IN_ONE, in_one)):
        run_benchmark([condition(problem, name)], methods, shots=shots, seeds=seeds, out=out)


def run_robustness(problem, methods, shots, seeds, out):
    """All conditions on one data set; cells that are in the results file are not run again.

    Parameters
    ----------
    problem : Problem
        With ready embeddings and text features.
    methods : sequence of str
        Those that are compared on unbalanced classes, where there is room for them.
    shots : sequence of int
    seeds : int
    out : path-like
    """
    run_useless_text(problem, shots, seeds, out)
    run_wrong_labels(problem, shots, seeds, out)
    if MOST in shots:
        chosen = [name for name in METHODS if name in methods]
        run_benchmark([unbalanced(problem)], chosen, shots=[MOST], seeds=seeds, out=out)
