"""Saving matplotlib figures as PNG files."""

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from marginface.utils.files import atomic_write

mpl.use("Agg")  # files only; no window system needed


def save_figure(figure: Figure, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    with atomic_write(path) as file:
        # A palette: a quarter of the bytes, and nothing to see of it in curves.
        Image.open(drawn).convert("RGB").quantize(64).save(file, format="png", optimize=True)
    plt.close(figure)
