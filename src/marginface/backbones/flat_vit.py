"""Vision transformers for faces whose tokens are flattened into the embedding.

insightface's ViT (LVFace's is the same) and CVLface's, with their state-dict keys: patches of 9 or
8 pixels, no class token, ReLU6, and two pairs of a linear layer and a batch normalization behind
all tokens. KP-RPE (Kim et al., CVPR 2024) adds to attention what keypoints say of positions.
"""

from functools import partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, checkpoint, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size, face_cfg, side_of
from marginface.utils.errors import InputError

NECK_EPS = 2e-5  # of the batch normalizations, as in MXNet
_BUCKETS = 7  # relative positions on an axis: -3 to 3
# Five points of faces that were warped onto the standard template of 112 pixels, as shares of the
# side (insightface's; `data.alignment.template` has the same).
TEMPLATE_POINTS = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
    (70.7299, 92.2041),
)  # fmt: skip


class FlatViT(VisionTransformer):
    """(B, 3, S, S) images to (B, num_classes) embeddings, not normalized.

    Args:
        patch_size: side of a patch in pixels.
        embed_dim: D of the tokens; timm's name, as the next three.
        depth: number of blocks.
        num_heads: of attention.
        mlp_ratio: width of the hidden layer over that of the tokens.
        drop_path_rate: stochastic depth, rising to this in the last block.
        mask_ratio: share of the tokens that a training step leaves out; a learned token stands in
            their place at the end (insightface leaves out 0.1).
        mask_token: whether there is such a token; files have it that never use it.
        keypoints: whether attention knows keypoints (KP-RPE).
        num_classes: embedding size.
        img_size: S.
        drop_rate: dropout of the tokens behind the position embedding.
    """

    template: Tensor

    def __init__(
        self,
        patch_size: int = 9,
        embed_dim: int = 512,
        depth: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.05,
        mask_ratio: float = 0.0,
        mask_token: bool = False,
        keypoints: bool = False,
        num_classes: int = 512,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 112,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            class_token=False,
            global_pool="",
            num_classes=0,
            qkv_bias=False,
            act_layer=nn.ReLU6,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            drop_path_rate=drop_path_rate,
            pos_drop_rate=drop_rate,
        )
        if not 0 <= mask_ratio < 1:
            raise InputError(f"mask_ratio must be in [0, 1), got {mask_ratio}")
        if mask_ratio and keypoints:
            raise InputError("mask_ratio does not go with keypoints: those are of all tokens")
        self.img_size = side_of(img_size)
        self.side, self.mask_ratio = self.img_size // patch_size, mask_ratio
        if mask_token or mask_ratio:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
            # One that no step uses would have no gradient, which data-parallel training refuses.
            self.mask_token.requires_grad = mask_ratio > 0
        self.feature = nn.Sequential(
            nn.Linear(self.side**2 * embed_dim, embed_dim, bias=False),
            nn.BatchNorm1d(embed_dim, eps=NECK_EPS),
            nn.Linear(embed_dim, num_classes, bias=False),
            nn.BatchNorm1d(num_classes, eps=NECK_EPS),
        )
        self.keypoint_linear: nn.Linear | None = None
        if keypoints:
            self.keypoint_linear = nn.Linear(10, _BUCKETS**2 * num_heads * depth)
            self.heads = num_heads
            # On the network's device: sent there in every step, it would be waited for.
            template = torch.tensor(TEMPLATE_POINTS)[None] / 112
            self.register_buffer("template", template, persistent=False)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        stem = r"^(?:pos_embed|patch_embed|mask_token|keypoint_linear)"
        return {"stem": stem, "blocks": r"^blocks\.(\d+)"}

    def forward(  # type: ignore[override]
        self, x: Tensor, keypoints: Tensor | None = None
    ) -> Tensor:
        """Embeddings; `keypoints` (B, 5, 2) in [0, 1] are those of the template when not given."""
        check_input_size(x, self.img_size, "flat_vit")
        x = self._pos_embed(self.patch_embed(x))
        kept = self._kept_tokens(x)
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        biases: list[Tensor | None] = [None] * len(self.blocks)
        if self.keypoint_linear is not None:
            biases = list(self._position_biases(x, keypoints))
        again = self.grad_checkpointing and self.training
        for block, bias in zip(self.blocks, biases, strict=True):
            through = block if bias is None else partial(block, attn_mask=bias)
            x = checkpoint(through, x) if again else through(x)
        x = self.norm(x)
        if kept is not None:
            whole = self.mask_token.to(x.dtype).expand(len(x), self.side**2, -1)
            x = whole.scatter(1, kept[..., None].expand(-1, -1, x.shape[2]), x)
        x = x.flatten(1)
        # The last layers decide the angles; they stay out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.feature(x.to(next(self.feature.parameters()).dtype))

    def _kept_tokens(self, x: Tensor) -> Tensor | None:
        """(B, K) which tokens of each image a training step keeps; None for all."""
        if not (self.training and self.mask_ratio):
            return None
        count = round(x.shape[1] * (1 - self.mask_ratio))
        drawn = torch.rand(x.shape[:2], device=x.device).argsort(1)
        return drawn[:, :count].sort(1).values

    def _position_biases(self, x: Tensor, keypoints: Tensor | None) -> Tensor:
        """(depth, B or 1, heads, N, N) what is added to the products of queries and keys."""
        assert self.keypoint_linear is not None
        if keypoints is None:
            keypoints = self.template
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


default_cfgs = generate_default_cfgs(
    {"flat_vit": face_cfg(first_conv="patch_embed.proj", classifier="feature.2")}
)


@register_model
def flat_vit(pretrained: bool = False, **kwargs: Any) -> FlatViT:
    return build_model_with_cfg(FlatViT, "flat_vit", pretrained, **kwargs)
