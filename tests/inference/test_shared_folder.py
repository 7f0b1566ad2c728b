"""Folders to share: written, read, refused; to and from a hub that is a folder here."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

import marginface
from helpers.evaluations import settings
from marginface.evaluation.run import evaluate
from marginface.inference.export_folder import FolderOptions, write_shared_folder
from marginface.inference.export_onnx import ExportOptions, ExportRefusedError
from marginface.inference.hub import pull, push, repository
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError, MissingInputError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def evaluation(run: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    wanted = ["benchmark=custom_pairs", f"benchmark.custom_pairs.root={sets / 'pairs'}",
              "benchmark.custom_pairs.bootstrap=10"]  # fmt: skip
    evaluate(settings(f"checkpoint={run}", *wanted, folder=folder))
    return folder / "out"


@pytest.fixture(scope="module")
def shared(run: Path, evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shared") / "model"
    license_text = target.parent / "terms.txt"
    license_text.write_text("all rights\n")
    onnx = ExportOptions(evaluation=evaluation)
    options = FolderOptions("cc-by-nc-4.0", license_text, "drawn faces", True, onnx)
    write_shared_folder(open_model(run), target, options)
    return target


@pytest.fixture
def copy(shared: Path, tmp_path: Path) -> Path:
    shutil.copytree(shared, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_same_network(shared: Path, run: Path, evaluation: Path) -> None:
    expected = marginface.load(run)
    for runtime in ("auto", "torch", "onnxruntime"):
        model = marginface.load(shared, runtime=runtime)  # type: ignore[arg-type]
        assert model.digest == expected.digest
        assert model.flip
        found = model.embed_aligned(IMAGES)
        np.testing.assert_allclose(found, expected.embed_aligned(IMAGES), atol=2e-6)
        assert model.threshold(0.1).set == "pairs"
    assert sorted(p.name for p in shared.iterdir()) == [
        "LICENSE", "README.md", "config.json", "head.safetensors",
        "metrics.json", "model.onnx", "model.safetensors",
    ]  # fmt: skip
    metrics = json.loads((shared / "metrics.json").read_text())
    assert metrics == json.loads((evaluation / "result.json").read_text())
    assert (shared / "LICENSE").read_text() == "all rights\n"


def test_the_card(shared: Path) -> None:
    text = (shared / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["license"] == "cc-by-nc-4.0"
    assert about["library_name"] == "marginface"
    (entry,) = about["model-index"]
    names = {m["type"] for r in entry["results"] for m in r["metrics"]}
    assert {"accuracy", "auc", "eer"} <= names
    for words in ("drawn faces", "no liveness", "biometric data", "pairs/accuracy", "rule of 30",
                  "head.safetensors", "| pairs | 1e-1 |"):  # fmt: skip
        assert words in body, words
    from huggingface_hub import ModelCard

    card = ModelCard(text)  # as hubs read it
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.eval_results
    assert card.data.eval_results[0].task_type == "face-verification"


def test_half_precision(run: Path, shared: Path, tmp_path: Path) -> None:
    options = FolderOptions("mit", onnx=ExportOptions(precision="fp16"))
    write_shared_folder(open_model(run), tmp_path / "half", options)
    model, whole = marginface.load(tmp_path / "half"), marginface.load(shared)
    assert model.digest == whole.digest
    assert model.description.precision == "fp16"
    cosine = (model.embed_aligned(IMAGES) * whole.embed_aligned(IMAGES)).sum(1)
    assert cosine.min() > 0.9995
    sizes = [(f / "model.safetensors").stat().st_size for f in (tmp_path / "half", shared)]
    assert sizes[0] < 0.6 * sizes[1]
    assert "not stated" not in (tmp_path / "half" / "config.json").read_text()
    assert "Not measured" in (tmp_path / "half" / "README.md").read_text()


def test_mistakes(run: Path, shared: Path, tmp_path: Path) -> None:
    model = open_model(run)
    with pytest.raises(InputError, match="exists; choose another name"):
        write_shared_folder(model, shared, FolderOptions("mit"))
    with pytest.raises(MissingInputError, match="no license file"):
        write_shared_folder(model, tmp_path / "a", FolderOptions("mit", tmp_path / "none"))
    with pytest.raises(InputError, match="export int8 to a file x.onnx"):
        onnx = ExportOptions(precision="int8", calibration=tmp_path)
        write_shared_folder(model, tmp_path / "a", FolderOptions("mit", onnx=onnx))
    with pytest.raises(InputError, match="is a graph; a shared folder holds weights"):
        graph = open_model(shared / "model.onnx")
        write_shared_folder(graph, tmp_path / "a", FolderOptions("mit"))
    with pytest.raises(InputError, match="cannot write"):
        write_shared_folder(model, tmp_path / "none" / "a", FolderOptions("mit"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_check_fails(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marginface.inference.export_check import Check

    monkeypatch.setattr(Check, "problems", lambda self, precision: ["it is wrong"])
    with pytest.raises(ExportRefusedError, match="was not written: it is wrong"):
        write_shared_folder(open_model(run), tmp_path / "a", FolderOptions("mit"))
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_hostile_folders(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())

    def write(**change: Any) -> None:
        (copy / "config.json").write_text(json.dumps(config | change))

    for change, words in (
        ({"backbone": None}, "names no backbone"),
        (
            {"backbone": {"name": "os.system", "embedding_size": 4, "image_size": 32}},
            "unknown back",
        ),
        ({"backbone": config["backbone"] | {"pretrained": "x"}}, "pretrained"),
        ({"backbone": config["backbone"] | {"command": "rm"}}, "command"),
        ({"digest": "0" * 64}, "are not those of digest 000000000000"),
        ({"weights_sha256": "0" * 64}, "is damaged or was exchanged"),
        ({"format": 7}, "format 7 of descriptions"),
    ):
        write(**change)
        with pytest.raises(InputError, match=words):
            marginface.load(copy)
    write()
    state = load_file(copy / "model.safetensors")
    name = next(iter(state))
    save_file(state | {name: state[name] + 1}, copy / "model.safetensors")
    with pytest.raises(InputError, match="is damaged or was exchanged"):
        marginface.load(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(MissingInputError, match="no .*model.safetensors"):
        marginface.load(copy)
    secret = tmp_path / "secret.safetensors"
    save_file(state, secret)
    (copy / "model.safetensors").symlink_to(secret)
    with pytest.raises(InputError, match="is a link to .*secret.safetensors, outside the folder"):
        marginface.load(copy)
    (copy / "config.json").write_bytes(b"{" + b" " * (1 << 25))
    (copy / "model.safetensors").unlink()
    shutil.copy(secret, copy / "model.safetensors")
    with pytest.raises(InputError, match="not a description of ours"):
        marginface.load(copy)


def test_a_graph_of_other_weights_is_not_run(copy: Path, tmp_path: Path) -> None:
    from helpers.small_models import write_onnx

    write_onnx(copy / "model.onnx", side=32)
    with pytest.raises(InputError, match="is not the graph of .*get the folder again"):
        marginface.load(copy, runtime="onnxruntime")
    shutil.copy(copy / "model.safetensors", tmp_path / "alone.safetensors")
    write_onnx(tmp_path / "model.onnx", side=32)
    with pytest.raises(InputError, match="holds weights; write one with"):
        config = json.loads((copy / "config.json").read_text())["backbone"]
        marginface.load(tmp_path / "alone.safetensors", backbone=config, runtime="onnxruntime")


class FolderHub:
    """A hub whose repositories are folders; the functions of huggingface_hub that are called."""

    def __init__(self, root: Path) -> None:
        self.root, self.private = root, True

    def create_repo(self, *, repo_id: str, private: bool, exist_ok: bool) -> None:
        self.private = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id: str, folder_path: str, **_: Any) -> Any:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(oid="abc123")

    def snapshot_download(
        self, *, repo_id: str, revision: str | None, allow_patterns: list[str],
        local_dir: str | None = None,
    ) -> str:  # fmt: skip
        if revision not in (None, "abc123"):
            raise FileNotFoundError(f"404: no revision {revision}")
        source = self.root / repo_id
        if local_dir is None:  # the cache: links to blobs
            return str(self._linked(source))
        shutil.copytree(source, local_dir)
        return local_dir

    def _linked(self, source: Path) -> Path:
        snapshot, blobs = self.root / "c" / "snapshots" / "abc123", self.root / "c" / "blobs"
        for folder in (snapshot, blobs):
            folder.mkdir(parents=True)
        for number, path in enumerate(source.iterdir()):
            shutil.copy(path, blobs / str(number))
            (snapshot / path.name).symlink_to(Path("../..") / "blobs" / str(number))
        return snapshot


def test_push_and_pull(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FolderHub(tmp_path / "hub")
    assert push(shared, "hf:me/net", client=hub) == "hf:me/net@abc123"
    assert hub.private
    folder = pull("hf:me/net@abc123", tmp_path / "mine", client=hub)
    assert marginface.load(folder).digest == marginface.load(shared).digest
    with pytest.raises(InputError, match="exists; choose another name"):
        pull("hf:me/net", tmp_path / "mine", client=hub)
    with pytest.raises(InputError, match="me/net was not fetched: 404: no revision x"):
        pull("hf:me/net@x", tmp_path / "other", client=hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    assert marginface.load("hf:me/net@abc123").digest == marginface.load(shared).digest
    with pytest.raises(MissingInputError, match="is not a folder that marginface exported"):
        push(tmp_path, "me/net", client=hub)


def test_addresses() -> None:
    assert repository("hf:a/b@c") == ("a/b", "c")
    assert repository("a/b") == ("a/b", None)
    for wrong in ("hf:", "hf:a", "hf:a/b@", "hf:../b/c", "hf:a/b c"):
        with pytest.raises(InputError, match="expected hf:owner/name"):
            repository(wrong)
