"""A detector as an ONNX graph: from images to boxes, for any size of batch.

By PyTorch's exporter of today. The older one, by TorchScript, gives the same numbers and takes less
time, but is deprecated, and would need another translation of the suppression.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op

from src.onnx_export.padded import RESULTS, STEPS, PaddedDetector, PaddedOutputs
from src.structures import MAX_CANDIDATES
from src.system.errors import InputError

OPSET = 18  # the exporter's own; others it has to convert to
INPUT = "images"
EXAMPLE_BATCH = 2  # any size but 1, which the exporter would take for a constant
MAX_BYTES = onnx.checker.MAXIMUM_PROTOBUF  # of one file; that is the format's


def write_graph(path: Path, detector: PaddedDetector, metadata: Mapping[str, str]) -> None:
    """Export a detector; the graph takes `INPUT` and gives `RESULTS`.

    The steps to the results keep their names within the graph; see `with_steps`.

    Args:
        metadata: goes into the file, for whoever uses it.

    Raises:
        InputError: the network is too large for one file.
    """
    n_bytes = sum(p.numel() * p.element_size() for p in detector.parameters())
    if n_bytes > MAX_BYTES:
        raise InputError(
            f"{path}: weights of {n_bytes / 1e9:.1f} GB do not fit into one ONNX file, which "
            f"holds {MAX_BYTES / 1e9:.1f}"
        )
    graph = _trace(detector)
    _strip(graph)
    del graph.graph.output[len(RESULTS) :]
    onnx.helper.set_model_props(graph, dict(metadata))
    path.write_bytes(graph.SerializeToString())


def with_steps(path: Path) -> bytes:
    """Return the graph of a file with its `STEPS` as further outputs."""
    graph = onnx.load_from_string(path.read_bytes())
    for name in STEPS:
        graph.graph.output.append(onnx.ValueInfoProto(name=name))
    return graph.SerializeToString()


def _trace(detector: PaddedDetector) -> onnx.ModelProto:
    images = torch.zeros(EXAMPLE_BATCH, 1, *detector.image_size)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's own use of what it has deprecated itself.
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.`", FutureWarning)
        program = torch.onnx.export(
            detector.eval(),
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(PaddedOutputs._fields),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            custom_translation_table={torch.ops.pneumonia.survives_nms.default: _survives_nms},
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _survives_nms(boxes_xyxy: Any, scores: Any, nms_iou: float) -> Any:  # noqa: ANN401 - of onnxscript
    """Translate `padded.survives_nms`; ONNX orders coordinates y, x, which makes no difference."""
    chosen = op.NonMaxSuppression(
        boxes_xyxy,
        op.Unsqueeze(scores, _numbers(1)),  # (B, C) -> (B, 1, C): one class
        _numbers(MAX_CANDIDATES),
        op.Constant(value_floats=[nms_iou]),
        op.Constant(value_floats=[0.0]),  # leaves out the padding, whose score this is
    )  # (N, 3) image, class, box
    image_and_box = op.Gather(chosen, _numbers(0, 2), axis=1)
    kept = op.Expand(op.Cast(_numbers(1), to=onnx.TensorProto.BOOL),
                     op.Shape(chosen, start=0, end=1))  # fmt: skip
    return op.ScatterND(op.Less(scores, op.Constant(value_float=0.0)), image_and_box, kept)


def _numbers(*values: int) -> Any:  # noqa: ANN401 - of onnxscript
    return op.Constant(value_ints=list(values))


def _strip(graph: onnx.ModelProto) -> None:
    """Take out what the exporter notes down: stack traces, with paths of this machine."""
    del graph.metadata_props[:]
    parts = graph.graph
    for notes in (parts, *parts.node, *parts.value_info, *parts.input, *parts.output,
                  *parts.initializer):  # fmt: skip
        del notes.metadata_props[:]
        notes.doc_string = ""
