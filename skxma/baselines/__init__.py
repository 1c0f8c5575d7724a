"""Rival methods, behind the same interface and on the same encoder and text features."""

from .ape import APEClassifier, APETClassifier
from .clap import CLAPClassifier
from .clip_adapter import CLIPAdapterClassifier
from .cross_modal import CrossModalLinearProbe
from .gda import GDAClassifier
from .logistic_regression import LogisticRegressionProbe
from .lp_plus_plus import LPPlusPlusClassifier
from .multimodal_adapter import MultiModalAdapterClassifier
from .proker import ProKeRClassifier
from .semi_supervised import LabelSpreadingProbe, SelfTrainingProbe
from .ss_text_u import SSTextUClassifier
from .task_res import TaskResClassifier
from .tip_adapter import TipAdapterClassifier, TipAdapterFClassifier
from .trans_clip import TransCLIPClassifier
from .zero_shot import ZeroShotClassifier

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
