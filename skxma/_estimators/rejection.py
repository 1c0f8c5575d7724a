"""The rule by which predictions refuse images that are unlike all classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._evidence.fitted import LeftOutPredictions
from skxma._labels.arrays import check_unknown, with_unknown
from skxma._runtime.warning import warn
from skxma._statistics import P_VALUE_ROUNDING, samples_needed


@dataclass(frozen=True)
class RejectionRule:
    """The share of images of known classes that may be rejected, and the label of rejected images.

    Attributes
    ----------
    rate : float or None
        Share of the images of known classes that are refused; None refuses no image.
    label : str or number
    """

    rate: float | None
    label: Any

    @classmethod
    def of(cls, rate: float | None, label: Any, classes: NDArray[Any]) -> RejectionRule:
        """The rule of the parameters `false_rejection_rate` and `unknown_label`, for some classes (C,)."""
        if label is None:
            label = "unknown" if isinstance(classes.tolist()[0], str) else -1
        return cls(rate, label)

    def check(self, classes: NDArray[Any]) -> None:
        """Refuse a label that is one of the classes (C,), or of another kind than they are."""
        if self.rate is not None:
            check_unknown(self.label, classes)

    def threshold(self, left_out: LeftOutPredictions) -> float:
        """Open-set score above which an image is refused; infinite where none is.

        Warns of a rate that so few images cannot give.
        """
        if self.rate is None:
            return np.inf
        if self.rate < left_out.least_rate - P_VALUE_ROUNDING:
            n, needed = round(left_out.n_independent), samples_needed(1 - self.rate)
            warn(
                f"false_rejection_rate={self.rate:g} needs {needed} different labeled images and there are {n}: up to "
                f"{left_out.least_rate:.2g} of the images of known classes are refused, those that are less like them "
                "than every labeled one. Label more images, or raise the rate."
            )
        return left_out.rejection_threshold(self.rate)

    def apply(self, labels: NDArray[Any], refused: NDArray[np.bool_], classes: NDArray[Any]) -> NDArray[Any]:
        """Predicted labels (n,), replaced where they are refused (n,)."""
        return with_unknown(labels, refused, self.label, classes)
