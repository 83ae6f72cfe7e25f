"""Networks outside of torch give what torch gives."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.segmentation import runtime
from pipelines.segmentation.runtime import compile_network


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1)
    return torch.nn.Sequential(*layers, torch.nn.Softmax(dim=1)).eval()


def torch_output(network: torch.nn.Module, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_every_caller_gets_what_torch_gives(network: torch.nn.Module, concurrency: int) -> None:
    photos = np.random.default_rng(0).normal(size=(60, 1, 3, 16, 12)).astype(np.float32)
    forward = compile_network(network, (3, 16, 12), concurrency=concurrency)

    with ThreadPoolExecutor(8) as people:
        outputs = list(people.map(forward, photos))

    for photo, output in zip(photos, outputs, strict=True):
        np.testing.assert_allclose(output, torch_output(network, photo), atol=1e-5)


def test_after_an_input_of_a_wrong_shape_the_network_goes_on(network: torch.nn.Module) -> None:
    photo = np.random.default_rng(0).normal(size=(1, 3, 16, 12)).astype(np.float32)
    forward = compile_network(network, (3, 16, 12))

    with pytest.raises(RuntimeError, match="shape"):
        forward(photo[..., :5])

    np.testing.assert_allclose(forward(photo), torch_output(network, photo), atol=1e-5)


@pytest.mark.parametrize(
    ("fast", "allowed", "differs"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_precision_is_reduced_where_that_is_fast_and_allowed(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, *, fast: bool, allowed: bool, differs: bool
) -> None:
    batch = np.random.default_rng(0).normal(size=(1, 3, 16, 12)).astype(np.float32)
    if fast and not runtime.multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    monkeypatch.setattr(runtime, "multiplies_bfloat16", lambda: fast)

    output = compile_network(network, (3, 16, 12), reduced_precision=allowed)(batch)

    farthest = np.abs(output - torch_output(network, batch)).max()
    assert (1e-5 < farthest < 1e-2) if differs else farthest <= 1e-5


def test_a_result_is_not_overwritten_by_the_next(network: torch.nn.Module) -> None:
    forward = compile_network(network, (3, 8, 8))
    first = forward(np.zeros((1, 3, 8, 8), np.float32))
    before = first.copy()

    forward(np.ones((1, 3, 8, 8), np.float32))

    np.testing.assert_array_equal(first, before)


def test_a_network_that_was_converted_once_is_read_from_the_disk(network: torch.nn.Module, tmp_path: Path) -> None:
    batch, cache_file = np.ones((1, 3, 8, 8), np.float32), tmp_path / "cache" / "network.xml"
    first = compile_network(network, (3, 8, 8), cache_file=cache_file)(batch)

    again = compile_network(torch.nn.Identity(), (3, 8, 8), cache_file=cache_file)(batch)

    np.testing.assert_array_equal(first, again)
    assert sorted(path.name for path in cache_file.parent.iterdir()) == ["network.bin", "network.xml"]
