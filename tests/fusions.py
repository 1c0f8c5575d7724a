"""The fusion of one metric, and its problem on some of the samples."""

from dataclasses import replace

from skxma._evidence.calibrated.fusion import leave_one_out_log_probability
from skxma._evidence.calibrated.newton import fit_fusions


def fit_fusion(problem, start=None):
    return fit_fusions([problem], [start])[0]


def log_probability_of(labels, scores, fusion):
    """Leave-one-out log-probability of the labels (N,)."""
    weights = scores.scores.new_tensor(fusion.weights)
    return leave_one_out_log_probability(scores, weights, labels) @ scores.node_weights


def take(problem, rows):
    scores = problem.scores
    part = replace(scores, scores=scores.scores[:, rows], own=scores.own[:, rows], singleton=scores.singleton[rows])
    per_sample = {name: getattr(problem, name)[rows] for name in ("labels", "loss_weights", "independence")}
    return replace(problem, scores=part, **per_sample)
