"""Rival methods, behind the same interface and on the same encoder and text features."""

from skxma.baselines.ape import APEClassifier, APETClassifier
from skxma.baselines.clap import CLAPClassifier
from skxma.baselines.clip_adapter import CLIPAdapterClassifier
from skxma.baselines.cross_modal import CrossModalLinearProbe
from skxma.baselines.gda import GDAClassifier
from skxma.baselines.logistic_regression import LogisticRegressionProbe
from skxma.baselines.lp_plus_plus import LPPlusPlusClassifier
from skxma.baselines.multimodal_adapter import MultiModalAdapterClassifier
from skxma.baselines.proker import ProKeRClassifier
from skxma.baselines.semi_supervised import LabelSpreadingProbe, SelfTrainingProbe
from skxma.baselines.ss_text_u import SSTextUClassifier
from skxma.baselines.task_res import TaskResClassifier
from skxma.baselines.tip_adapter import TipAdapterClassifier, TipAdapterFClassifier
from skxma.baselines.trans_clip import TransCLIPClassifier
from skxma.baselines.zero_shot import ZeroShotClassifier

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
    "SSTextUClassifier",
    "SelfTrainingProbe",
    "TaskResClassifier",
    "TipAdapterClassifier",
    "TipAdapterFClassifier",
    "TransCLIPClassifier",
    "ZeroShotClassifier",
]
