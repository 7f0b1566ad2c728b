"""Vision transformers for faces whose tokens are flattened into the embedding.

insightface's ViT (LVFace's is the same) and CVLface's, with their state-dict keys: patches of 9 or
8 pixels, no class token, ReLU6, and two pairs of a linear layer and a batch normalization behind
all tokens. KP-RPE (Kim et al., CVPR 2024) adds to attention what keypoints say of positions.
"""

from functools import partial
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size

NECK_EPS = 2e-5  # of the batch normalizations, as in MXNet
_BUCKETS = 7  # relative positions on an axis: -3 to 3
# Five points of faces that were warped onto the standard template of 112 pixels, as shares of the
# side (insightface's; `data.alignment.template` has the same).
TEMPLATE_POINTS = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
    (70.7299, 92.2041),
)  # fmt: skip


class FlatViTShape(NamedTuple):
    """What tells these transformers apart.

    Attributes:
        patch_size: side of a patch in pixels.
        width: D of the tokens.
        depth: number of blocks.
        heads: of attention.
        mlp_ratio: width of the hidden layer over that of the tokens.
        mask_token: whether the file has one; it has no use but in masked training.
        keypoints: whether attention knows keypoints (KP-RPE).
        embedding_size: of the output.
        image_size: S.
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    mask_token: bool = False
    keypoints: bool = False
    embedding_size: int = 512
    image_size: int = 112


class FlatViT(VisionTransformer):
    """(B, 3, S, S) images to (B, D) embeddings, not normalized."""

    def __init__(self, shape: FlatViTShape, drop_path: float = 0.05) -> None:
        super().__init__(
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            embed_dim=shape.width,
            depth=shape.depth,
            num_heads=shape.heads,
            mlp_ratio=shape.mlp_ratio,
            class_token=False,
            global_pool="",
            num_classes=0,
            qkv_bias=False,
            act_layer=nn.ReLU6,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            drop_path_rate=drop_path,
        )
        self.image_size, self.embedding_size = shape.image_size, shape.embedding_size
        self.side = shape.image_size // shape.patch_size
        if shape.mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.feature = nn.Sequential(
            nn.Linear(self.side**2 * shape.width, shape.width, bias=False),
            nn.BatchNorm1d(shape.width, eps=NECK_EPS),
            nn.Linear(shape.width, shape.embedding_size, bias=False),
            nn.BatchNorm1d(shape.embedding_size, eps=NECK_EPS),
        )
        self.keypoint_linear: nn.Linear | None = None
        if shape.keypoints:
            self.keypoint_linear = nn.Linear(10, _BUCKETS**2 * shape.heads * shape.depth)
            self.heads = shape.heads

    def forward(  # type: ignore[override]
        self, x: Tensor, keypoints: Tensor | None = None
    ) -> Tensor:
        """Embeddings; `keypoints` (B, 5, 2) in [0, 1] are those of the template when not given."""
        check_input_size(x, self.image_size, "flat_vit")
        x = self._pos_embed(self.patch_embed(x))
        biases: list[Tensor | None] = [None] * len(self.blocks)
        if self.keypoint_linear is not None:
            biases = list(self._position_biases(x, keypoints))
        for block, bias in zip(self.blocks, biases, strict=True):
            x = block(x) if bias is None else block(x, attn_mask=bias)
        x = self.norm(x).flatten(1)
        # The last layers decide the angles; they stay out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.feature(x.to(next(self.feature.parameters()).dtype))

    def _position_biases(self, x: Tensor, keypoints: Tensor | None) -> Tensor:
        """(depth, B or 1, heads, N, N) what is added to the products of queries and keys."""
        assert self.keypoint_linear is not None
        if keypoints is None:
            keypoints = x.new_tensor(TEMPLATE_POINTS)[None] / 112
        centers = (torch.arange(self.side, device=x.device, dtype=x.dtype) + 0.5) / self.side
        row, column = torch.meshgrid(centers, centers, indexing="ij")
        tokens = torch.stack([column, row], -1).view(1, -1, 1, 2)  # x first
        offsets = (tokens - keypoints[:, None].to(x)).flatten(2)
        found = self.keypoint_linear(offsets)  # (B, N, 49 heads depth)
        found = found.view(*found.shape[:2], len(self.blocks), self.heads, _BUCKETS**2)
        found = found.permute(2, 0, 3, 1, 4)  # (depth, B, heads, N, 49)
        bucket = self._buckets(x.device).expand(*found.shape[:3], -1, -1)
        return found.gather(-1, bucket)

    def _buckets(self, device: torch.device) -> Tensor:
        """(N, N) which of the 49 relative positions two tokens have."""
        place = torch.arange(self.side, device=device)
        row, column = (v.flatten() for v in torch.meshgrid(place, place, indexing="ij"))

        def piece(offset: Tensor) -> Tensor:
            # 0, 1, 2 as they are, 3 as 2, and 3 for all that is further.
            size = offset.abs()
            near = size.clamp(max=2)
            return offset.sign() * torch.where(size >= 4, 3, near)

        down, across = (piece(v[:, None] - v[None, :]) for v in (row, column))
        return _BUCKETS * (down + 3) + across + 3
