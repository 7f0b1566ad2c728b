"""Somebody else's network: 150 pixels, its own mean and template; dlib's, from the npm package.

The weights of face-api (MIT; those of dlib are CC0) are read here, written as an ONNX file by
torch, and opened like any file that says nothing of itself.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import marginface
from marginface.data import load_pairs
from marginface.evaluation import evaluate_pairs
from marginface.inference.onnx_graph import graph_bytes, make_graph

# dlib's mean face of 68 points with a quarter of padding, in 150 pixels: 100 p + 25; middles of the
# eyes, tip of the nose, corners of the mouth.
TEMPLATE = [[47.55, 46.60], [100.48, 46.60], [74.01, 76.56], [50.41, 103.02], [97.61, 103.02]]
MEAN = [122.782, 117.001, 104.298]


class Dlib(nn.Module):
    """dlib_face_recognition_resnet_model_v1 with batch normalization folded to scale and bias."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterDict(
            {name.replace("/", "__"): nn.Parameter(value) for name, value in weights.items()}
        )

    def conv(self, x: Tensor, name: str, stride: int, pad: int) -> Tensor:
        w = self.weights
        x = F.conv2d(x, w[f"{name}__conv__filters"], w[f"{name}__conv__bias"], stride, pad)
        return (
            x * w[f"{name}__scale__weights"][:, None, None]
            + w[f"{name}__scale__biases"][:, None, None]
        )

    def block(self, x: Tensor, name: str, down: bool) -> Tensor:
        y = F.relu(self.conv(x, f"{name}__conv1", 2 if down else 1, 0 if down else 1))
        y = self.conv(y, f"{name}__conv2", 1, 1)
        if down:
            x = F.avg_pool2d(x, 2, 2)
            high, wide = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
            x, y = (F.pad(v, (0, wide - v.shape[3], 0, high - v.shape[2])) for v in (x, y))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x, "conv32_down", 2, 0))
        x = F.max_pool2d(x, 3, 2)
        for width, count in ((32, 3), (64, 3), (128, 2), (256, 2)):
            if width > 32:
                x = self.block(x, f"conv{width}_down", True)
            for n in range(1, count + 1):
                x = self.block(x, f"conv{width}_{n}", False)
        x = self.block(x, "conv256_down_out", True)
        return x.mean((2, 3)) @ self.weights["fc"]


def read_weights(folder: Path) -> dict[str, Tensor]:
    manifest = json.loads((folder / "face_recognition_model-weights_manifest.json").read_text())
    content = (folder / "face_recognition_model.bin").read_bytes()
    found, at = {}, 0
    for entry in manifest[0]["weights"]:
        shape = entry["shape"]
        count = int(np.prod(shape))
        stored = entry.get("quantization", {"dtype": "float32", "scale": 1, "min": 0})
        raw = np.frombuffer(content, stored["dtype"], count, at)
        at += raw.nbytes
        value = torch.from_numpy(raw.astype(np.float32) * stored["scale"] + stored["min"])
        value = value.reshape(shape)
        found[entry["name"]] = value.permute(3, 2, 0, 1).contiguous() if len(shape) == 4 else value
    return found


@pytest.mark.long
def test_dlibs_network(faces: Path, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    package = ["pack", "@vladmandic/face-api@1.7.15", "--silent"]
    packed = subprocess.run(
        [npm, *package], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    if packed.returncode:
        pytest.skip(f"npm cannot fetch the package: {packed.stderr[-200:]}")
    shutil.unpack_archive(str(tmp_path / packed.stdout.strip()), tmp_path)
    network = Dlib(read_weights(tmp_path / "package" / "model"))
    graph = make_graph(network, 150, as_bytes=False, opset=18)
    (tmp_path / "dlib.onnx").write_bytes(graph_bytes(graph))
    stated = {"color": "rgb", "mean": MEAN, "std": [256.0] * 3, "template": TEMPLATE}
    model = marginface.load(tmp_path / "dlib.onnx", input=stated, detector="none")
    pairs = load_pairs(faces / "dev_cfp_ff.bin")
    aligned = pairs.images.permute(0, 2, 3, 1).numpy()
    embeddings = model.embed(list(aligned)).embedding
    accuracy = evaluate_pairs(torch.from_numpy(embeddings), torch.from_numpy(pairs.same)).accuracy
    stretched = [np.asarray(_stretched(image)) for image in aligned]
    resized = model.embed_aligned(np.stack(stretched))
    worse = evaluate_pairs(torch.from_numpy(resized), torch.from_numpy(pairs.same)).accuracy
    print(f"accuracy {accuracy:.4f} on its template, {worse:.4f} stretched")
    assert accuracy >= 0.98
    assert accuracy >= worse + 0.02, "the template makes no difference"


def _stretched(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(image, (150, 150))
