"""Names of methods and protocols. Nothing is imported here, so that the command line knows them at once."""

from __future__ import annotations

METHODS = {
    "xmadapter": "skxma:XMAdapterClassifier",
    "zero-shot": "skxma.baselines:ZeroShotClassifier",
    "tip-adapter": "skxma.baselines:TipAdapterClassifier",
    "tip-adapter-f": "skxma.baselines:TipAdapterFClassifier",
    "clip-adapter": "skxma.baselines:CLIPAdapterClassifier",
    "task-res": "skxma.baselines:TaskResClassifier",
    "clap": "skxma.baselines:CLAPClassifier",
    "lp++": "skxma.baselines:LPPlusPlusClassifier",
    "gda": "skxma.baselines:GDAClassifier",
    "timo": "skxma.baselines:TIMOClassifier",
    "rla": "skxma.baselines:RLAClassifier",
    "proker": "skxma.baselines:ProKeRClassifier",
    "ape": "skxma.baselines:APEClassifier",
    "ape-t": "skxma.baselines:APETClassifier",
    "cross-modal": "skxma.baselines:CrossModalLinearProbe",
    "multimodal-adapter": "skxma.baselines:MultiModalAdapterClassifier",
    "logistic-regression": "skxma.baselines:LogisticRegressionProbe",
    "trans-clip": "skxma.baselines:TransCLIPClassifier",
    "stat-a": "skxma.baselines:StatAClassifier",
    "ss-text-u": "skxma.baselines:SSTextUClassifier",
    "self-training": "skxma.baselines:SelfTrainingProbe",
    "label-spreading": "skxma.baselines:LabelSpreadingProbe",
}
DEFAULT = "xmadapter"
NEED_POOL = ("trans-clip", "stat-a", "ss-text-u", "self-training", "label-spreading")
SHOTS = (1, 2, 4, 8, 16)
PRECOMPUTED = "precomputed"
POOL, DOMAIN, BASE_TO_NOVEL, ACTIVE = "pool", "domain", "base-to-novel", "active"
VALIDATED = ("few", "full")
PROTOCOLS = ("none", *VALIDATED, POOL, DOMAIN, BASE_TO_NOVEL, ACTIVE)
DEFAULT_ENCODER = "ViT-B-32/laion2b_s34b_b79k"
HALVES = ("base", "novel", "all")
SAME = "same"
# labels that were asked for: how they are chosen, and whether the rest of the pool is learned from without labels
SUGGESTED, RANDOM, REST = "suggested", "random", "+rest"
ASKED = (SUGGESTED, RANDOM, SUGGESTED + REST, RANDOM + REST)
EMOJI, EMOJI_ENCODER = "emoji", "tiny"
