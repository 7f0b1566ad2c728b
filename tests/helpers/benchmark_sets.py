"""Small benchmark sets on disk, in the published formats."""

from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.io import savemat

from marginface.data import ImageDataset
from marginface.data.alignment.template import TEMPLATE

SUBJECTS, TEMPLATES, IMAGES = 8, 4, 3  # templates a subject, images a template


def write_face(path: Path, subject: int, number: int, size: int = 150) -> None:
    """A picture that differs more between subjects than within one."""
    rng = np.random.default_rng(subject)
    coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.float32)
    noise = np.random.default_rng([subject, number]).normal(0, 25, (size, size, 3))
    picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.clip(picture, 0, 255).astype(np.uint8))


def write_ijb(root: Path) -> None:
    """An IJB-C-like set: every second subject in G1, the others in G2."""
    meta = root / "meta"
    meta.mkdir(parents=True)
    media, points = [], []
    number = 0
    for subject in range(SUBJECTS):
        for template in range(TEMPLATES):
            for image in range(IMAGES):
                number += 1
                write_face(root / "loose_crop" / f"{number}.jpg", subject, number)
                media.append(f"{number}.jpg {subject * TEMPLATES + template + 1} {image // 2}")
                where = " ".join(f"{v:.3f}" for v in (TEMPLATE + 19).ravel())
                points.append(f"{number}.jpg {where} 0.99{number % 10}")
    (meta / "x_face_tid_mid.txt").write_text("\n".join(media) + "\n")
    (meta / "x_name_5pts_score.txt").write_text("\n".join(reversed(points)) + "\n")
    templates = range(1, SUBJECTS * TEMPLATES + 1)
    pairs = [(a, b) for a in templates for b in templates if a < b]
    lines = [f"{a} {b} {int((a - 1) // TEMPLATES == (b - 1) // TEMPLATES)}" for a, b in pairs]
    (meta / "x_template_pair_label.txt").write_text("\n".join(lines) + "\n")
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME"
    for side in (0, 1):
        rows = [f"{s * TEMPLATES + 1},{s},a" for s in range(side, SUBJECTS, 2)]
        (meta / f"x_1N_gallery_G{side + 1}.csv").write_text("\n".join([head, *rows, ""]))
    probes = [t for t in templates if (t - 1) % TEMPLATES]
    rows = [f"{t},{(t - 1) // TEMPLATES},a" for t in probes for _ in range(2)]  # once an image
    (meta / "x_1N_probe_mixed.csv").write_text("\n".join([head, *rows, ""]))


def write_tinyface(root: Path) -> None:
    """Two probes and two gallery images of each subject, and distractors."""
    testing = root / "Testing_Set"
    sets: dict[str, list[str]] = {"probe": [], "gallery": []}
    for subject in range(1, SUBJECTS + 1):
        for number in range(4):
            kind = "probe" if number < 2 else "gallery"
            name = f"{subject}_{number}.jpg"
            folder = {"probe": "Probe", "gallery": "Gallery_Match"}[kind]
            write_face(testing / folder / name, subject, number, 40)
            sets[kind].append(name)
    for number in range(6):
        write_face(testing / "Gallery_Distractor" / f"{number}.jpg", 100 + number, 0, 40)
    for kind, names in sets.items():
        cells = np.empty((len(names), 1), object)
        cells[:, 0] = names
        ids = np.array([[int(name.split("_")[0])] for name in names])
        file = {"probe": "probe", "gallery": "gallery_match"}[kind] + "_img_ID_pairs.mat"
        savemat(testing / file, {f"{kind}_set": cells, f"{kind}_ids": ids})


def write_gallery(root: Path, strangers: bool) -> None:
    """gallery.csv with two images a template, probes.csv, and a folder of distractors."""
    gallery, probes = ["path,subject,template"], ["path,subject"]
    for subject in range(SUBJECTS):
        for number in range(4):
            write_face(root / f"s{subject}" / f"{number}.png", subject, number)
            if number >= 2:
                probes.append(f"s{subject}/{number}.png,person {subject}")
            elif not (strangers and subject < 2):
                gallery.append(f"s{subject}/{number}.png,person {subject},t{subject}")
    for number in range(3):
        write_face(root / "others" / f"{number}.png", 200 + number, 0)
    (root / "gallery.csv").write_text("\n".join(gallery) + "\n")
    (root / "probes.csv").write_text("\n".join(probes) + "\n")


def write_pairs_csv(root: Path) -> None:
    """pairs.csv with people and groups."""
    rows = ["first,second,same,identity1,identity2,group1,group2"]
    for subject in range(SUBJECTS):
        other = (subject + 2) % SUBJECTS
        for number in range(4):
            write_face(root / f"s{subject}" / f"{number}.png", subject, number)
        group = "even" if subject % 2 == 0 else "odd"
        for a, b in ((0, 1), (2, 3), (0, 3)):
            rows.append(
                f"s{subject}/{a}.png,s{subject}/{b}.png,1,{subject},{subject},{group},{group}"
            )
            rows.append(f"s{subject}/{a}.png,s{other}/{b}.png,0,{subject},{other},{group},{group}")
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")


def embeddings_of(faces: ImageDataset) -> torch.Tensor:
    """Pixels, coarsely: enough to tell the pictures apart, not enough to be perfect."""
    images = torch.stack([faces[n][0] for n in range(len(faces))]).double()
    coarse = torch.nn.functional.adaptive_avg_pool2d(images, 3).flatten(1)
    return (coarse - 127).float()
