"""A page on this machine to try a model: two photographs beside each other, or who is in one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from marginface.data.alignment.faces import AlignedFace
from marginface.data.images import Pixels
from marginface.inference.gallery import Gallery
from marginface.inference.model import Model
from marginface.inference.pixels import check_photo
from marginface.inference.verification import Verification
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError
from marginface.utils.optional_packages import require_package

ADDRESS = "127.0.0.1"
_GREEN = (40, 170, 80)
_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_FORGET = 60  # seconds after which the page's own copies of pictures are deleted
_NOTE = (
    "Nothing is kept: pictures are deleted a minute or two after they were given, and when the "
    "program ends. A cosine says how alike two faces are to this network, not how likely they are "
    "one person. The page cannot tell a person from a photograph of one."
)

Comparison = tuple[Pixels | None, Pixels | None, Pixels | None, Pixels | None, str]


def compare(
    model: Model, first: Pixels | None, second: Pixels | None, fmr: float, threshold: float | None
) -> Comparison:
    """Both photographs with the face marked, both aligned faces, and what it means, in Markdown.

    Args:
        first, second: uint8 RGB (H, W, 3), None where none was given.
        fmr: false match rate whose threshold is taken.
        threshold: a cosine instead.
    """
    sides: list[tuple[Pixels | None, Pixels | None]] = []
    units = []
    for name, photo in (("first", first), ("second", second)):
        if photo is None:
            return None, None, None, None, f"Give a {name} photograph."
        try:
            rgb = check_photo(photo, f"the {name} photograph")
            (face,) = model.finder(face="largest")(rgb, name)
            units.append(model.embed_aligned(face.pixels)[0])
        except InputError as error:
            return None, None, None, None, f"The {name} photograph: {error}"
        sides.append((marked(rgb, face), face.pixels))
    cosine = float(units[0] @ units[1])
    try:
        limit = model.limit(fmr, threshold)
        text = _meaning(limit, cosine)
    except InputError as error:
        text = f"## Cosine {cosine:.3f}\n\nWithout a threshold this says nothing: {error}"
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1], text


def _meaning(limit: Verification, cosine: float) -> str:
    same = cosine >= limit.threshold
    lines = [
        f"## {'The same person' if same else 'Two people'}",
        f"Cosine **{cosine:.3f}**, threshold **{limit.threshold:.3f}**.",
    ]
    if limit.fmr is None:
        lines.append("The threshold was given; nothing is known of its false match rate.")
    else:
        lines.append(
            f"At this threshold {_one_in(limit.fmr)} pairs of two different people is called the "
            f"same (FMR {rate_name(limit.fmr)}{_interval(limit)}), as measured on {limit.set} with "
            f"{limit.impostors:,} pairs."
        )
    if limit.caution is not None:
        lines.append(f"**Careful:** {limit.caution}.")
    return "\n\n".join(lines)


def _interval(limit: Verification) -> str:
    return "" if limit.low is None else f", 95 % {limit.low:.1e} to {limit.high:.1e}"


def _one_in(rate: float) -> str:
    return f"one in {round(1 / rate):,}"


def find(
    gallery: Gallery, photo: Pixels | None, fpir: float, threshold: float | None
) -> tuple[Pixels | None, str]:
    """The photograph with all faces marked and numbered, and who they are, in Markdown."""
    if photo is None:
        return None, "Give a photograph."
    try:
        rgb = check_photo(photo, "the photograph")
        faces = gallery.model.finder(face="all")(rgb, "photo")
        limit = gallery.threshold(fpir, threshold)
        units = np.stack([face.pixels for face in faces])
        answers = gallery.identify_aligned(units, threshold=limit.cosine)
    except InputError as error:
        return None, f"{error}"
    drawn = rgb
    lines = [f"{limit}", "| face | who | cosine | next |", "|---|---|---|---|"]
    for number, (face, answer) in enumerate(zip(faces, answers, strict=True), start=1):
        drawn = marked(drawn, face, str(number))
        after = answer.candidates[1:2]
        words = f"{after[0][0]} {after[0][1]:.3f}" if after else ""
        lines.append(f"| {number} | {answer.name or 'unknown'} | {answer.cosine:.3f} | {words} |")
    return drawn, lines[0] + "\n\n" + "\n".join(lines[1:])


def marked(rgb: Pixels, face: AlignedFace, word: str = "") -> Pixels:
    """The photograph with a box around a face, its five points, and a word at the box."""
    if face.points is None:
        return rgb
    drawn = rgb.copy()
    extent = np.ptp(face.points, axis=0).max()
    middle = face.points.mean(0)
    (left, top), (right, bottom) = middle - 1.1 * extent, middle + 1.1 * extent
    width = max(1, round(max(rgb.shape[:2]) / 250))
    corners = (round(left), round(top)), (round(right), round(bottom))
    cv2.rectangle(drawn, *corners, _GREEN, width)
    for x, y in face.points:
        cv2.circle(drawn, (round(x), round(y)), 2 * width, _GREEN, -1)
    if word:
        at = (corners[0][0] + 2 * width, corners[0][1] + 12 * width)
        cv2.putText(drawn, word, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * width, _GREEN, width)
    return drawn


def make_page(
    model: Model,
    gallery: Gallery | None,
    *,
    fmr: float,
    fpir: float,
    threshold: float | None,
) -> Any:
    """The page, a gradio.Blocks, not served yet."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gr = require_package("gradio", extra="demo")
    rates = sorted({*_RATES, fmr}, reverse=True)
    forget = (_FORGET, _FORGET)
    with gr.Blocks(title="marginface", analytics_enabled=False, delete_cache=forget) as page:
        name = (model.description.backbone or {}).get("name", "a face network")
        gr.Markdown(f"# {name}, to try")
        with gr.Tab("Two photographs"):
            with gr.Row():
                first, second = (
                    gr.Image(
                        label=name, type="numpy", elem_id=name, sources=["upload", "clipboard"]
                    )
                    for name in ("first", "second")
                )
            rate = gr.Dropdown(
                [(f"FMR {rate_name(r)}", r) for r in rates], value=fmr, label="false match rate",
                visible=threshold is None,
            )  # fmt: skip
            button = gr.Button("Compare", variant="primary", elem_id="compare")
            words = gr.Markdown(elem_id="meaning")
            with gr.Row():
                boxes = [gr.Image(label=f"{n}, with the face found") for n in ("first", "second")]
            with gr.Row():
                crops = [gr.Image(label=f"{n}, aligned", height=160) for n in ("first", "second")]
            button.click(
                lambda a, b, r: compare(model, a, b, r, threshold),
                [first, second, rate],
                [*boxes, *crops, words],
                api_name="compare",
            )
        if gallery is not None:
            with gr.Tab("Who is it"):
                photo = gr.Image(label="photograph", type="numpy", elem_id="photo")
                search = gr.Button("Search", variant="primary", elem_id="search")
                answer = gr.Markdown(elem_id="answer")
                found = gr.Image(label="faces found")
                search.click(
                    lambda p: find(gallery, p, fpir, threshold),
                    [photo],
                    [found, answer],
                    api_name="identify",
                )
        gr.Markdown(_NOTE)
    return page


@contextmanager
def served(
    model: Model,
    gallery: Gallery | None = None,
    *,
    port: int = 0,
    fmr: float = 1e-3,
    fpir: float = 0.01,
    threshold: float | None = None,
) -> Iterator[Any]:
    """The page, served to this machine alone within the block; its address is `local_url`.

    Args:
        model: to be tried.
        gallery: of people to be found.
        port: of 127.0.0.1; 0 for any that is free.
        fmr: false match rate of two photographs.
        fpir: false positive identification rate of a search.
        threshold: a cosine instead of both.

    Raises:
        InputError: gradio is not installed, no detector, or the port is in use.
    """
    gr = require_package("gradio", extra="demo")
    model.finder(face="largest")  # a detector that is missing is an error now
    with tempfile.TemporaryDirectory(prefix="marginface-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # readable by its owner alone, deleted at the end
        page = make_page(model, gallery, fmr=fmr, fpir=fpir, threshold=threshold)
        try:
            page.launch(
                server_name=ADDRESS,
                server_port=port or None,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                theme=gr.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
            )
        except OSError as error:
            raise InputError(
                f"--port {port} is in use on {ADDRESS}; choose another ({error})"
            ) from error
        try:
            yield page
        finally:
            page.close()
