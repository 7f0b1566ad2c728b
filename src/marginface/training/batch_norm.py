"""One image is too few for batch normalization: said before training, or where one is left."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from marginface.utils.errors import InputError


def batch_norm_in(network: nn.Module) -> str | None:
    """The first batch normalization of a network, by its name in it."""
    return next((n for n, part in network.named_modules() if isinstance(part, _BatchNorm)), None)


def check_batch_norm(backbone: nn.Module, images: int, processes: int, accumulate: int) -> None:
    """InputError for one image at a time where batch normalization wants several."""
    norm = batch_norm_in(backbone)
    if images == 1 and norm is not None:
        raise InputError(
            f"data.batch_size={images * processes * accumulate} over {processes} processes x "
            f"{accumulate} accumulation steps is one image at a time, and batch normalization "
            f"(backbone.{norm}) needs at least 2: raise data.batch_size, lower "
            "trainer.accumulate_grad_batches, or take a network without it (backbone=vit_tiny)"
        )


def check_images_left(backbone: nn.Module, images: int) -> None:
    """The same for a batch of which data.dataset.faulty=skip has left one image."""
    norm = batch_norm_in(backbone) if images == 1 else None
    if norm is not None:
        raise InputError(
            "faulty images were left out (data.dataset.faulty=skip) and one is left in a batch; "
            f"batch normalization (backbone.{norm}) needs at least 2: raise data.batch_size, or "
            "remove the images that were named"
        )
