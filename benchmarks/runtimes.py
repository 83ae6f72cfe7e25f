"""Which runtime runs a trained network fastest on this machine's CPU: eager torch, ONNX Runtime or OpenVINO.

Both networks that serving runs are measured as they are served: the clothing model of params.yaml with its views of a
photo, one photo and eight (which OpenVINO takes side by side and the others as a batch), and the image encoder of
Segment Anything (ViT-B). Weights are random, because the speed does not depend on their values. All runtimes get the
same number of threads and compute with 32-bit floats; OpenVINO in bfloat16 is measured as well, where the processor is
fast at it. How far results are from torch's is stated for both.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from segment_anything import sam_model_registry

from benchmarks.harness import Row, compare_several
from pipelines.params import load_params
from pipelines.segmentation.model import Probabilities, new_network
from pipelines.segmentation.runtime import Forward, compile_network, max_concurrency, multiplies_bfloat16
from pipelines.settings import PROJECT_ROOT


def run() -> list[Row]:
    """Time each runtime against eager torch: the clothing model, then Segment Anything's encoder."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    network, card = new_network(params.train, params.label_ids)
    clothing, size = Probabilities(network, mirrored=card.mirrored).eval(), (card.height, card.width)
    encoder = sam_model_registry["vit_b"]().image_encoder.eval()
    return [
        *_rows("clothing model, 1 photo", clothing, (1, 3, *size), rounds=31, unit="ms"),
        *_rows("clothing model, 8 photos", clothing, (8, 3, *size), rounds=11, unit="ms"),
        *_rows("encoder ViT-B", encoder, (1, 3, 1024, 1024), rounds=3, unit="s"),
    ]


def _rows(what: str, network: torch.nn.Module, shape: tuple[int, ...], rounds: int, unit: str) -> Iterator[Row]:
    batch = np.random.default_rng(7).standard_normal(shape, np.float32)
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as folder:
        ways = {
            "OpenVINO": _openvino(network, shape),
            "ONNX Runtime": _onnx_runtime(network, batch, Path(folder) / "network.onnx"),
            "torch, channels last": _torch(network, torch.channels_last),
        }
    eager = _torch(network, torch.contiguous_format)
    right = eager(batch)
    farthest = {"32 bits": max(float(np.abs(way(batch) - right).max()) for way in ways.values())}
    if multiplies_bfloat16():
        reduced = ways["OpenVINO, bfloat16"] = _openvino(network, shape, reduced_precision=True)
        farthest["bfloat16"] = float(np.abs(reduced(batch) - right).max())
    calls = {f"{what}: {name}": _call(way, batch) for name, way in ways.items()}
    yield from compare_several(calls, _call(eager, batch), rounds, unit)
    for precision, difference in farthest.items():
        yield Row(f"{what}: largest difference from torch, {precision}", difference, None, None, "", 1)


def _call(way: Forward, batch: np.ndarray) -> Callable[[], object]:
    return lambda: way(batch)


def _openvino(network: torch.nn.Module, shape: tuple[int, ...], *, reduced_precision: bool = False) -> Forward:
    count, *size = shape
    concurrency = min(count, max_concurrency())
    forward = compile_network(
        network, (size[0], size[1], size[2]), concurrency=concurrency, reduced_precision=reduced_precision
    )
    pool = ThreadPoolExecutor(concurrency)
    return lambda batch: np.concatenate(list(pool.map(forward, np.split(batch, len(batch)))))


def _torch(network: torch.nn.Module, layout: torch.memory_format) -> Forward:
    laid_out = copy.deepcopy(network).to(memory_format=layout)

    def forward(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(laid_out(torch.from_numpy(batch).to(memory_format=layout)).numpy())

    return forward


class _AveragePool(torch.nn.Module):
    """torch's adaptive average pooling to (size, size) as matrix products, which torch can export for any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        rows, columns = (self._weights(int(count)) for count in maps.shape[2:])
        return rows @ maps @ columns.T

    def _weights(self, count: int) -> torch.Tensor:
        weights = np.zeros((self.size, count), np.float32)
        for cell in range(self.size):
            begin, end = cell * count // self.size, -(-(cell + 1) * count // self.size)
            weights[cell, begin:end] = 1 / (end - begin)
        return torch.from_numpy(weights)


def _with_pools_to_export(network: torch.nn.Module) -> torch.nn.Module:
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.AdaptiveAvgPool2d):
            size = module.output_size
            assert isinstance(size, int), f"{name} pools to {size}"
            network.set_submodule(name, _AveragePool(size))
    return network


def _onnx_runtime(network: torch.nn.Module, batch: np.ndarray, path: Path) -> Forward:
    network = _with_pools_to_export(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer; how far the result is from torch's is measured
        torch.onnx.export(network, (torch.from_numpy(batch),), str(path), input_names=["photos"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda photos: np.asarray(session.run(None, {"photos": photos})[0])
