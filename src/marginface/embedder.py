"""A trained backbone for use: images to embeddings, with the preprocessing it was trained with."""

from pathlib import Path

import torch
from torch import Tensor, nn

from marginface.backbones import create_backbone, load_backbone_weights
from marginface.checkpoints import read_checkpoint
from marginface.data.dataset import FaceDataset
from marginface.data.loader import make_loader
from marginface.data.transforms import Color, to_input
from marginface.errors import InputError, MissingInputError
from marginface.runinfo import RunFolder


class Embedder:
    """A backbone in evaluation mode.

    Args:
        backbone: (B, 3, S, S) to (B, D).
        image_size: S.
        color: channel order it was trained in.
    """

    def __init__(self, backbone: nn.Module, image_size: int, color: Color) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.backbone = backbone.to(self.device).eval()
        self.image_size, self.color = image_size, color

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) RGB to float32 (B, D) of unit length, mirror image added."""
        x = to_input(images.to(self.device), self.color)
        return nn.functional.normalize(self.backbone(x).float() + self.backbone(x.flip(3)).float())

    def embed(self, dataset: FaceDataset, batch_size: int = 128) -> Tensor:
        """(N, D) of a whole dataset, NaN for images that `faulty=skip` leaves out."""
        table: Tensor | None = None
        for images, _, indices in make_loader(dataset, batch_size=batch_size):
            embeddings = self(images).cpu()
            if table is None:
                table = torch.full((len(dataset), embeddings.shape[1]), torch.nan)
            table[indices] = embeddings
        assert table is not None, "datasets are never empty"
        return table


def load_embedder(path: str | Path) -> Embedder:
    """The backbone of a run folder or of one of our checkpoints.

    Raises:
        MissingInputError: no such file.
        InputError: a checkpoint without its configuration.
    """
    path = Path(path)
    path = RunFolder(path).last if path.is_dir() else path
    if not path.is_file():
        raise MissingInputError(f"no checkpoint {path}; give a run folder or a .ckpt file")
    description = read_checkpoint(path).get("marginface", {}).get("description")
    if description is None:
        raise InputError(f"{path} was not written by marginface: it does not say what it holds")
    config = dict(description["config"]["backbone"])
    color = config.pop("color")
    del config["weights"]
    backbone = create_backbone(**config)
    load_backbone_weights(backbone, path)
    return Embedder(backbone, config["image_size"], color)
