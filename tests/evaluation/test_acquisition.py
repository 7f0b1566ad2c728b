"""Photographs in which alignment found no face are counted where their faces are evaluated."""

from pathlib import Path

import cv2
import numpy as np

from helpers.benchmark_sets import embeddings_of, write_face
from marginface.data.alignment.detectors import from_function
from marginface.data.alignment.photos import align_photos
from marginface.evaluation.acquisition import add_acquisition
from marginface.evaluation.benchmarks import PairsBenchmark
from marginface.evaluation.page import evaluation_page


def test_from_alignment_to_the_page(tmp_path: Path) -> None:
    for person in range(3):
        for number in range(2):
            write_face(tmp_path / "photos" / f"p{person}" / f"{number}.png", person, number)
    for name in ("a", "b"):  # black: the detector below finds nothing
        path = tmp_path / "photos" / "p0" / f"{name}.png"
        assert cv2.imwrite(str(path), np.zeros((150, 150, 3), np.uint8))
    detector = from_function("helpers.detectors:detect_in_light")
    align_photos(tmp_path / "photos", tmp_path / "faces", detector)
    rows = ["first,second,same"]
    for person in range(3):
        rows.append(f"p{person}/0.jpg,p{person}/1.jpg,1")
        rows.append(f"p{person}/0.jpg,p{(person + 1) % 3}/1.jpg,0")
    (tmp_path / "faces" / "pairs.csv").write_text("\n".join(rows) + "\n")
    benchmark = PairsBenchmark(["pairs.csv"], root=str(tmp_path / "faces"), folds=2, bootstrap=5)
    (task,) = benchmark.tasks("mine", 112)
    result = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    add_acquisition(result, task.faces)
    assert result.counts["photographs before alignment"] == 8
    assert result.counts["failure to acquire (photographs)"] == 2
    evaluation_page({"network": "n"}, [result], [1e-2], {}).write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Failure to acquire: 2 of 8 photographs" in text
    assert "25.00" in text
    # Faces that were aligned elsewhere say nothing.
    (tmp_path / "faces" / ".acquisition.json").unlink()
    other = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    add_acquisition(other, task.faces)
    assert "failure to acquire (photographs)" not in other.counts
