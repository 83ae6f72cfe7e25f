"""How networks run: with OpenVINO on a CPU, where it measured fastest (`make bench NAME=prelabel`), torch on a GPU.

Training, evaluation and serving all run trained networks with this module, so they see the same numbers.
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

from pipelines.segmentation.signal_stack import preserved_signal_stack

logger = logging.getLogger(__name__)

Forward = Callable[[np.ndarray], np.ndarray]
_MAX_STREAMS = 4  # each takes memory of its own


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 numbers itself (AMX), several times as fast."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def max_concurrency() -> int:
    """Return how many calls a network should run at once on this machine: a GPU's batch, or a CPU's streams."""
    return 8 if torch.cuda.is_available() else min(_MAX_STREAMS, torch.get_num_threads())


def compile_network(
    network: torch.nn.Module,
    shape: tuple[int, int, int],
    *,
    concurrency: int = 1,
    cache_file: Path | None = None,
    reduced_precision: bool = False,
) -> Forward:
    """Return a function that runs a network on (N, *shape) float32 input; any thread may call it.

    N is 1 on a CPU, where larger batches are slower, and at most `concurrency` on a GPU. On a CPU that many calls run
    at once, each on its share of the threads: the throughput is higher, and a single call takes longer.

    Input, output and weights are 32-bit floats, and on a CPU the result equals torch's within their rounding; with
    `reduced_precision` it is computed in bfloat16 (8 bits of precision) where the processor is fast at that.
    `cache_file` names a file (`.xml`; the weights go beside it) for the converted network, because large ones take a
    minute to convert. A network that OpenVINO cannot convert runs in torch, and a warning says so.
    """
    if torch.cuda.is_available():
        return _in_torch(network)
    from openvino.frontend import OpConversionFailure

    precision = "bf16" if reduced_precision and multiplies_bfloat16() else "f32"
    try:
        return _in_openvino(_convert(network, (1, *shape), cache_file), precision, concurrency)
    except OpConversionFailure as error:
        logger.warning("OpenVINO cannot run this network, so torch does, more slowly: %s", error)
        return _in_torch(network)


def _in_torch(network: torch.nn.Module) -> Forward:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, lock = network.eval().to(device).to(memory_format=torch.channels_last), threading.Lock()

    def forward(batch: np.ndarray) -> np.ndarray:
        with lock, torch.inference_mode():  # one at a time: each uses every thread, or the whole GPU
            tensor = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            return np.asarray(network(tensor).float().cpu().numpy())

    return forward


def _convert(network: torch.nn.Module, shape: tuple[int, ...], cache_file: Path | None) -> Any:
    import openvino

    if cache_file is not None and cache_file.exists():
        try:
            return openvino.Core().read_model(cache_file)
        except RuntimeError as error:
            logger.warning("%s is damaged and is made again: %s", cache_file, error)
    example = torch.zeros(1, *shape[1:])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer; the tests compare the results
        # Left to itself the converter has torch run the network four more times, to check the trace.
        traced = torch.jit.trace(network.eval().cpu(), example, strict=False, check_trace=False)
        converted = openvino.convert_model(traced, input=[shape])
    if cache_file is not None:
        from pipelines.fs import atomic_path  # locks of Unix; registered models load without

        with atomic_path(cache_file, suffix=".xml") as description:
            openvino.save_model(converted, description, compress_to_fp16=False)  # writes the weights beside it
            # Before the description: where that exists, the weights are complete.
            description.with_suffix(".bin").replace(cache_file.with_suffix(".bin"))
    return converted


def _in_openvino(converted: Any, precision: str, concurrency: int) -> Forward:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": concurrency,
    }
    with preserved_signal_stack():
        compiled = openvino.Core().compile_model(converted, "CPU", options)
    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(concurrency):
        free.put(compiled.create_infer_request())

    def forward(batch: np.ndarray) -> np.ndarray:
        request = free.get()
        try:
            request.infer({0: batch})
            return np.array(request.get_output_tensor(0).data)
        finally:
            free.put(request)

    return forward
