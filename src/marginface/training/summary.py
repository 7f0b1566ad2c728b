"""What a run writes and prints before training starts."""

from typing import Any

import lightning as L
import numpy as np
import torch

from marginface.classifier.memory_estimate import classifier_lines, classifier_memory
from marginface.config.defaults import changed_settings
from marginface.data.datamodule import FaceDataModule
from marginface.data.pairs.cautions import pair_cautions
from marginface.data.pairs.verification_sets import PairFile
from marginface.data.shared_images import shared_images
from marginface.heads.analysis.advisor import advise
from marginface.heads.analysis.first_loss import expected_first_loss, sizes_of
from marginface.runs.folder import RunFolder
from marginface.runs.metadata import collect
from marginface.runs.status import note_status
from marginface.training.build import scaled_rate
from marginface.training.curves import head_curve
from marginface.training.module import FaceRecognizer
from marginface.training.parameter_groups import parameter_count, print_parts
from marginface.training.strategies import shares_classes
from marginface.utils.console import print_warning
from marginface.utils.hardware import has_bfloat16, machine


def begin_run(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    module: FaceRecognizer,
    trainer: L.Trainer,
    folder: RunFolder,
    untrained: bool,
) -> None:
    """Write config.yaml and runinfo.json, tell the loggers, print what will be trained.

    Args:
        untrained: whether the head starts from random centers, and not from a checkpoint.
    """
    info = collect(config, datamodule.fingerprint(), **_sizes(datamodule, module, trainer))
    facts = _facts_of_page(config, datamodule, module, untrained, folder.read_info())
    folder.begin(config, info | facts)
    folder.add_curves({"head": head_curve(module.head.margin)})
    note_status(folder, "running")
    folder.write_identities(datamodule.train_set.identities)
    for logger in trainer.loggers:
        logger.log_hyperparams(config | {"runinfo": info})
    print(_headline(config["name"], datamodule, module))
    print(f"run folder {folder.path}")
    by_epochs = (trainer.max_epochs or 0) * datamodule.steps_per_epoch
    is_whole = trainer.limit_train_batches == 1.0 and isinstance(trainer.limit_train_batches, float)
    if is_whole and 0 < by_epochs < trainer.max_steps:
        print(
            f"trainer.max_epochs={trainer.max_epochs} ends the run after {by_epochs} steps, before "
            f"trainer.max_steps={trainer.max_steps}"
        )
    if config.get("finetune"):
        rate = scaled_rate(config, datamodule.batch_size)
        print_parts(module.backbone, module.head, module.finetuning, rate)
    head, device = module.head, trainer.strategy.root_device
    if device.type == "cuda":
        print(
            f"float32 products of the backbone: {torch.get_float32_matmul_precision()}, "
            f"cudnn.benchmark {'on' if torch.backends.cudnn.benchmark else 'off'}"
        )
    reason = head.reason_for_torch(device, torch.promote_types(head.weight.dtype, torch.float32))
    path = "GPU kernels" if reason is None else f"plain torch ({reason})"
    print(f"classifier: {path}, products in {head.options.product_precision}")
    for line in _classifier_lines(config, datamodule, module, trainer, reason is None):
        print(f"classifier: {line}")
    if str(trainer.precision).startswith("bf16") and not has_bfloat16(trainer.strategy.root_device):
        print(
            f"trainer.precision={trainer.precision} is many times slower here than 32-true: this "
            "CPU has no instructions for bfloat16"
        )
    advice = advise(head.margin, head.loss, **sizes_of(head), precision=trainer.precision)
    for line in advice.lines(untrained):
        print(f"head {head.name}: {line}")
    if untrained:
        _warn_of_verification(datamodule)


def _facts_of_page(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    module: FaceRecognizer,
    untrained: bool,
    before: dict[str, Any],
) -> dict[str, Any]:
    """Of the data, the machine, the settings and the head, for the page of the run."""
    images = np.bincount(datamodule.train_set.labels, minlength=datamodule.num_classes)
    shares = {"least": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "most": 1.0}
    facts: dict[str, Any] = {
        "dataset": {
            "images": len(datamodule.train_set),
            "identities": datamodule.num_classes,
            "images_per_identity": {
                "mean": float(images.mean()),
                **{name: float(np.quantile(images, share)) for name, share in shares.items()},
            },
            "verification_pairs": {v.name: len(v.same) for v in datamodule.verification_sets},
        },
        "machine": machine(),
        "changed_settings": changed_settings(config),
    }
    head = module.head
    # Then the loss of a step says little about how well it is learned: the margin moves as well,
    # with norms or with a state.
    facts["margin_moves"] = head.margin.needs_norm or bool(list(head.margin.buffers()))
    if untrained:
        facts["expected_first_loss"] = expected_first_loss(head.margin, head.loss, **sizes_of(head))
    elif "expected_first_loss" in before:  # a resumed run began so
        facts["expected_first_loss"] = before["expected_first_loss"]
    return facts


def _warn_of_verification(datamodule: FaceDataModule) -> None:
    """Warnings of pair files whose numbers would mislead."""
    for pairs in datamodule.verification_sets:
        if isinstance(pairs, PairFile):
            shared = shared_images(datamodule.train_set, pairs)
            for caution in [*pair_cautions(pairs), *([shared] if shared else [])]:
                print_warning(f"{pairs.name}: {caution}")


def _sizes(
    datamodule: FaceDataModule, module: FaceRecognizer, trainer: L.Trainer
) -> dict[str, Any]:
    """Of the run, for runinfo.json; class centers count on all processes."""
    centers = module.head.centers
    elsewhere = centers.num_rows * centers.embedding_size - centers.weight.numel()
    return {
        "world_size": trainer.world_size,
        "devices": trainer.num_devices,
        "precision": trainer.precision,
        "num_classes": datamodule.num_classes,
        "backbone_parameters": parameter_count([module.backbone]),
        "head_parameters": parameter_count([module.head]) + elsewhere,
    }


def _headline(name: str, datamodule: FaceDataModule, module: FaceRecognizer) -> str:
    sets = [f"{v.name} ({len(v.same)} pairs)" for v in datamodule.verification_sets]
    centers = module.head.centers
    return (
        f"{name}: {len(datamodule.train_set)} images of {datamodule.num_classes} identities, "
        f"{datamodule.steps_per_epoch} steps an epoch; backbone "
        f"{parameter_count([module.backbone]) / 1e6:.2f} M parameters, head "
        f"{centers.num_rows} x {centers.embedding_size}; "
        f"verification on {', '.join(sets) or 'nothing'}"
    )


def _classifier_lines(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    module: FaceRecognizer,
    trainer: L.Trainer,
    in_kernels: bool,
) -> list[str]:
    """The memory estimate of the classifier, in words."""
    head, device = module.head, trainer.strategy.root_device
    parts = trainer.world_size if shares_classes(trainer) else 1
    memory = classifier_memory(
        head.centers.num_rows,
        head.embedding_size,
        datamodule.batch_size // (1 if parts > 1 else trainer.world_size),
        head.options,
        optimizer=config["optimizer"]["_target_"].rpartition(".")[2],
        world=parts,
        accumulates=trainer.accumulate_grad_batches > 1,
        in_kernels=in_kernels,
        device=device,
    )
    return classifier_lines(memory, head.num_classes, head.options, parts, device)
