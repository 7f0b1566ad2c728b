"""Whatever is set, and however the data is damaged, a run ends well or with one line."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from helpers.pictures import jpegs
from marginface.cli.train import main
from marginface.data import write_recordio

# What a setting is tried with: good values, bad ones, and some of the wrong type.
VALUES = {
    "trainer.max_epochs": ["1", "2", "0", "-1", "1.5", "null", "many"],
    "trainer.max_steps": ["1", "2", "0", "-1", "-2", "null", "1.5"],
    "trainer.limit_train_batches": ["0", "0.0", "1", "1.0", "0.01", "2.5", "-1", "null", "1000"],
    "trainer.limit_val_batches": ["0", "0.0", "1", "0.5", "1.0", "-1", "null", "1000"],
    "trainer.val_check_interval": ["1", "0.5", "1000", "0", "-1", "null", "2.5", "1.0", "00:00:01"],
    "trainer.check_val_every_n_epoch": ["1", "2", "0", "-1", "null"],
    "trainer.accumulate_grad_batches": ["1", "2", "6", "7", "0", "-1", "null", "1.5"],
    "trainer.gradient_clip_val": ["0", "1", "-1", "null", "x", "1e30"],
    "trainer.precision": ["32-true", "bf16-mixed", "16-mixed", "64-true", "16", "15"],
    "trainer.devices": ["1", "0", "-1", "auto", "'1'", "null", "[0]", "x"],
    "trainer.accelerator": ["cpu", "gpu", "tpu", "auto", "x", "null"],
    "trainer.strategy": ["auto", "x", "null", "single_device", "fsdp"],
    "trainer.log_every_n_steps": ["1", "0", "-1", "1000", "null"],
    "trainer.num_sanity_val_steps": ["0", "1", "-1", "-2", "null"],
    "trainer.profiler": ["simple", "x", "null"],
    "trainer.deterministic": ["true", "warn", "x"],
    "trainer.fast_dev_run": ["true", "1", "x"],
    "trainer.overfit_batches": ["1", "0.5", "0", "-1"],
    "trainer.barebones": ["true"],
    "trainer.detect_anomaly": ["true"],
    "trainer.max_time": ["00:00:01", "00:00:00:30", "x", "{minutes:1}"],
    "trainer.min_steps": ["1", "-1", "100"],
    "trainer.reload_dataloaders_every_n_epochs": ["1", "-1"],
    "trainer.enable_model_summary": ["true"],
    "trainer.sync_batchnorm": ["true"],
    "data.batch_size": ["1", "2", "6", "0", "-1", "10000", "1.5", "null"],
    "data.eval_batch_size": ["1", "7", "0", "-1", "null"],
    "data.num_workers": ["0", "-1", "null", "100000000"],
    "data.sampler": ["shuffle", "grouped", "class_balanced", "x"],
    "data.images_per_class": ["1", "2", "3", "1000", "0", "-1"],
    "data.limit_images": ["1", "2", "20", "0", "-1", "null", "x"],
    "data.val_identities": ["0", "1", "5", "-1", "1000", "null"],
    "data.val_pairs": ["0", "20", "-1", "100000", "x"],
    "backbone": ["miniresnet8", "mobilefacenet", "iresnet18", "vit_tiny", "timm", "x"],
    "backbone=timm backbone.name": [
        "resnet10t", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "x", "levit_128s",
        "efficientvit_b0", "convnext_atto", "mobilenetv4_conv_small", "coatnet_nano_rw_224",
        "crossvit_tiny_240", "pit_ti_224", "mixer_s32_224", "twins_pcpvt_small", "hrnet_w18_small",
    ],
    "backbone.pool": ["model", "flatten", "x"],
    "backbone.pretrained": ["true", "x"],
    "backbone.embedding_size": ["8", "1", "0", "-1", "1.5"],
    "backbone.image_size": ["32", "33", "16", "8", "1", "0", "112"],
    "backbone.dropout": ["0", "0.5", "1", "2", "-1"],
    "backbone.weights": ["none.pth", "null"],
    "head": ["arcface", "adaface", "magface", "curricularface", "subcenter_arcface", "x"],
    "head.scale": ["64", "0", "-1", "1e30", "nan", "inf", "auto"],
    "head.a": ["-0.9", "0.9", "nan", "-1e30"],
    "head.k": ["0.65", "-1", "10", "nan"],
    "head.loss": ["cross_entropy", "bce", "x"],
    "classifier.sample_rate": ["0.1", "1", "0", "2", "null"],
    "classifier.chunk_mib": ["1", "0", "-1", "null"],
    "classifier.kernel": ["auto", "torch", "triton", "x"],
    "classifier.matmul_precision": ["float32", "float16", "bfloat16", "x"],
    "optimizer": ["sgd", "adamw", "x"],
    "optimizer.lr": ["0", "-1", "1e30", "nan", "x"],
    "optimizer.momentum": ["0", "1", "2", "-1"],
    "optimizer.weight_decay": ["0", "-1", "1e30"],
    "scheduler": ["cosine", "poly", "multistep", "constant", "x"],
    "scheduler.warmup_epochs": ["0", "1", "100", "-1"],
    "augmentation": ["none", "flip", "basic", "strong", "x"],
    "augmentation.flip": ["0", "1", "2", "-1", "x"],
    "seed": ["0", "4294967295", "4294967296", "-1", "1e9"],
    "resume": ["never", "auto", "must", "nothing.ckpt"],
    "compile": ["false", "x"],
    "channels_last": ["true", "x"],
    "gradient_checkpointing": ["true"],
    "keep_freed_memory": ["true"],
    "lr_base_size": ["0", "512", "-1"],
    "decay_bias_and_norm": ["true"],
    "validate_untrained": ["true"],
    "async_checkpoints": ["true"],
    "callbacks": ["none", "x"],
    "callbacks.checkpoint": ["null"],
    "callbacks.checkpoint.every_n_train_steps": ["1", "0", "-1"],
    "logger": ["csv", "null", "x"],
    "name": ["a/b", "äö", "''", "null"],
    "data.dataset.faulty": ["skip", "stop", "x"],
    "data.dataset.cache": ["true"],
    "data.dataset.resize": ["true"],
    "data.dataset.label_gaps": ["close", "keep"],
    "data.pairs": ["[none.bin]", "[]", "null", "x.bin"],
}  # fmt: skip
ADDED = ("trainer.fast_dev_run", "trainer.overfit_batches", "trainer.barebones", "trainer.max_time",
         "trainer.detect_anomaly", "trainer.min_steps", "trainer.sync_batchnorm",
         "trainer.reload_dataloaders_every_n_epochs")  # fmt: skip
DAMAGES = ("none", "cut images", "no images", "empty file", "other size", "gray", "text files",
           "cut record", "cut index", "empty index", "no record", "zeros in the record",
           "list of nothing", "list of others", "list of bytes")  # fmt: skip


def write_faces(root: Path, damage: str) -> list[str]:
    """Faces of 6 people, damaged in some way; the overrides that read them."""
    images = jpegs(24, 32)
    labels = [number // 4 for number in range(24)]
    if damage == "cut images":
        images[5] = images[5][:300]
    if damage == "empty file":
        images[5] = b""
    if damage == "other size":
        images[5] = jpegs(1, 48)[0]
    if damage == "gray":
        gray = cv2.imdecode(np.frombuffer(images[5], np.uint8), cv2.IMREAD_GRAYSCALE)
        images[5] = cv2.imencode(".jpg", gray)[1].tobytes()
    if "record" in damage or "index" in damage:
        write_recordio(root, images, labels)
        record, index = root / "train.rec", root / "train.idx"
        if damage == "cut record":
            record.write_bytes(record.read_bytes()[:-200])
        if damage == "zeros in the record":
            record.write_bytes(record.read_bytes()[:400] + bytes(400) + record.read_bytes()[800:])
        if damage == "no record":
            record.unlink()
        if damage == "cut index":
            index.write_bytes(index.read_bytes()[:-9])
        if damage == "empty index":
            index.write_bytes(b"")
        return ["data=recordio", f"data.root={root}"]
    if damage == "no images":
        images = []
    for number, image in enumerate(images):
        path = root / f"p{labels[number]}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text" if damage == "text files" else image)
    root.mkdir(exist_ok=True)
    if damage.startswith("list"):
        content = {"list of nothing": b"", "list of others": b"x/y.jpg 0\nz.jpg 1\n"}
        (root / "faces.lst").write_bytes(content.get(damage, bytes(range(256)) * 3))
        return ["data=list", f"data.root={root / 'faces.lst'}"]
    return ["data=folder", f"data.root={root}"]


@st.composite
def settings_and_damage(draw: st.DrawFn) -> tuple[list[str], str]:
    """Some overrides, and what is wrong with the data (most often nothing)."""
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=4, unique=True))
    chosen = [
        override
        for key in keys
        for override in (
            ("++" if key in ADDED else "") + f"{key}={draw(st.sampled_from(VALUES[key]))}"
        ).split(" ")
    ]
    return chosen, draw(st.sampled_from([*["synthetic"] * 10, *DAMAGES]))


def run_ends_well(
    chosen: list[str], damage: str, tiny: list[str], folder: Path, patch: pytest.MonkeyPatch
) -> None:
    """Trains a step; an exception, or another exit code than 2, is a failure."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    overrides = [*tiny, "trainer.max_steps=1"]
    if damage != "synthetic":
        overrides = [o for o in overrides if not o.startswith("data.")]
        overrides += ["data.num_workers=0", "data.batch_size=6", "data.val_identities=0"]
        overrides += write_faces(folder / "faces", damage)
    given_keys = {o.lstrip("+").split("=")[0] for o in chosen}
    kept = [o for o in overrides if o.split("=")[0] not in given_keys]
    arguments = [*kept, *chosen, f"hydra.run.dir={folder / 'run'}"]
    patch.setattr("sys.argv", ["train.py", *arguments])
    patch.chdir(folder)
    try:
        main()
    except SystemExit as ended:
        # 1 is for a run that broke down: a loss that is not finite.
        assert ended.code in (1, 2), arguments


def examples(number: int):
    return settings(
        max_examples=450,
        deadline=None,
        derandomize=False,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@given(drawn=settings_and_damage())
@seed(0)
@examples(10)
def test_a_few(drawn, tiny_run, tmp_path_factory, capsys) -> None:
    check(drawn, tiny_run, tmp_path_factory.getbasetemp() / "random", capsys)


@pytest.mark.long
@given(drawn=settings_and_damage())
@examples(200)
@pytest.mark.timeout(3600)
def test_many(drawn, tiny_run, tmp_path_factory, capsys) -> None:
    check(drawn, tiny_run, tmp_path_factory.getbasetemp() / "random", capsys)


def check(drawn, tiny_run, folder: Path, capsys) -> None:
    chosen, damage = drawn
    with pytest.MonkeyPatch.context() as patch:
        run_ends_well(chosen, damage, tiny_run, folder, patch)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed, (chosen, damage, printed)
