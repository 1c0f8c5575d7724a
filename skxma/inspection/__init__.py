"""Looking into a fitted classifier: what it retrieves and how it weighs it, which labels it doubts, how it grows."""

from skxma.inspection._calibration import CalibrationDisplay
from skxma.inspection._coverage import CoverageDisplay
from skxma.inspection._curve import FewShotCurveDisplay
from skxma.inspection._fusion import FusionDisplay
from skxma.inspection._hard import HardSamplesDisplay
from skxma.inspection._labels import LabelInQuestion, labels_in_question, support_labels
from skxma.inspection._model_report import ModelReport
from skxma.inspection._retrieval import RetrievalDisplay

__all__ = [
    "CalibrationDisplay",
    "CoverageDisplay",
    "FewShotCurveDisplay",
    "FusionDisplay",
    "HardSamplesDisplay",
    "LabelInQuestion",
    "ModelReport",
    "RetrievalDisplay",
    "labels_in_question",
    "support_labels",
]
