"""Every setting of the calibrated evidence, and the state that a warm start needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skxma._statistics import SingletonPrior


@dataclass(frozen=True)
class WarmStart:
    """Solution of an earlier fit, from which the next one starts.

    Attributes
    ----------
    experts : tuple of str
        Names of the J experts.
    relative_weights : dict from metric (root name, ρ) to ndarray of shape (J,)
        Expert weights over their priors, in each metric that the fit chose.
    noise_rate : float
    """

    experts: tuple[str, ...]
    relative_weights: dict[tuple[str, float | None], NDArray[np.float64]]
    noise_rate: float


@dataclass(frozen=True)
class ScalePrior:
    """Prior of the factors s_z of zero-shot and s_r of the other experts, on a grid of their logarithms.

    With probability `native` zero-shot has about the encoder's own scale; otherwise the encoder is foreign to the
    images, and any smaller scale is as likely as another. Chosen on tasks of 2 to 80 classes that
    ``benchmarks/priors.py`` draws.
    """

    native: float = 0.35
    """Probability that the encoder knows such images. A half is better by .2 points where it does, and worse by .06
    nats on pairs of classes that it does not know."""

    native_std: float = 0.5
    """Deviation of log s_z for an encoder that does."""

    least_log: float = -6.0
    """Least log s_z for one that does not: e⁻⁶ of CLIP's scale is no zero-shot at all."""

    rest_std: float = 3.0
    """Deviation of log s_r."""

    largest_log: float = 1.0
    """Largest logarithm of both."""

    least_rest_log: float = -3.0
    """Least log s_r."""

    n_zero_shot: int = 11
    """Nodes of log s_z."""

    n_rest: int = 9
    """Nodes of log s_r."""

    factor_ridge: float = 1e-4
    """Pull to 0 of the log factors that stand for the average, in nats of the mean divergence: it decides where the
    logits do not tell one factor from the other, and was not tuned."""


@dataclass(frozen=True)
class CalibrationConfig:
    """Settings of a calibrated fit; numbers without a unit are dimensionless. Steps are those of docs/method.md.

    The first group are the caller's: None is learned. The priors, penalties, shrinkages and limits of the others were
    chosen on a dozen feature sets of ViT-B/32, among them those of docs/results.md and variants of them with weak,
    shuffled and random text; expect slight optimism there. A fit itself sees nothing but its support set.
    """

    alpha: float | None = None
    """Residual ratio: mean weight of the cache experts over their priors; 1 is the prior."""

    beta: float | None = None
    """Sharpness of the image cache, per unit of cosine; None takes `beta_times_sigma` / σ."""

    fusion_ratio: float | None = None
    """Image experts' share of the cache experts' weights, from 0 to 1."""

    logit_scale: float = 100.0
    """Logits per unit of zero-shot cosine: CLIP's own learned temperature, which the encoder reports."""

    text_shapes_metric: bool = True
    """False tries no root of class texts: the encoder says that images differ along other directions than texts."""

    hard_sample_weight: float = 0.0
    """λ: a sample on which image and text disagree most has 1 + λ times the loss weight of one on which they agree."""

    n_epochs: int = 0
    """Most passes over the support set when the residual is trained; 0 trains none."""

    warm_start: WarmStart | None = None
    """With an earlier solution only the metrics are tried that it chose, each from its weights."""

    # for ablations
    drop_wrong_labels: bool = True
    """False sets no sample aside (step 7)."""

    learns_text_only: bool = True
    """False places classes without images as if the others did not tell where."""

    leave_one_out: bool = True
    """False lets samples retrieve themselves, which shows what leaving them out is worth."""

    # step 1: metric
    vocabulary_shrinkage: float = 0.01
    """r of the vocabulary's root B: share of the identity in the covariance of the words."""

    class_text_shrinkage: float = 0.1
    """r of the class texts' root B; larger than a vocabulary's, as C texts have a covariance of rank C − 1 at most."""

    min_text_alignment: float = 1.3
    """Least `covariance_alignment` of texts whose root is tried; texts without meaning have 1.0 ± 0.2."""

    halves_one_shot_text: bool = True
    """Where no class has two samples, average the metrics of class texts and of none; False takes the texts' alone.
    Texts shape the metric well in CLIPs of hundreds of millions of images and badly in small encoders, and nothing
    tells the two apart: the mean is better for 12 of 13 kinds of tasks, by 1.2 points on average
    (``benchmarks/priors.py FOLDER text-metric --images DIR``)."""

    shrinkages: tuple[float, ...] = (0.1, 0.3, 0.6, 0.9, 1.0)
    """ρ of the whitenings that are tried: the share of the identity in the within-class scatter; 1 whitens nothing."""

    # step 3: experts
    beta_times_sigma: float = 2.0
    """β in units of 1/σ, σ the deviation of the cosines between keys in the metric."""

    ridge: float = 1.0
    """λ of the ridge regression of Img2Txt, in squared lengths: as much as one sample of unit norm per direction."""

    singleton: SingletonPrior = field(default_factory=SingletonPrior)
    """Step 6: prior of the cosine that the only sample of a class would have to a second one."""

    imageless_deviations: float = 1.5
    """Deviations above the row's mean at which the experts of images place a class without images, unless the other
    classes tell another number. Of .5 to 3 tried on the CIFAR files, ImageNet tasks and emoji with half of the classes
    known by text alone, 1.5 has the best accuracy."""

    # step 4: fusion. Priors are logits per unit of score; zero-shot's is `logit_scale`
    text_cache_prior: float = 10.0
    """Prior weight of the text cache's cosine: a tenth of CLIP's own scale."""

    centered_text_prior: float = 5.0
    """Prior weight of the centered cosine, which is 20 points better than the plain one where text is biased."""

    image_cache_prior: float = 0.6
    """Prior weight of the image cache's log evidence."""

    prototype_prior: float = 0.3
    """Prior weight of the cosine to the class mean, times σ: that cosine is measured in deviations."""

    gaussian_prior: float = 1.0
    """Prior weight of the Gaussian score, which is divided by its deviation already."""

    max_weight_penalty: float = 0.02
    """Upper bound of the pull of the weights to their priors, in nats of the mean loss."""

    weight_penalty_samples: float = 1.0
    """The pull counts as so many samples: held against a mean loss, a constant one outweighed hundreds of them."""

    weight_penalty_per_shot: float = 0.04
    """The pull is at least this divided by the shots per class: ImageNet at few shots lost half a point without."""

    noise_prior_logit: float = -4.0
    """Prior of logit ε: 1.8 % of the labels wrong; clean data settles near 1.1 %."""

    min_noise_penalty: float = 0.01
    """Lower bound of the pull of logit ε to its prior, in nats of the mean loss."""

    noise_penalty_samples: float = 0.5
    """The pull of logit ε counts as so many samples."""

    suspicious_noise_rate: float = 1 / 3
    """ε above which the fit is repeated from weights learned with ε = 0: then useless text looks like wrong labels."""

    max_newton_steps: int = 100
    """Most Newton steps; ten are usual."""

    newton_tolerance: float = 1e-10
    """Decrease of the objective, in nats of the mean loss, below which a step is the last."""

    first_damping: float = 1e-3
    """Damping of the first step, relative to the curvature; each step that helps divides it by ten."""

    least_damping: float = 1e-6
    """Lower bound of the damping: held weights leave directions without any curvature."""

    coarse_samples: int = 256
    """Samples on which the weights are learned first where there are twice as many; a few steps are then left."""

    max_double_scores: int = 2**17
    """Scores (J · N · C) up to which the fusion is learned in double precision; above, single is exact to 7 digits."""

    max_scores: int = 2**22
    """Scores per expert (N · C) above which the fusion is learned on an equal part of each class."""

    max_pairs: int = 2**26
    """Affinities (n · N) above which it is."""

    scale: ScalePrior = field(default_factory=ScalePrior)
    """Prior of the logits' scales, over which the probabilities of few samples are averaged."""

    moderated: bool = True
    """False takes the likeliest scales."""

    max_moderated_scores: int = 2**16
    """Scores n · C above which the samples are so many that the likeliest scales are taken."""

    # "Classes without images"
    max_text_only_scores: int = 2**18
    """Scores per expert (N · K) above which the three numbers of classes without images are learned on an equal part of
    each class: more take seconds per metric and hardly change them."""

    max_text_only_log_factor: float = 6.0
    """Largest logarithm of the factors by which such a class's text counts more or less: a bound for support sets that
    tell nothing, not tuned."""

    max_imageless_deviations: float = 6.0
    """Largest deviations at which such a class is placed, above the mean or below: such a bound too."""

    # step 5: choice
    metrics_per_root: int = 2
    """Metrics kept per root B: three best of all were once of one overfitted form, 85 % instead of 90 %."""

    max_metrics: int = 6
    """Metrics kept in all: two of each of three roots."""

    evidence_per_sample: float = 0.3
    """Cooling of pseudo-BMA: share of a sample's log-likelihood that counts, as experts were weighed on it too."""

    min_averaging_weight: float = 0.02
    """Metrics that count less in the mean are left out."""

    max_work: int = 2**31
    """N · D · C above which one metric of two roots stands alone and no residual is trained: 1000 classes × 5 shots."""

    # several encoders. Chosen on CIFAR images through ViT-B/32 beside a good, a weak, a random and a shuffled encoder,
    # with text and without (benchmarks/encoders.py)
    chance_deviations: float = 2.0
    """Deviations by which the variance of an encoder's cosines must exceed that of random directions."""

    agreement_mean: float = 0.5
    """Mean correlation of the cosines of two encoders that know such images; .6 and .4 on CIFAR images."""

    agreement_std: float = 0.2
    """Deviation of that correlation between encoders."""

    effect_mean: float = 3.0
    """Expected excess of the cosines within a class, in deviations of the cosines: that of `SingletonPrior`."""

    effect_std: float = 1.0
    """Deviation of that excess."""

    further_effect_std: float = 0.3
    """Deviation of a further encoder's excess around that to expect beside the first."""

    max_rank_ratio: float = 1.5
    """Largest ratio of effective ranks that counts: those of few images are noisy."""

    trust_power: float = 3.0
    """Power of the excess to which the trust is proportional: what a weak encoder knows, the better one knows too."""

    least_trust: float = 0.3
    """Trust in a further encoder, relative to the most trusted, below which it is left out."""

    trust_without_text: float = 0.03
    """Trust in the first encoder where its own is below `least_trust` and no class has a text. With noise first, one
    shot of the CIFAR images gains 14 points by it over .3, one of the emoji 14, one of digits 22; with "tiny" before
    ViT-B/32 the CIFAR images gain 2. With .003 the CIFAR images are the same to .2 on average. It was tried on no other
    images than these."""

    max_trust_samples: int = 512
    """Samples whose cosines tell the trust."""

    # left-out answers
    cross_fit_folds: int = 10
    """Folds without each of which the weights are learned and the metrics chosen for the answers on it."""

    max_cross_fit_scores: int = 2**20
    """N · C above which the weights see the samples that they score: six numbers then hardly know them."""

    least_relative_weight: float = 1e-6
    """Metrics that would count less than this beside the best on all samples are not tried on the folds."""

    max_exact_fold_scores: int = 2**21
    """Scores of all metrics of a root, times folds, up to which the weights without a fold are exact."""

    max_logit_change: float = 0.15
    """Typical change of the logits up to which one step from the solution of all samples finds that without a fold:
    the logits are then off by a hundredth to a twentieth."""

    fold_tolerance: float = 1e-8
    """As `newton_tolerance`, for the weights without a fold: no more digits of an estimate count."""

    # step 7: wrong labels
    min_shots_to_drop: float = 3.0
    """Mean shots per class from which on samples are set aside; of two, each has only the other to vouch for it."""

    max_label_noise: float = 0.5
    """Posterior of a wrong label above which a sample is set aside: likelier wrong than right."""

    # step 8: residual
    residual_penalties: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    """λ of N · |R|² that cross-validation tries, from the heaviest on."""

    residual_folds: int = 4
    """Folds of that cross-validation."""

    min_residual_shots: float = 2.0
    """Mean shots per class from which on a residual is trained; with one, a held-out class would be unseen."""

    min_residual_samples: float = 10.0
    """Independent samples from which on a residual is trained. Of four held-out samples nearly every residual was kept:
    it learned that leaving one of two out leaves its class at one shot (.3 points and .03 nats on pairs of classes
    through "tiny")."""

    # "Very many images"
    max_support: int = 2**15
    """Samples above which all is learned on a subsample."""

    subsample_size: int = 2**14
    """Samples of that subsample."""

    subsample_min_per_class: int = 8
    """So many of each class are in it, where there are as many."""
