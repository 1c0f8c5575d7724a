"""Make `import torchvision` (and so `import open_clip`) work where its compiled operators don't load.

A torchvision wheel built for another torch (the usual case: the registry's CUDA build beside a CPU torch) fails on
import with ``operator torchvision::nms does not exist``, because it registers shape rules for operators that its
library did not bring. Encoding images needs none of them, so declaring their schemas is enough.
"""

import re
import sys
from importlib import import_module

import torch

# From torchvision/csrc/ops/nms.cpp and quantized/cpu/qnms_kernel.cpp; the only two that are registered unconditionally.
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")


def ensure_importable() -> None:
    """Import torchvision, declaring the operators that it fails to find; does nothing more on a healthy install.

    Raises
    ------
    ImportError
        If torchvision is absent, or fails for another reason than its missing operators.
    """
    for _ in range(len(_SCHEMAS) + 1):
        try:
            import_module("torchvision")
        except RuntimeError as error:
            missing = _MISSING_OPERATOR.search(str(error))
            if missing is None or missing[1] not in _SCHEMAS:
                raise ImportError(_remedy(error)) from error
            torch.library.define(f"torchvision::{missing[1]}", _SCHEMAS[missing[1]])
            # a module that failed half way must run again from its start
            sys.modules.pop("torchvision._meta_registrations", None)
        else:
            return
    raise ImportError(_remedy("its operators stay missing after they were declared"))


def _remedy(reason: object) -> str:
    return (
        f"torchvision can't be imported beside torch {torch.__version__} ({reason}). "
        "Install the two together from one index, for instance: pip install --upgrade torch torchvision"
    )
