"""How a network is run: OpenVINO on a CPU, where it measured fastest (`make bench NAME=prelabel`), torch on a GPU.

Training, evaluation and serving run trained networks through here, so they see the same numbers.
"""

import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from pipelines.fs import atomic_path

logger = logging.getLogger(__name__)

Forward = Callable[[np.ndarray], np.ndarray]
_MOST_STREAMS = 4  # each takes memory of its own


def multiplies_bfloat16() -> bool:
    """Tell whether the processor multiplies matrices of bfloat16 numbers itself (AMX), several times as fast."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def callers_at_once() -> int:
    """Give how many callers a network should serve at once here: a GPU's batch, or a CPU's streams of some threads."""
    return 8 if torch.cuda.is_available() else min(_MOST_STREAMS, torch.get_num_threads())


def compile_network(
    network: torch.nn.Module,
    shape: tuple[int, int, int],
    *,
    callers: int = 1,
    kept: Path | None = None,
    reduced_precision: bool = False,
) -> Forward:
    """Make a network ready to run on (N, *shape) float32 input; gives a function of arrays that any thread may call.

    N is 1 on a CPU, where larger batches are slower, and at most `callers` on a GPU. On a CPU as many `callers` are
    served at once, each by its share of the threads: that does more in all, and takes longer for one who is alone.

    Input, output and weights are 32-bit floats, and on a CPU the result equals torch's within their rounding; with
    `reduced_precision` it is computed in bfloat16 (8 bits of precision) where the processor is fast at that. `kept`
    names a file (`.xml`; the weights go beside it) where the converted network is kept, because large ones take a
    minute to convert. A network that OpenVINO cannot convert runs in torch, and a warning says so.
    """
    if torch.cuda.is_available():
        return _in_torch(network)
    from openvino.frontend import OpConversionFailure

    precision = "bf16" if reduced_precision and multiplies_bfloat16() else "f32"
    try:
        return _in_openvino(_convert(network, (1, *shape), kept), precision, callers)
    except OpConversionFailure as error:
        logger.warning("OpenVINO cannot run this network, so torch does, more slowly: %s", error)
        return _in_torch(network)


def _in_torch(network: torch.nn.Module) -> Forward:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, busy = network.eval().to(device).to(memory_format=torch.channels_last), threading.Lock()

    def forward(batch: np.ndarray) -> np.ndarray:
        with busy, torch.inference_mode():  # one at a time: each uses every thread, or the whole GPU
            tensor = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            return np.asarray(network(tensor).float().cpu().numpy())

    return forward


def _convert(network: torch.nn.Module, shape: tuple[int, ...], kept: Path | None) -> Any:
    import openvino

    if kept is not None and kept.exists():
        try:
            return openvino.Core().read_model(kept)
        except RuntimeError as error:
            logger.warning("%s is damaged and is made again: %s", kept, error)
    example = torch.zeros(1, *shape[1:])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer; the tests compare the results
        # Left to itself the converter has torch run the network four more times, to check the trace.
        traced = torch.jit.trace(network.eval().cpu(), example, strict=False, check_trace=False)
        converted = openvino.convert_model(traced, input=[shape])
    if kept is not None:
        with atomic_path(kept, suffix=".xml") as description:
            openvino.save_model(converted, description, compress_to_fp16=False)  # writes the weights beside it
            # Before the description: where that exists, the weights are complete.
            description.with_suffix(".bin").replace(kept.with_suffix(".bin"))
    return converted


def _in_openvino(converted: Any, precision: str, callers: int) -> Forward:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": callers,
    }
    compiled = openvino.Core().compile_model(converted, "CPU", options)
    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(callers):
        free.put(compiled.create_infer_request())

    def forward(batch: np.ndarray) -> np.ndarray:
        request = free.get()
        try:
            request.infer({0: batch})
            return np.array(request.get_output_tensor(0).data)
        finally:
            free.put(request)

    return forward
