"""The table of the names that a model file uses: the only place where they meet the names of classes and attributes.

The left side is fixed by the files that exist. A renamed class, attribute or parameter changes the right side alone; a
new one takes a new name on the left. The names that format 1 used are translated in `format_1`.
"""

from __future__ import annotations

from skxma._evidence.calibrated.model import CalibratedModel, FurtherMetric, MetricComponent, StoredBasis
from skxma._evidence.calibrated.text_only import TextOnlyFusion
from skxma._evidence.index.clusters import KeyClusters
from skxma._evidence.paper.model import PaperModel
from skxma._evidence.semi_supervised.class_statistics import ClassStatistics
from skxma._evidence.semi_supervised.model import PooledModel
from skxma._evidence.semi_supervised.pool import Pool
from skxma._persistence.record import EstimatorRecord, Record, by_name
from skxma._statistics import Calibration
from skxma.caches import ImageCache, Projection, TextCache


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _fitted(*names: str) -> dict[str, str]:
    return {name: f"{name}_" for name in names}


RECORDS = by_name(
    [
        Record(
            "image_cache",
            2,
            ImageCache,
            _same("keys", "labels", "weights", "n_classes", "weight_unit", "features", "groups", "blocks"),
            {"blocks": 2},
        ),
        Record(
            "text_cache",
            1,
            TextCache,
            {"keys": "keys", "image_to_text": "img2txt", "metanet": "metanet", "modality_means": "modality_means"},
        ),
        Record("projection", 1, Projection, _same("weight", "bias", "hidden")),
        Record("key_clusters", 1, KeyClusters, _same("order", "starts")),
        Record(
            "calibrated_evidence",
            2,
            CalibratedModel,
            {
                "image_cache": "image_cache",
                "text_cache": "text_cache",
                "bases": "bases",
                "components": "components",
                "logit_scale": "logit_scale",
                "alpha": "alpha",
                "beta": "beta",
                "fusion_ratio": "fusion_ratio",
                "residual": "residual",
                "key_clusters": "key_clusters",
                "further": "further",
            },
            {"further": 2},
        ),
        Record("further_metric", 1, FurtherMetric, _same("block", "basis", "scale", "beta", "gaussian", "weights")),
        Record("centered_basis", 1, StoredBasis, _same("mean", "basis")),
        Record(
            "metric_component",
            2,
            MetricComponent,
            {
                "basis": "basis",
                "scale": "scale",
                "beta": "beta",
                "gaussian": "gaussian",
                "weights": "weights",
                "prior": "prior",
                "loss": "loss",
                "metric": "choice",
                "averaging_weight": "averaging_weight",
                "text_only": "text_only",
            },
            {"text_only": 2},
        ),
        Record("text_only_fusion", 1, TextOnlyFusion, _same("zero_shot", "centered_text", "deviations")),
        Record(
            "paper_evidence",
            1,
            PaperModel,
            {
                "image_cache": "image_cache",
                "text_cache": "text_cache",
                "text_features": "text_features",
                "alpha": "alpha",
                "beta": "beta",
                "fusion_ratio": "fusion_ratio",
                "logit_scale": "logit_scale",
                "key_clusters": "key_clusters",
            },
        ),
        Record("pooled_evidence", 1, PooledModel, _same("base", "statistics", "weights")),
        Record(
            "class_statistics",
            1,
            ClassStatistics,
            {
                "center": "center",
                "projection": "projection",
                "means": "means",
                "present": "present",
                "spreads": "spreads",
            },
        ),
        Record("unlabeled_pool", 1, Pool, _same("keys", "weights")),
        Record("calibration", 1, Calibration, _same("scores", "labels", "weights", "models", "log_proba", "simulated")),
    ]
)

# Estimators as well, but ones that only their parameters describe.
_ENCODER_PARAMETERS = _same(
    "batch_size",
    "cache_dir",
    "device",
    "local_files_only",
    "memory",
    "model",
    "n_threads",
    "on_error",
    "precision",
    "rescale_16bit",
    "verbose",
)
ENCODERS = by_name(
    [
        EstimatorRecord("clip_encoder", 1, "skxma.encoder:CLIPEncoder", _ENCODER_PARAMETERS, {}),
        EstimatorRecord("timm_encoder", 1, "skxma.encoder:TimmEncoder", _ENCODER_PARAMETERS, {}),
        EstimatorRecord("transformers_encoder", 1, "skxma.encoder:TransformersEncoder", _ENCODER_PARAMETERS, {}),
        EstimatorRecord(
            "sentence_transformer_encoder", 1, "skxma.encoder:SentenceTransformerEncoder", _ENCODER_PARAMETERS, {}
        ),
    ]
)

# The encoder is packed apart from the other parameters.
_PARAMETERS = _same(
    "class_names",
    "conformal",
    "device",
    "memory",
    "n_views",
    "precision",
    "random_state",
    "templates",
    "text_features",
    "verbose",
)
_TRAINING = _same("batch_size", "learning_rate", "n_epochs")
_UNLABELED = _same("unlabeled_label")
_FITTED = _fitted(
    "calibration",
    "class_names",
    "classes",
    "compute_dtype",
    "dropped_classes",
    "encoder_fingerprint",
    "encoder_logit_scale",
    "fold_fits",
    "groups",
    "image_cache",
    "n_features_in",
    "sample_names",
    "sample_position",
    "sample_weight",
    "text_features",
)
_FITTED_RIVAL = _FITTED | _fitted("n_trained")
_FITTED_POOL = _fitted("unlabeled_cache", "unlabeled_position")


def _rival(name: str, cls: str, parameters: dict[str, str], fitted: dict[str, str]) -> EstimatorRecord:
    return EstimatorRecord(name, 1, f"skxma.baselines:{cls}", _PARAMETERS | parameters, _FITTED_RIVAL | fitted)


ESTIMATORS = by_name(
    [
        EstimatorRecord(
            "xmadapter",
            1,
            "skxma:XMAdapterClassifier",
            _PARAMETERS
            | _TRAINING
            | _UNLABELED
            | _same(
                "alpha",
                "beta",
                "blocks",
                "evidence",
                "false_rejection_rate",
                "fusion_ratio",
                "hard_sample_weight",
                "retrieval",
                "text_dim",
                "unknown_label",
                "vocabulary",
                "warm_start",
                "weight_decay",
            ),
            _FITTED
            | _FITTED_POOL
            | _fitted(
                "alpha",
                "beta",
                "fusion_ratio",
                "hardness",
                "label_noise",
                "left_out_interval",
                "left_out_label",
                "left_out_probability",
                "left_out_score",
                "logit_scale",
                "loss_curve",
                "model",
                "n_unlabeled_used",
                "noise_rate",
                "reject_threshold",
                "set_aside",
                "soft_labels",
                "text_cache",
            ),
        ),
        _rival("zero-shot", "ZeroShotClassifier", {}, {}),
        _rival("tip-adapter", "TipAdapterClassifier", _same("alpha", "beta"), {}),
        _rival(
            "tip-adapter-f",
            "TipAdapterFClassifier",
            _TRAINING | _same("alpha", "beta"),
            _fitted("keys", "loss_curve"),
        ),
        _rival(
            "clip-adapter",
            "CLIPAdapterClassifier",
            _TRAINING | _same("ratio", "reduction"),
            _fitted("down", "loss_curve", "text", "up"),
        ),
        _rival(
            "task-res",
            "TaskResClassifier",
            _TRAINING | _same("alpha", "text_norm"),
            _fitted("loss_curve", "prototypes"),
        ),
        _rival(
            "clap", "CLAPClassifier", _TRAINING | _same("text_norm"), _fitted("loss_curve", "penalty", "prototypes")
        ),
        _rival("lp++", "LPPlusPlusClassifier", _same("n_epochs"), _fitted("blend", "coef", "intercept", "loss_curve")),
        _rival("gda", "GDAClassifier", _same("alpha"), _fitted("coef", "intercept", "present")),
        _rival(
            "rla",
            "RLAClassifier",
            _same("learning_rate", "n_epochs", "strength"),
            _fitted("adapter", "loss_curve", "text"),
        ),
        _rival(
            "timo",
            "TIMOClassifier",
            _same("alpha", "gamma"),
            _fitted("alpha", "coef", "intercept", "present", "text"),
        ),
        _rival("proker", "ProKeRClassifier", _same("beta", "strength"), _fitted("beta", "dual_coef", "strength")),
        _rival(
            "ape",
            "APEClassifier",
            _same("alpha", "beta", "gamma", "keep", "similarity_weight"),
            _fitted("channels", "keys", "values"),
        ),
        _rival(
            "ape-t",
            "APETClassifier",
            _TRAINING | _same("alpha", "beta", "keep", "similarity_weight"),
            _fitted("channels", "loss_curve", "residual", "value_weights"),
        ),
        _rival(
            "cross-modal",
            "CrossModalLinearProbe",
            _same("batch_size", "learning_rate", "n_steps", "weight_decay"),
            _fitted("coef", "loss_curve"),
        ),
        _rival(
            "multimodal-adapter",
            "MultiModalAdapterClassifier",
            _TRAINING | _same("feature_norm", "ratio", "width"),
            _fitted("layers", "loss_curve", "text"),
        ),
        _rival(
            "logistic-regression",
            "LogisticRegressionProbe",
            _same("C", "max_iter"),
            _fitted("coef", "intercept", "n_iter", "present"),
        ),
        _rival(
            "trans-clip",
            "TransCLIPClassifier",
            _UNLABELED | _same("gamma", "n_iter", "n_neighbors", "text_weight"),
            _FITTED_POOL | _fitted("assignments", "means", "pool", "variances"),
        ),
        _rival(
            "stat-a",
            "StatAClassifier",
            _UNLABELED | _same("alpha", "n_iter", "n_neighbors"),
            _FITTED_POOL | _fitted("assignments", "means", "pool", "variances"),
        ),
        _rival(
            "ss-text-u",
            "SSTextUClassifier",
            _UNLABELED | _same("n_iter", "n_transport"),
            _FITTED_POOL | _fitted("prototypes"),
        ),
        _rival(
            "self-training",
            "SelfTrainingProbe",
            _UNLABELED | _same("C", "max_iter", "threshold"),
            _FITTED_POOL | _fitted("coef", "intercept", "n_iter", "seen"),
        ),
        _rival(
            "label-spreading",
            "LabelSpreadingProbe",
            _UNLABELED | _same("alpha", "gamma", "kernel", "max_iter", "n_neighbors"),
            _FITTED_POOL | _fitted("label_distributions", "n_iter", "samples", "seen"),
        ),
    ]
)
