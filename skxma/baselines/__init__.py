"""Rival methods, behind the same interface and on the same encoder and text features."""

from skxma.baselines._ape import APEClassifier, APETClassifier
from skxma.baselines._clap import CLAPClassifier
from skxma.baselines._clip_adapter import CLIPAdapterClassifier
from skxma.baselines._cross_modal import CrossModalLinearProbe
from skxma.baselines._gda import GDAClassifier
from skxma.baselines._logistic_regression import LogisticRegressionProbe
from skxma.baselines._lp_plus_plus import LPPlusPlusClassifier
from skxma.baselines._multimodal_adapter import MultiModalAdapterClassifier
from skxma.baselines._proker import ProKeRClassifier
from skxma.baselines._rla import RLAClassifier
from skxma.baselines._semi_supervised_probes import LabelSpreadingProbe, SelfTrainingProbe
from skxma.baselines._ss_text_u import SSTextUClassifier
from skxma.baselines._stat_a import StatAClassifier
from skxma.baselines._task_res import TaskResClassifier
from skxma.baselines._timo import TIMOClassifier
from skxma.baselines._tip_adapter import TipAdapterClassifier, TipAdapterFClassifier
from skxma.baselines._trans_clip import TransCLIPClassifier
from skxma.baselines._zero_shot import ZeroShotClassifier

__all__ = [
    "APEClassifier",
    "APETClassifier",
    "CLAPClassifier",
    "CLIPAdapterClassifier",
    "CrossModalLinearProbe",
    "GDAClassifier",
    "LPPlusPlusClassifier",
    "LabelSpreadingProbe",
    "LogisticRegressionProbe",
    "MultiModalAdapterClassifier",
    "ProKeRClassifier",
    "RLAClassifier",
    "SSTextUClassifier",
    "SelfTrainingProbe",
    "StatAClassifier",
    "TIMOClassifier",
    "TaskResClassifier",
    "TipAdapterClassifier",
    "TipAdapterFClassifier",
    "TransCLIPClassifier",
    "ZeroShotClassifier",
]
