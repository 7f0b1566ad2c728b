"""Drawing a made-up person: geometry turned by a pose, light, expression, occlusion, a camera.

A person is geometry (face, jaw, eyes, brows, nose, mouth, ears), skin, hair, marks and maybe a
beard. A photograph of that person adds pose, light, expression, glasses or an occluder, blur, noise
and background. Raise GENERATOR_VERSION in synthetic.py whenever a pixel changes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.images import Pixels

_CANVAS = 224  # drawn at twice the default output size, then scaled down
_SHIFT = 4  # OpenCV's fixed-point coordinates: sixteenths of a pixel
Points = NDArray[np.float64]
Color = NDArray[np.float64]


@dataclass(frozen=True)
class FaceModel:
    """What stays the same in all photographs; lengths in half face heights, x right, y down."""

    face_width: float
    jaw: float
    chin: float
    skin: Color
    hair: Color
    hairline: float
    hair_sides: float
    hair_volume: float
    fringe: float
    eye_gap: float
    eye_height: float
    eye_width: float
    eye_openness: float
    eye_tilt: float
    iris: Color
    brow_height: float
    brow_thickness: float
    brow_tilt: float
    brow_length: float
    nose_length: float
    nose_width: float
    mouth_height: float
    mouth_width: float
    lip: float
    lip_color: Color
    beard: float
    marks: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "FaceModel":
        """A random person."""
        tone = rng.uniform(0, 1)
        skin = (1 - tone) * np.array([236.0, 200, 176]) + tone * np.array([112.0, 76, 54])
        hair_tone = rng.uniform(0, 1) ** 2
        hair = (1 - hair_tone) * np.array([38.0, 28, 24]) + hair_tone * np.array([190.0, 150, 90])
        return cls(
            face_width=rng.uniform(0.64, 0.82),
            jaw=rng.uniform(0.55, 0.95),
            chin=rng.uniform(0.92, 1.06),
            skin=skin + rng.normal(0, 5, 3),
            hair=hair + rng.normal(0, 6, 3),
            hairline=rng.uniform(-0.80, -0.50),
            hair_sides=rng.uniform(-0.5, 1.0),
            hair_volume=rng.uniform(1.05, 1.30),
            fringe=rng.uniform(-0.25, 0.25),
            eye_gap=rng.uniform(0.25, 0.35),
            eye_height=rng.uniform(-0.22, -0.08),
            eye_width=rng.uniform(0.10, 0.15),
            eye_openness=rng.uniform(0.035, 0.075),
            eye_tilt=rng.uniform(-0.25, 0.25),
            iris=np.array([rng.uniform(30, 110), rng.uniform(40, 110), rng.uniform(30, 130)]),
            brow_height=rng.uniform(0.10, 0.19),
            brow_thickness=rng.uniform(0.018, 0.050),
            brow_tilt=rng.uniform(-0.35, 0.35),
            brow_length=rng.uniform(0.13, 0.20),
            nose_length=rng.uniform(0.26, 0.44),
            nose_width=rng.uniform(0.09, 0.17),
            mouth_height=rng.uniform(0.46, 0.60),
            mouth_width=rng.uniform(0.17, 0.30),
            lip=rng.uniform(0.030, 0.075),
            lip_color=np.array(
                [rng.uniform(-10, 40), rng.uniform(-60, -20), rng.uniform(-45, -10)]
            ),
            beard=max(0.0, rng.uniform(-1.5, 1.0)),
            marks=rng.uniform([-0.5, -0.5, 0.012], [0.5, 0.8, 0.03], (rng.integers(0, 3), 3)),
        )


class _Canvas:
    """Draws shapes given on the face's surface: turned by the pose, then put on the canvas."""

    def __init__(self, image: NDArray[np.uint8], person: FaceModel, pose: Points) -> None:
        self.image = image
        self.width = person.face_width
        yaw, pitch, roll = pose[:3]
        self.scale, self.offset = pose[3] * _CANVAS * 0.40, pose[4:6] * _CANVAS
        cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        self.rotation = tilt @ nod @ turn

    def project(self, points: Points, lift: float = 0.0) -> NDArray[np.int32]:
        """Points (n, 2) on the surface of an ellipsoid to fixed-point canvas coordinates."""
        inside = 1 - (points[:, 0] / self.width) ** 2 - (points[:, 1] / 1.1) ** 2
        depth = 0.75 * np.sqrt(np.clip(inside, 0, None)) + lift
        turned = np.column_stack([points, depth]) @ self.rotation.T
        at = turned[:, :2] * self.scale + _CANVAS * np.array([0.5, 0.52]) + self.offset
        return np.round(at * (1 << _SHIFT)).astype(np.int32)

    def polygon(self, points: Points, color: Color, lift: float = 0.0) -> None:
        cv2.fillPoly(self.image, [self.project(points, lift)], _bgr(color), cv2.LINE_AA, _SHIFT)

    def line(self, points: Points, color: Color, thickness: float, lift: float = 0.0) -> None:
        pixels = max(1, round(thickness * self.scale))
        path = [self.project(points, lift)]
        cv2.polylines(self.image, path, False, _bgr(color), pixels, cv2.LINE_AA, _SHIFT)

    def ellipse(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        color: Color,
        angle: float = 0.0,
        lift: float = 0.0,
    ) -> None:
        self.polygon(_ellipse(center, radii, angle), color, lift)


def render_face(person: FaceModel, rng: np.random.Generator, image_size: int = 112) -> Pixels:
    """One (S, S, 3) picture of a person; everything about it but the person comes from `rng`."""
    image = _background(rng)
    pose = np.concatenate(
        [rng.normal(0, [0.42, 0.16, 0.06]), [rng.normal(1, 0.04)], rng.normal(0, 0.018, 2)]
    )
    canvas = _Canvas(image, person, pose)
    _draw_head(canvas, person, rng)
    _draw_features(canvas, person, rng)
    _draw_occluder(canvas, rng)
    return _camera(image, rng, image_size)


def _draw_head(canvas: _Canvas, person: FaceModel, rng: np.random.Generator) -> None:
    hair, skin = person.hair, person.skin
    width = person.face_width
    back = _ellipse((0, -0.12), (width * person.hair_volume, 0.98))
    back[:, 1] = np.where(back[:, 1] > person.hair_sides, person.hair_sides, back[:, 1])
    canvas.polygon(back, hair, lift=-0.2)
    canvas.polygon(
        np.array([[-0.3, 0.6], [0.3, 0.6], [0.42, 1.6], [-0.42, 1.6]]), skin * 0.82, -0.3
    )
    for side in (-1, 1):
        canvas.ellipse((side * width, 0.02), (0.07, 0.17), skin * 0.9)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    lower = np.clip(y, 0, 1)
    narrowing = 1 - (1 - person.jaw) * lower**1.5
    outline = np.column_stack([width * x * narrowing, np.where(y > 0, person.chin, 0.95) * y])
    canvas.polygon(outline, skin)
    if person.beard > 0:
        low = outline[outline[:, 1] > 0.15]
        low = low[np.argsort(low[:, 0])]
        inner = low[::-1] * np.array([0.62, 0.0]) + np.array([0.0, 0.42])
        mixed = skin * (1 - 0.75 * person.beard) + hair * 0.75 * person.beard
        canvas.polygon(np.concatenate([low, inner]), mixed)
    top = _ellipse((0, -0.16), (width * 1.04, 0.86))
    top = top[top[:, 1] < person.hairline]
    if len(top) > 2:
        top = top[np.argsort(top[:, 0])]
        fringe = np.array([[person.fringe, person.hairline + 0.12 * abs(person.fringe)]])
        canvas.polygon(np.concatenate([top, fringe]), hair * rng.normal(1, 0.04))


def _draw_features(canvas: _Canvas, person: FaceModel, rng: np.random.Generator) -> None:
    skin, dark = person.skin, person.hair * 0.6
    smile, surprise = rng.normal(0, 0.05), rng.normal(0, 0.02)
    openness = person.eye_openness * np.clip(rng.normal(1, 0.25), 0.15, 1.6)
    gaze = rng.normal(0, 0.02, 2)
    for side in (-1.0, 1.0):
        center = (side * person.eye_gap, person.eye_height)
        tilt = side * person.eye_tilt
        canvas.ellipse(center, (person.eye_width * 1.25, openness * 1.9), skin * 0.85, tilt)
        canvas.ellipse(center, (person.eye_width, openness), np.array([236.0, 236, 232]), tilt)
        radius = min(0.055, openness * 1.05)
        iris = (center[0] + gaze[0], center[1] + gaze[1] * 0.4)
        canvas.ellipse(iris, (radius, radius), person.iris)
        canvas.ellipse(iris, (radius * 0.45, radius * 0.45), np.array([12.0, 12, 14]))
        lid = _ellipse(center, (person.eye_width, openness), tilt)[12:24]
        canvas.line(lid, skin * 0.45, 0.014)
        height = person.eye_height - person.brow_height + surprise
        run = np.linspace(-1, 1, 5)
        brow = np.column_stack(
            [
                side * person.eye_gap + run * person.brow_length,
                height + side * run * person.brow_tilt * 0.15 - 0.03 * (1 - run**2),
            ]
        )
        canvas.line(brow, dark, person.brow_thickness * 1.6)
    tip = person.eye_height + person.nose_length
    half = person.nose_width
    bridge = np.array([[0.035, person.eye_height + 0.05], [half * 0.5, tip - 0.08], [half, tip]])
    shade = 0.80 if rng.random() < 0.5 else 0.86
    canvas.line(bridge, skin * shade, 0.022, lift=0.12)
    canvas.line(
        np.array([[-half, tip], [-half * 0.4, tip + 0.03], [half * 0.4, tip + 0.03], [half, tip]]),
        skin * 0.68,
        0.028,
        lift=0.14,
    )
    for side in (-1.0, 1.0):
        canvas.ellipse((side * half * 0.55, tip), (0.03, 0.018), skin * 0.4, lift=0.14)
    _draw_mouth(canvas, person, smile, max(0.0, rng.normal(-0.02, 0.05)))
    for x, y, radius in person.marks:
        canvas.ellipse((x * person.face_width, y), (radius, radius), skin * 0.5)


def _draw_mouth(canvas: _Canvas, person: FaceModel, smile: float, gap: float) -> None:
    run = np.linspace(-1, 1, 11)
    middle = person.mouth_height - smile * run**2
    x = run * person.mouth_width * (1 + smile)
    arch = np.sqrt(np.clip(1 - run**2, 0, None))
    upper = np.column_stack([x, middle - (person.lip * 0.8 + gap / 2) * arch])
    lower = np.column_stack([x, middle + (person.lip + gap / 2) * arch])
    lips = np.clip(person.skin + person.lip_color, 0, 255)
    canvas.polygon(np.concatenate([upper, lower[::-1]]), lips)
    canvas.line(np.column_stack([x, middle]), person.skin * 0.4, 0.012)
    if gap > 0.02:
        inner = np.column_stack([x * 0.8, middle + gap / 2 * arch])
        teeth = np.column_stack([x * 0.8, middle - gap / 2 * arch])
        canvas.polygon(np.concatenate([teeth, inner[::-1]]), np.array([70.0, 30, 34]))


def _draw_occluder(canvas: _Canvas, rng: np.random.Generator) -> None:
    kind = rng.random()
    color = rng.uniform(10, 90, 3)
    if kind < 0.10:  # glasses, dark or clear
        for side in (-1.0, 1.0):
            ring = _ellipse((side * 0.30, -0.15), (0.19, 0.14))
            if rng.random() < 0.4:
                canvas.polygon(ring, color * 0.5, lift=0.1)
            canvas.line(np.concatenate([ring, ring[:1]]), color, 0.02, lift=0.1)
        canvas.line(np.array([[-0.11, -0.16], [0.11, -0.16]]), color, 0.02, lift=0.1)
    elif kind < 0.16:  # scarf or mask
        top = rng.uniform(0.30, 0.62)
        canvas.polygon(
            np.array([[-1, top], [1, top], [1, 1.3], [-1, 1.3]]) * [0.8, 1], rng.uniform(30, 230, 3)
        )
    elif kind < 0.26:  # a hand, a lock of hair, another head: any patch
        center = rng.uniform([-0.7, -0.7], [0.7, 0.9])
        canvas.ellipse(
            tuple(center),
            tuple(rng.uniform(0.12, 0.34, 2)),
            rng.uniform(20, 230, 3),
            rng.uniform(0, 3),
            lift=0.2,
        )


def _background(rng: np.random.Generator) -> NDArray[np.uint8]:
    corners = rng.uniform(20, 230, (2, 2, 3)).astype(np.float32)
    image = cv2.resize(corners, (_CANVAS, _CANVAS), interpolation=cv2.INTER_LINEAR)
    image = np.ascontiguousarray(image.astype(np.uint8))
    for _ in range(rng.integers(0, 4)):
        low, high = np.sort(rng.integers(0, _CANVAS, (2, 2)), axis=0)
        cv2.rectangle(image, low.tolist(), high.tolist(), rng.uniform(20, 230, 3).tolist(), -1)
    return image


def _camera(image: NDArray[np.uint8], rng: np.random.Generator, image_size: int) -> Pixels:
    """Light, color, focus and sensor noise, at the final size."""
    small = cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_AREA)
    pixels = small.astype(np.float32) / 255
    run = np.linspace(-1, 1, image_size, dtype=np.float32)
    slope = rng.normal(0, 0.28, 2)
    light = 1 + slope[0] * run[None, :] + slope[1] * run[:, None]
    gain = np.exp(rng.normal(0, 0.22)) * np.exp(rng.normal(0, 0.06, 3))
    pixels = pixels * np.clip(light, 0.25, 2)[..., None] * gain.astype(np.float32)
    pixels = np.clip(pixels, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.1:
        pixels = np.repeat(pixels.mean(-1, keepdims=True), 3, -1)
    sigma = abs(rng.normal(0, 0.9))
    if sigma > 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(abs(rng.normal(0, 0.025)))
    return (np.clip(pixels + noise, 0, 1) * 255).round().astype(np.uint8)


def _ellipse(center: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Points:
    run = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = radii[0] * np.cos(run), radii[1] * np.sin(run)
    c, s = np.cos(angle), np.sin(angle)
    return np.column_stack([center[0] + c * x - s * y, center[1] + s * x + c * y])


def _bgr(color: Color) -> tuple[float, ...]:
    # The canvas is RGB throughout; OpenCV only sees three channels.
    return tuple(float(v) for v in np.clip(color, 0, 255))
