"""What a device can do."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether 16-bit products are fast there: on every GPU, on CPUs with instructions for them."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
