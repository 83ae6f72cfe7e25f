"""Freeze the early part of a pretrained encoder."""

import logging

import torch

logger = logging.getLogger(__name__)


def freeze(encoder: torch.nn.Module, stride: int, height: int, width: int) -> list[torch.nn.Module]:
    """Freeze the parameters of features down to 1/`stride` of a photo's size; with 0 everything learns.

    Photos are (height, width) pixels. Early features of a pretrained network are general ones, and their gradients cost
    the most, being the largest. Parameters that no feature depends on, such as those of an unused classifier, are
    frozen as well. Return the modules to keep in evaluation mode.
    """
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    answer = encoder.eval()(torch.zeros(1, 3, height, width))
    outputs = answer[0] if isinstance(answer, tuple) else answer
    features = [feature for feature in outputs if feature.requires_grad]
    if not features:
        return [encoder]
    first_of = {height // feature.shape[2]: feature for feature in reversed(features)}  # by stride
    early = [feature for reduction, feature in first_of.items() if reduction <= stride]
    frozen = {id(parameter) for parameter, used in _used_by(features, parameters) if not used}
    if early:
        frozen |= {id(parameter) for parameter, used in _used_by(early, parameters) if used}
        sizes = {id(parameter): parameter.numel() for parameter in parameters}
        share = sum(sizes[name] for name in frozen) / sum(sizes.values())
        logger.info("%.0f %% of the encoder's weights do not learn (train.frozen_stride)", 100 * share)
    for parameter in parameters:
        parameter.requires_grad_(id(parameter) not in frozen)
    encoder.train()
    return [
        module
        for module in encoder.modules()
        if (own := list(module.parameters())) and not any(parameter.requires_grad for parameter in own)
    ]


def _used_by(
    features: list[torch.Tensor], parameters: list[torch.nn.Parameter]
) -> list[tuple[torch.nn.Parameter, bool]]:
    """Return each parameter with whether any of the features depends on it."""
    total = torch.stack([feature.float().sum() for feature in features]).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    return [(parameter, gradient is not None) for parameter, gradient in zip(parameters, gradients, strict=True)]
