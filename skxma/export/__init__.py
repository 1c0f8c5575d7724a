"""A fitted classifier as a module of torch or a file of ONNX, to predict where skxma is not installed."""

from skxma.export._modules import to_module
from skxma.export._onnx import to_onnx

__all__ = ["to_module", "to_onnx"]
