"""What every dataset can be told: faulty images, gaps in the labels, a cache, several sources."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from helpers.pictures import jpegs, make_folder, picture
from marginface.data import (
    FolderDataset,
    JoinedDataset,
    ListDataset,
    Subset,
    join_faces,
    make_loader,
    write_recordio,
)
from marginface.data.datamodule import FaceDataModule
from marginface.data.image_dataset import Batch
from marginface.data.images import encode_jpeg
from marginface.utils.errors import InputError, MissingInputError


class TestFaulty:
    """An image that cannot be read."""

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        root = make_folder(tmp_path / "faces", [3, 3, 2])
        good = (root / "p1" / "1.jpg").read_bytes()
        (root / "p1" / "1.jpg").write_bytes(good[: len(good) // 2])
        (root / "p2" / "0.jpg").write_bytes(b"")
        return root

    def test_stop_is_the_default_and_names_the_file(self, damaged: Path) -> None:
        faces = FolderDataset(damaged)
        with pytest.raises(InputError, match=r"p1/1.jpg: damaged JPEG"):
            list(make_loader(faces, batch_size=4))
        with pytest.raises(InputError, match=r"p1/1.jpg: damaged JPEG"):
            list(make_loader(faces, batch_size=8, num_workers=2))

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_skip_leaves_out_and_counts(
        self, damaged: Path, num_workers: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        faces = FolderDataset(damaged, faulty="skip")
        for _ in range(2):
            batches = list(make_loader(faces, batch_size=4, num_workers=num_workers))
            indices = [i for batch in batches for i in batch[2].tolist()]
            assert indices == [0, 1, 2, 3, 5, 7]
            for images, labels, batch_indices in batches:
                assert labels.tolist() == faces.labels[batch_indices].tolist()
                for image, index in zip(images, batch_indices, strict=True):
                    assert (image == faces[int(index)][0]).all()
        assert faces.skipped == 2
        part = Subset(faces, np.array([0, 3]))
        assert part.skipped == 2
        assert part.may_skip
        assert not Subset(FolderDataset(damaged), np.array([0, 3])).may_skip
        told = capfd.readouterr().err
        assert told.count("left out:") == 2, "once each, not every epoch"
        assert "p1/1.jpg: damaged JPEG" in told

    def test_a_batch_of_nothing_else_stops(self, damaged: Path) -> None:
        (damaged / "p2" / "1.jpg").write_text("no image")
        faces = FolderDataset(damaged, faulty="skip")
        with pytest.raises(InputError, match=r"all 2 images of a batch are faulty.*p2/0.jpg"):
            faces.__getitems__([6, 7])

    def test_one_alone_is_an_error_all_the_same(self, damaged: Path) -> None:
        with pytest.raises(InputError, match="p2/0.jpg"):
            FolderDataset(damaged, faulty="skip")[6]


class Leaky(FolderDataset):
    """A dataset of one's own that leaves out an image and does not say so."""

    def __getitems__(self, indices: list[int]) -> Batch:
        images, labels, taken = super().__getitems__(indices)
        return images[1:], labels[1:], taken[1:]


def test_fewer_images_than_asked_for_have_to_be_announced(tmp_path: Path) -> None:
    faces = Leaky(make_folder(tmp_path / "faces", [3, 3, 2]))
    data = FaceDataModule(faces, name="leaky", val_identities=0, batch_size=4, num_workers=0)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False)
    trainer.training = True
    data.trainer = trainer
    told: list[bool] = []
    data.label_watchers = [lambda labels, on_host, equal_parts: told.append(equal_parts)]
    data.transfer_batch_to_device(faces.__getitems__([0, 1]), torch.device("cpu"), 0)
    assert told == [False], "nothing is known of batches of another loader"
    batch = next(iter(data.train_dataloader()))
    with pytest.raises(InputError, match=r"gave 3 images for a batch of 4; .* `may_skip` be True"):
        data.transfer_batch_to_device(batch, torch.device("cpu"), 0)


def test_ranges_of_the_datamodule(tmp_path: Path) -> None:
    faces = FolderDataset(make_folder(tmp_path / "faces", [3, 3]))
    for settings, message in (
        ({"num_workers": -1}, "data.num_workers at least 0, got 128 and -1"),
        ({"eval_batch_size": 0}, "data.eval_batch_size must be at least 1"),
        ({"limit_images": 0}, "data.limit_images must be at least 1, got 0"),
        ({"batch_size": 7}, "data.batch_size=7 must be between 1 and the 6 training images"),
    ):
        with pytest.raises(InputError, match=message):
            FaceDataModule(faces, name="x", val_identities=0, **{"batch_size": 2, **settings})


class TestCache:
    """Decoded images in shared memory."""

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_files_are_read_once(self, tmp_path: Path, num_workers: int) -> None:
        root = make_folder(tmp_path / "faces", [4, 4])
        faces = FolderDataset(root, cache=True)
        loader = make_loader(faces, batch_size=4, num_workers=num_workers)
        first = [batch[0].clone() for batch in loader]
        for path in root.rglob("*.jpg"):
            path.unlink()
        second = [batch[0] for batch in loader]
        assert all((one == other).all() for one, other in zip(first, second, strict=True))

    def test_more_than_there_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import shutil

        usage = shutil.disk_usage("/")._replace(free=1000)
        monkeypatch.setattr("marginface.data.shared_memory.shutil.disk_usage", lambda path: usage)
        root = make_folder(tmp_path / "faces", [1, 1])
        with pytest.raises(InputError, match="cache needs .* GiB of shared memory.*shm-size"):
            FolderDataset(root, cache=True)
        with pytest.raises(InputError, match="data.num_workers needs"):
            list(make_loader(FolderDataset(root), batch_size=1, num_workers=1))

    def test_all_loaders_count_together(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import shutil

        one = 2 * 3 * 4 * 112 * 112 * 3  # two workers with three slots of four images
        faces = FolderDataset(make_folder(tmp_path / "faces", [20] * 6))
        data = FaceDataModule(
            faces, name="x", val_identities=3, val_pairs=40, batch_size=8, eval_batch_size=4
        )
        for processes, free, fits in (
            (1, 2 * one, True),
            (1, 2 * one - 1, False),
            (2, 3 * one, False),
        ):
            usage = shutil.disk_usage("/")._replace(free=free)
            monkeypatch.setattr(
                "marginface.data.shared_memory.shutil.disk_usage", lambda path, usage=usage: usage
            )
            if fits:
                data.check_shared_memory(4, processes)
                continue
            with pytest.raises(InputError, match=r"data.num_workers=2 \(batches of 4 .*eval_batch"):
                data.check_shared_memory(4, processes)


class TestLabelGaps:
    """Identities without images."""

    @pytest.fixture
    def gap(self, tmp_path: Path) -> Path:
        for number, image in enumerate(jpegs(4)):
            (tmp_path / f"{number}.jpg").write_bytes(image)
        (tmp_path / "set.txt").write_text("0.jpg 0\n1.jpg 3\n2.jpg 3\n3.jpg 5\n")
        return tmp_path / "set.txt"

    def test_refused(self, gap: Path) -> None:
        with pytest.raises(InputError, match=r"no image has label 1 \(3 of 6 identities"):
            ListDataset(gap)

    def test_closed(self, gap: Path) -> None:
        faces = ListDataset(gap, label_gaps="close")
        assert faces.labels.tolist() == [0, 1, 1, 2]
        assert faces.num_classes == 3

    def test_kept(self, gap: Path) -> None:
        faces = ListDataset(gap, label_gaps="keep")
        assert faces.labels.tolist() == [0, 3, 3, 5]
        assert faces.num_classes == 6


class TestJoined:
    """Several sources as one."""

    @pytest.fixture
    def roots(self, tmp_path: Path) -> list[str]:
        make_folder(tmp_path / "a", [2, 1, 2])  # p0 p1 p2
        images = [encode_jpeg(picture(seed)) for seed in range(50, 54)]
        write_recordio(tmp_path / "b", images, [0, 0, 1, 2])
        return [str(tmp_path / "a"), str(tmp_path / "b")]

    def test_labels_move_apart(self, roots: list[str]) -> None:
        faces = join_faces(roots)
        assert faces.labels.tolist() == [0, 0, 1, 2, 2, 3, 3, 4, 5]
        assert faces.num_classes == 6
        assert faces.identity(0) == "0-p0"
        assert faces.identity(5) == "1-0000002"
        images, labels, _ = faces.__getitems__([5, 0])
        assert (images[0] == faces.sources[1][0][0]).all()
        assert (images[1] == faces.sources[0][0][0]).all()
        assert labels.tolist() == [3, 0]
        assert faces.describe(8).endswith("b/train.rec")

    def test_one_person_in_both(self, roots: list[str], tmp_path: Path) -> None:
        (tmp_path / "merge.csv").write_text(
            "source,identity,source,identity\n0,p1,1,0\n1,0000002,0,p1\n"
        )
        faces = join_faces(roots, merge=str(tmp_path / "merge.csv"))
        assert faces.labels.tolist() == [0, 0, 1, 2, 2, 1, 1, 3, 1]
        assert faces.num_classes == 4

    def test_dropped_identities(self, roots: list[str], tmp_path: Path) -> None:
        (tmp_path / "drop.csv").write_text("0,p0\n1,1\n")
        faces = join_faces(roots, drop=str(tmp_path / "drop.csv"))
        assert faces.labels.tolist() == [0, 1, 1, 2, 2, 3]
        assert faces.describe(0).endswith("p1/0.jpg")
        assert (faces[3][0] == faces.sources[1][0][0]).all()

    def test_a_dropped_person_is_dropped_under_all_names(
        self, roots: list[str], tmp_path: Path
    ) -> None:
        (tmp_path / "merge.csv").write_text("\ufeff0,p1,1,0\n", encoding="utf-8")
        (tmp_path / "drop.csv").write_text(" 0 , p1 \n")
        faces = join_faces(
            roots, merge=str(tmp_path / "merge.csv"), drop=str(tmp_path / "drop.csv")
        )
        assert faces.labels.tolist() == [0, 0, 1, 1, 2, 3]

    def test_other_data_is_another_fingerprint(self, roots: list[str], tmp_path: Path) -> None:
        (tmp_path / "merge.csv").write_text("0,p1,1,0\n")
        before = join_faces(roots).fingerprint()
        assert join_faces(roots).fingerprint() == before
        assert join_faces(roots[::-1]).fingerprint() != before
        assert join_faces(roots, merge=str(tmp_path / "merge.csv")).fingerprint() != before

    def test_skipped_images_are_added_up(self, roots: list[str]) -> None:
        (Path(roots[0]) / "p0" / "0.jpg").write_bytes(b"")
        faces = join_faces(roots, faulty="skip")
        assert faces.__getitems__([0, 1])[2].tolist() == [1]
        assert faces.skipped == 1
        assert faces.may_skip
        assert not join_faces(roots).may_skip

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0,p9,1,0\n", "source 0 .* has no identity 'p9'"),
            ("2,p0,1,0\n", "source 2 of 2; they are counted from 0"),
            ("0,p0\n", "line 1 is not 'source,identity,source,identity', got '0,p0'"),
        ],
    )
    def test_faults(self, roots: list[str], tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "merge.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            join_faces(roots, merge=str(tmp_path / "merge.csv"))

    def test_faults_of_sources(self, roots: list[str], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="data.roots is empty"):
            JoinedDataset([])
        with pytest.raises(MissingInputError, match="no file or folder"):
            join_faces([*roots, str(tmp_path / "absent")])
        with pytest.raises(MissingInputError, match="no file .*merge.csv"):
            join_faces(roots, merge=str(tmp_path / "merge.csv"))
        small = FolderDataset(make_folder(tmp_path / "small", [1, 1], 32), image_size=32)
        with pytest.raises(InputError, match=r"several sizes, \[32, 112\]"):
            JoinedDataset([small, FolderDataset(roots[0])])


class TestFolders:
    """What lies in a folder beside images."""

    def test_other_files_are_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = make_folder(tmp_path / "faces", [1, 1])
        (root / "p0" / "notes.txt").write_text("x")
        (root / "readme.md").write_text("x")
        (root / "nobody").mkdir()
        faces = FolderDataset(root)
        assert faces.ignored == ["p0/notes.txt", "readme.md"]
        assert faces.empty == ["nobody"]
        assert "2 entries are not images" in capsys.readouterr().err

    def test_folders_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = make_folder(tmp_path / "faces", [1, 1])
        (root / "gone").symlink_to(tmp_path / "nowhere")
        with pytest.raises(InputError, match="gone: a link to nothing"):
            FolderDataset(root)
        (root / "gone").unlink()
        import os

        scan = os.scandir

        def denied(path: object) -> object:
            if str(path).endswith("p1"):
                raise PermissionError(13, "Permission denied")
            return scan(path)  # type: ignore[call-overload]

        monkeypatch.setattr("marginface.data.formats.folder.os.scandir", denied)
        with pytest.raises(InputError, match=r"p1: the folder cannot be read \(Permission denied"):
            FolderDataset(root)
