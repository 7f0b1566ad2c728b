"""A model where insightface's FaceAnalysis looks for one: a folder with an ONNX file in it.

FaceAnalysis takes all .onnx files of a folder, tells what they are by their input, and takes mean
and standard deviation from the names of the first nodes: 127.5 both unless there is a subtraction
and a multiplication among them. A float graph of 112 pixels of ours is read rightly so.
"""

import shutil
from pathlib import Path

from marginface.data.alignment.template import standard_template
from marginface.data.preprocessing import MIDDLE
from marginface.inference.export_onnx import ExportOptions
from marginface.inference.model_file import ModelFile
from marginface.utils.errors import InputError

_NAME = "w600k_marginface.onnx"
_SIZE = 112


def check_pack(folder: Path, model: ModelFile, options: ExportOptions) -> None:
    """InputError for a model that FaceAnalysis would take for another one, or a name in use."""
    taken = model.input
    wrong = {
        "its images are not 112 pixels": taken.size != _SIZE,
        "it takes BGR, and FaceAnalysis gives RGB": taken.color != "rgb",
        "its mean and standard deviation are not 127.5": not taken.mean == taken.std == MIDDLE,
        "its template is another one": abs(taken.points - standard_template(_SIZE)).max() > 1e-3
        if taken.size == _SIZE
        else False,
        "FaceAnalysis wants the float graph, leave --input float": options.layout != "float",
    }
    reasons = [reason for reason, holds in wrong.items() if holds]
    if reasons:
        raise InputError(f"--pack {folder}: {'; '.join(reasons)}")
    if (folder / _NAME).exists():
        raise InputError(f"{folder / _NAME} exists; choose another folder, nothing is overwritten")


def write_pack(folder: Path, exported: Path) -> Path:
    """Copy an exported graph, or that of a shared folder, into the pack; returns the copy."""
    source = exported / "model.onnx" if exported.is_dir() else exported
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _NAME
    partial = folder / f".{_NAME}.copying"
    shutil.copyfile(source, partial)
    return partial.replace(target)
