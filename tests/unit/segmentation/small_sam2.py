"""A SAM 2.1 of transformers' own classes with random weights, small enough for a test."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import Sam2Model

SIZE = 128  # the encoder's input in pixels


def small_sam2(seed: int = 0) -> "Sam2Model":
    """Return a network of four stages with one global block; its weights follow from the seed."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    torch.manual_seed(seed)
    grid, wide = SIZE // 16, 32
    backbone = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[SIZE, SIZE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 2, 2],
        window_size_per_stage=[4, 4, 4, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2], initializer_range=0.2,
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=wide, initializer_range=0.2,
        backbone_feature_sizes=[[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
    )  # fmt: skip
    prompts = Sam2PromptEncoderConfig(hidden_size=wide, image_size=SIZE, mask_input_channels=8)
    decoder = Sam2MaskDecoderConfig(hidden_size=wide, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    config = Sam2Config(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder, initializer_range=0.2
    )
    network = Sam2Model(config).eval()
    torch.nn.init.normal_(network.no_memory_embedding)
    return network
