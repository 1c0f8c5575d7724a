"""Numbers of a graph of ONNX in half precision, for files of half the size."""

from __future__ import annotations

from typing import Any

import numpy as np

from skxma._runtime.optional import require

EXPORT = "Export to ONNX"
SMALLEST_ARRAY = 256
"""Entries below which an array stays as it is: halving a scalar saves nothing and costs digits."""


def store_in_half(graph: Any) -> Any:
    """Store the large arrays of a model in half precision, each cast to single precision before it is used.

    Runtimes cast them once, when the file is loaded. An array with a value that half precision lacks stays as it is.

    Parameters
    ----------
    graph : onnx.ModelProto

    Returns
    -------
    graph : onnx.ModelProto
        The same, changed.
    """
    onnx = require("onnx", what=EXPORT, extra="onnx")

    casts = []
    for array in graph.graph.initializer:
        if array.data_type != onnx.TensorProto.FLOAT or np.prod(array.dims) < SMALLEST_ARRAY:
            continue
        values = onnx.numpy_helper.to_array(array)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = array.name
        array.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [array.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph
