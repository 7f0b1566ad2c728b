"""A copy of faces in less room, RecordIO with JPEGs of a lower quality, to carry to a GPU machine.

    python benchmarks/smaller_faces.py FACES/train TARGET [--quality 70]

The same images give the same bytes with the same OpenCV, so results of two machines that have
copies of their own can be compared.
"""

import argparse
from pathlib import Path

from marginface.data import open_faces, write_recordio
from marginface.data.images import encode_jpeg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="faces of any format")
    parser.add_argument("target", type=Path, help="a new folder")
    parser.add_argument("--quality", type=int, default=70, help="of the JPEGs, 1 to 100")
    arguments = parser.parse_args()
    if arguments.target.exists():
        parser.error(f"{arguments.target} exists; name a new folder")
    faces = open_faces(arguments.source)
    jpegs = [encode_jpeg(faces.pixels(index), arguments.quality) for index in range(len(faces))]
    write_recordio(arguments.target, jpegs, faces.labels.tolist())
    print(f"{len(jpegs)} images, {sum(map(len, jpegs)) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
