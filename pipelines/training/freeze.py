"""What of a pretrained encoder does not learn."""

import logging

import torch

logger = logging.getLogger(__name__)


def freeze(encoder: torch.nn.Module, stride: int, height: int, width: int) -> list[torch.nn.Module]:
    """Let what makes the encoder's features down to 1/`stride` of a photo's size learn no more; 0: everything learns.

    Photos are (height, width) pixels. Early features of a pretrained network are general ones, and their gradients cost
    the most, being the largest. What no feature depends on, such as a left-over classifier, is no parameter of the
    training either. Gives the modules to keep in evaluation mode.
    """
    parameters = [one for one in encoder.parameters() if one.requires_grad]
    answer = encoder.eval()(torch.zeros(1, 3, height, width))
    features = [one for one in (answer[0] if isinstance(answer, tuple) else answer) if one.requires_grad]
    if not features:
        return [encoder]
    first_of = {height // one.shape[2]: one for one in reversed(features)}  # by stride
    early = [one for reduction, one in first_of.items() if reduction <= stride]
    frozen = {id(one) for one, used in zip(parameters, _reached(features, parameters), strict=True) if not used}
    if early:
        frozen |= {id(one) for one, used in zip(parameters, _reached(early, parameters), strict=True) if used}
        share = sum(one.numel() for one in parameters if id(one) in frozen) / sum(one.numel() for one in parameters)
        logger.info("%.0f %% of the encoder's weights do not learn (train.frozen_stride)", 100 * share)
    for one in parameters:
        one.requires_grad_(id(one) not in frozen)
    encoder.train()
    return [
        module
        for module in encoder.modules()
        if (own := list(module.parameters())) and not any(one.requires_grad for one in own)
    ]


def _reached(features: list[torch.Tensor], parameters: list[torch.nn.Parameter]) -> list[bool]:
    """Tell for each parameter whether any of the features depends on it."""
    total = torch.stack([one.float().sum() for one in features]).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    return [gradient is not None for gradient in gradients]
