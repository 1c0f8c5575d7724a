"""Looking into a fitted classifier: what it retrieves and how it weighs it, which labels it doubts, how it grows."""

from ._curve import FewShotCurveDisplay
from ._fusion import FusionDisplay
from ._hard import HardSamplesDisplay
from ._labels import LabelInQuestion, labels_in_question, support_labels
from ._retrieval import RetrievalDisplay

__all__ = [
    "FewShotCurveDisplay",
    "FusionDisplay",
    "HardSamplesDisplay",
    "LabelInQuestion",
    "RetrievalDisplay",
    "labels_in_question",
    "support_labels",
]
