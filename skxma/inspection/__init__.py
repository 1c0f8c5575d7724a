"""Looking into a fitted classifier: what it retrieves, which labels it doubts, how it grows with the shots."""

from ._curve import FewShotCurveDisplay
from ._hard import HardSamplesDisplay
from ._labels import LabelInQuestion, labels_in_question
from ._retrieval import RetrievalDisplay

__all__ = [
    "FewShotCurveDisplay",
    "HardSamplesDisplay",
    "LabelInQuestion",
    "RetrievalDisplay",
    "labels_in_question",
]
