"""Exported graphs: equal to the network, one file, nothing of the machine, what they say of it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import marginface
from helpers.evaluations import settings
from helpers.pictures import picture
from helpers.small_models import random_faces, write_onnx
from marginface.backbones import create_backbone
from marginface.evaluation.run import evaluate
from marginface.inference.aligned_faces import read_aligned
from marginface.inference.description import NetworkInput
from marginface.inference.export_check import Check, Rates, check_graph
from marginface.inference.export_folder import FolderOptions, write_shared_folder
from marginface.inference.export_onnx import ExportOptions, ExportRefusedError, export_onnx
from marginface.inference.face_analysis_pack import check_pack, write_pack
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError, MissingInputError

SMALL = {"name": "miniresnet8_half", "embedding_size": 512, "image_size": 112}


def weights_of(folder: Path, name: str = "miniresnet8_half", **config: object) -> Path:
    """Weights of an untrained network with the statistics of some images."""
    torch.manual_seed(0)
    network = create_backbone(name, **config)  # type: ignore[arg-type]
    size = config.get("image_size", 112)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, size, size))  # type: ignore[arg-type]
    torch.save(network.state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_of(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    """x.onnx in floats and u.onnx of bytes."""
    model = open_model(weights, SMALL)
    export_onnx(model, weights.parent / "x.onnx", ExportOptions())
    export_onnx(model, weights.parent / "u.onnx", ExportOptions(layout="uint8"))
    return weights.parent


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 aligned faces of 20 people."""
    root = tmp_path_factory.mktemp("people")
    for person, images in enumerate(random_faces(20, 6)):
        (root / f"p{person}").mkdir()
        for number, rgb in enumerate(images):
            cv2.imwrite(str(root / f"p{person}" / f"{number}.png"), rgb[..., ::-1])
    return root


def test_one_file_with_nothing_of_the_machine(exported: Path) -> None:
    for name in ("x.onnx", "u.onnx"):
        path = exported / name
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(str(path))
        assert [entry.version for entry in graph.opset_import] == [18]
        content = path.read_bytes()
        for word in (b"/site-packages", b"/src/marginface", str(Path.home()).encode() + b"/",
                     b"stack_trace", b".py"):  # fmt: skip
            assert word not in content, word
    assert sorted(p.name for p in exported.iterdir()) == [
        "miniresnet8_half.pth",
        "u.onnx",
        "x.onnx",
    ]


def test_equal_to_the_network_at_any_batch(exported: Path, weights: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (32, 112, 112, 3), np.uint8)
    model = marginface.load(weights, backbone=SMALL)
    expected = model.embed_aligned(images)
    for name in ("x.onnx", "u.onnx"):
        graph = marginface.load(exported / name)
        for batch in (1, 2, 7, 32):
            found = graph.embed_aligned(images[:batch], batch_size=batch)
            assert np.abs(found - expected[:batch]).max() < 2e-6
        assert graph.digest == model.digest
        assert (graph.flip, graph.embedding_size) == (True, 512)
    raw = onnxruntime.InferenceSession(exported / "u.onnx").run(None, {"pixels": images})[0]
    np.testing.assert_allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-6)


def test_onnxruntime_and_numpy_are_enough(exported: Path, weights: Path) -> None:
    """The program in docs/deployment.md, on the float graph."""
    images = np.random.default_rng(2).integers(0, 256, (3, 112, 112, 3), np.uint8)
    session = onnxruntime.InferenceSession(exported / "x.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["marginface"])
    mean, std = (np.array(about["input"][key], np.float32) for key in ("mean", "std"))
    assert about["input"]["color"] == "rgb"
    x = ((images - mean) / std).transpose(0, 3, 1, 2)
    both = sum(session.run(None, {"images": np.ascontiguousarray(v)})[0] for v in (x, x[..., ::-1]))
    unit = both / np.linalg.norm(both, axis=1, keepdims=True)
    assert (
        np.abs(unit - marginface.load(weights, backbone=SMALL).embed_aligned(images)).max() < 2e-6
    )


def test_insightface_reads_it_rightly(exported: Path, tmp_path: Path) -> None:
    """Its rule: mean 0 and std 1 when Sub and Mul are among the first 8 nodes, else 127.5."""
    graph = onnx.load(str(exported / "x.onnx")).graph
    names = [node.name for node in graph.node[:8]]
    has_sub = any(name.startswith(("Sub", "_minus")) for name in names)
    has_mul = any(name.startswith(("Mul", "_mul")) for name in names)
    assert not (has_sub and has_mul)
    shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == [3, 112, 112]
    model = open_model(exported / "miniresnet8_half.pth", SMALL)
    check_pack(tmp_path / "pack", model, ExportOptions())
    written = write_pack(tmp_path / "pack", exported / "x.onnx")
    assert written.read_bytes() == (exported / "x.onnx").read_bytes()
    with pytest.raises(InputError, match="exists"):
        check_pack(tmp_path / "pack", model, ExportOptions())
    with pytest.raises(InputError, match="it takes BGR.*leave --input float"):
        bgr = open_model(exported / "miniresnet8_half.pth", SMALL, "bgr")
        check_pack(tmp_path / "other", bgr, ExportOptions(layout="uint8"))


@pytest.mark.slow
def test_bgr_and_other_sizes(tmp_path: Path) -> None:
    config = {"name": "vit_tiny_patch16_224", "embedding_size": 32, "image_size": 64, "norm": "ln"}
    path = weights_of(tmp_path, **config)  # type: ignore[arg-type]
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), np.uint8)
    given = {"color": "bgr", "mean": [10.0, 20.0, 30.0], "std": [50.0, 60.0, 70.0]}
    model = marginface.load(path, backbone=config, input=given, flip=False)
    for layout in ("float", "uint8"):
        target = tmp_path / f"{layout}.onnx"
        flip = None if layout == "float" else False
        source = open_model(path, config, given=given)
        export_onnx(source, target, ExportOptions(layout=layout, flip=flip))  # type: ignore[arg-type]
        graph = marginface.load(target, flip=False)
        assert graph.description.input.mean == (10.0, 20.0, 30.0)
        assert graph.color == "bgr"
        assert np.abs(graph.embed_aligned(images) - model.embed_aligned(images)).max() < 2e-6
    # The mean is that of the network's own channels: blue first.
    x = (images[..., ::-1] - np.float32([10, 20, 30])) / np.float32([50, 60, 70])
    session = onnxruntime.InferenceSession(tmp_path / "float.onnx")
    raw = session.run(None, {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(unit - model.embed_aligned(images)).max() < 2e-6
    with pytest.raises(InputError, match="adds no mirror image itself; set flip=false"):
        marginface.load(tmp_path / "uint8.onnx", flip=True)


def test_numbers_of_an_evaluation_stay(run: Path, tmp_path: Path, sets: Path) -> None:
    """evaluate.py on the export gives the numbers of the checkpoint."""
    wanted = ["benchmark=custom_pairs", f"benchmark.custom_pairs.root={sets / 'pairs'}",
              "benchmark.custom_pairs.bootstrap=10"]  # fmt: skip
    model = open_model(run)
    results = []
    for place, source in enumerate((str(run), "x.onnx", "u.onnx")):
        if place:
            layout = "float" if source[0] == "x" else "uint8"
            export_onnx(model, tmp_path / source, ExportOptions(layout=layout))  # type: ignore[arg-type]
            source = str(tmp_path / source)
        config = settings(f"checkpoint={source}", *wanted, folder=tmp_path / str(place))
        results.append(evaluate(config))
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        for name, value in results[0].items():
            # d' has no bound: of few pairs it is large.
            rel = 1e-4 if "d_prime" in name else 0
            assert other[name] == pytest.approx(value, abs=1e-4, rel=rel), name
    with pytest.raises(InputError, match="adds the mirror image itself; set flip=true"):
        evaluate(settings(f"checkpoint={tmp_path}/u.onnx", *wanted, "flip=false", folder=tmp_path))
    with pytest.raises(InputError, match="states how its images are made; leave input.mean"):
        evaluate(
            settings(
                f"checkpoint={tmp_path}/u.onnx", *wanted, "input={mean: [0, 0, 0]}", folder=tmp_path
            )
        )


@pytest.mark.slow
def test_16_and_8_bits(weights: Path, people: Path, tmp_path: Path) -> None:
    model = open_model(weights, SMALL)
    half = export_onnx(model, tmp_path / "h.onnx", ExportOptions(precision="fp16", faces=people))
    assert half.min_cosine > 0.9995
    assert (tmp_path / "h.onnx").stat().st_size < 0.6 * weights.stat().st_size
    eight = ExportOptions(precision="int8", calibration=people, faces=people)
    check = export_onnx(model, tmp_path / "i.onnx", eight)
    assert check.mean_cosine > 0.98
    assert check.rates is not None
    about = open_model(tmp_path / "i.onnx").description
    assert about.precision == "int8"
    assert about.digest == open_model(tmp_path / "h.onnx").description.digest
    assert about.check["mean_cosine"] == pytest.approx(check.mean_cosine)
    for kind in ("per-tensor", "dynamic"):
        target = tmp_path / f"{kind}.onnx"
        options = {"precision": "int8", "quantization": kind, "calibration": people}
        with pytest.raises(ExportRefusedError, match=f"int8 {kind} is not kept.*mean 0.9"):
            export_onnx(model, target, ExportOptions(**options))  # type: ignore[arg-type]
        assert not target.exists()
    forced = ExportOptions(precision="int8", quantization="dynamic", force=True)
    export_onnx(model, tmp_path / "forced.onnx", forced)
    assert "not kept" in open_model(tmp_path / "forced.onnx").description.check["refused"][0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["forced.onnx", "h.onnx", "i.onnx"]


def test_graphs_of_others_to_fewer_bits(people: Path, tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx", side=112, width=64)
    model = open_model(tmp_path / "net.onnx", given={"color": "rgb"})
    with pytest.raises(InputError, match="is an ONNX file already; --precision fp16 or int8"):
        export_onnx(model, tmp_path / "b.onnx", ExportOptions())
    check = export_onnx(model, tmp_path / "b.onnx", ExportOptions(precision="fp16", faces=people))
    assert check.min_cosine > 0.9995
    eight = ExportOptions(precision="int8", calibration=people, faces=people)
    old = onnx.load(str(tmp_path / "net.onnx"))  # before scales per channel
    del old.opset_import[:]
    old.opset_import.append(onnx.helper.make_opsetid("", 11))
    onnx.save(old, str(tmp_path / "old.onnx"))
    source = open_model(tmp_path / "old.onnx", given={"color": "rgb"})
    assert export_onnx(source, tmp_path / "i.onnx", eight).mean_cosine > 0.98
    with pytest.raises(InputError, match="is in fp16 already"):
        export_onnx(open_model(tmp_path / "b.onnx"), tmp_path / "c.onnx",
                    ExportOptions(precision="fp16"))  # fmt: skip


def test_a_graph_keeps_its_flip(exported: Path, tmp_path: Path) -> None:
    half = ExportOptions(layout="uint8", precision="fp16", flip=False)
    with pytest.raises(InputError, match="adds the mirror image itself, and stays so"):
        export_onnx(open_model(exported / "u.onnx"), tmp_path / "h.onnx", half)


def test_a_wrong_graph_is_refused(people: Path) -> None:
    """The check itself: what is not equal has numbers and reasons."""
    faces = random_faces(20, 6).reshape(-1, 112, 112, 3)
    who = np.repeat(np.arange(20), 6)

    def network(images: np.ndarray) -> np.ndarray:
        return images[:, ::28, ::28].reshape(len(images), -1).astype(np.float32) - 127

    def off(images: np.ndarray) -> np.ndarray:
        # Only the last of a batch differs, as where a batch size became a constant.
        found = network(images)
        found[-1] = found[-1][::-1]
        return found

    assert check_graph(network, network, faces, who, "faces").problems("fp32") == []
    problems = check_graph(network, off, faces, who, "faces").problems("fp32")
    assert "the smallest cosine to the network is" in problems[0]

    def broken(images: np.ndarray) -> np.ndarray:
        return network(images) * np.nan

    assert check_graph(network, broken, faces, who, "faces").problems("fp16")
    worse = Rates(1e-2, 1e-2, 5e-2, 0.9, 0.8, 10_000, 500)
    words = " ".join(Check("x", 0.0, 1.0, 1.0, worse).problems("int8"))
    assert "rises from 1.00e-02 to 5.00e-02" in words
    assert "falls from 0.900 to 0.800" in words


def test_what_is_missing_is_said_before_the_work(
    weights: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise AssertionError("the graph was made")

    monkeypatch.setattr("marginface.inference.export_onnx._graph", late)
    for given, message in (
        ({"faces": tmp_path / "none"}, "none"),
        ({"precision": "int8", "calibration": tmp_path / "none"}, "none"),
    ):
        with pytest.raises(MissingInputError, match=message):
            export_onnx(open_model(weights, SMALL), tmp_path / "a.onnx", ExportOptions(**given))
    options = FolderOptions(license="unknown", with_head=True)
    with pytest.raises(InputError, match="holds no class centers"):
        write_shared_folder(open_model(weights, SMALL), tmp_path / "shared", options)
    assert not (tmp_path / "shared").exists()


def test_people_with_many_images_are_not_left_out(tmp_path: Path) -> None:
    for person, count in (("ann", 4), ("bo", 60)):
        for number in range(count):
            path = tmp_path / person / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), picture(number, 112))
    images, owners = read_aligned(tmp_path, NetworkInput.model_validate({}), 32)
    assert len(images) == 32
    assert set(owners.tolist()) == {0, 1}


def test_mistakes(weights: Path, exported: Path, people: Path, tmp_path: Path) -> None:
    model = open_model(weights, SMALL)
    target = tmp_path / "a.onnx"
    for options, words in {
        ExportOptions(flip=True): "--flip and --no-flip go with --input uint8",
        ExportOptions(opset=11): "--opset 11: choose 17 to 20",
        ExportOptions(precision="int8"): "--precision int8 needs --calibration FOLDER",
        ExportOptions(calibration=people): "--calibration goes with --precision int8",
        ExportOptions(faces=tmp_path): "no photographs below",
        ExportOptions(
            evaluation=tmp_path
        ): "no .*thresholds.json; give the folder of an evaluation",
    }.items():
        with pytest.raises(InputError, match=words):
            export_onnx(model, target, options)
    with pytest.raises(InputError, match="exists and would be overwritten"):
        export_onnx(model, exported / "x.onnx", ExportOptions())
    with pytest.raises(InputError, match="an ONNX file ends in .onnx"):
        export_onnx(model, tmp_path / "a.pt", ExportOptions())
    with pytest.raises(MissingInputError, match="no folder .*none"):
        export_onnx(model, tmp_path / "none" / "a.onnx", ExportOptions())
    (tmp_path / "few").mkdir()
    for path in list(people.rglob("*.png"))[:40]:
        shutil.copy(path, tmp_path / "few" / f"{path.parent.name}{path.name}")
    few = ExportOptions(precision="int8", calibration=tmp_path / "few")
    with pytest.raises(InputError, match="int8 needs 100 aligned faces or more.*got 40"):
        export_onnx(model, target, few)
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((n, {}) for n in ("iresnet18", "miniresnet8", "mobilefacenet")),
        pytest.param("iresnet50", {}, marks=pytest.mark.long),
        ("resnet10t", {"pool": "flatten"}),
        ("resnet10t", {"pool": "model"}),
        pytest.param("convnext_atto", {}, marks=pytest.mark.long),
        ("vit_tiny_patch16_224", {"norm": "ln"}),
        pytest.param("mobilenetv3_small_100", {}, marks=pytest.mark.long),
        pytest.param("efficientnet_b0", {}, marks=pytest.mark.long),
        pytest.param("regnetx_002", {}, marks=pytest.mark.long),
    ],
)
def test_every_network(name: str, config: dict[str, str], tmp_path: Path) -> None:
    path = weights_of(tmp_path, name, **config)
    backbone = {"name": name, "embedding_size": 512, "image_size": 112, **config}
    model = open_model(path, backbone)
    check = export_onnx(model, tmp_path / "a.onnx", ExportOptions(layout="uint8"))
    assert check.min_cosine > 1 - 1e-6
