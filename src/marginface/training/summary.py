"""What is written and printed before training starts."""

from typing import Any

import lightning as L

from marginface.classifier.memory_estimate import classifier_lines, classifier_memory
from marginface.data.datamodule import FaceDataModule
from marginface.heads.analysis.advisor import advise
from marginface.heads.analysis.first_loss import sizes_of
from marginface.runs.folder import RunFolder
from marginface.runs.metadata import collect
from marginface.training.module import FaceRecognizer, parameter_count
from marginface.training.strategies import shares_classes
from marginface.utils.hardware import has_bfloat16


def _begin(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    module: FaceRecognizer,
    trainer: L.Trainer,
    folder: RunFolder,
    untrained: bool,
) -> None:
    head = module.head
    rows, width = head.centers.num_rows, head.embedding_size
    facts = {
        "world_size": trainer.world_size,
        "devices": trainer.num_devices,
        "precision": trainer.precision,
        "num_classes": datamodule.num_classes,
        "backbone_parameters": parameter_count([module.backbone]),
        "head_parameters": parameter_count([head]) + rows * width - head.weight.numel(),
    }
    info = collect(config, datamodule.fingerprint(), **facts)
    folder.begin(config, info)
    for logger in trainer.loggers:
        logger.log_hyperparams(config | {"runinfo": info})
    sets = [f"{v.name} ({len(v.same)} pairs)" for v in datamodule.verification_sets]
    print(
        f"{config['name']}: {len(datamodule.train_set)} images of {datamodule.num_classes} "
        f"identities, {datamodule.steps_per_epoch} steps an epoch; backbone "
        f"{parameter_count([module.backbone]) / 1e6:.2f} M parameters, head "
        f"{rows} x {width}; "
        f"verification on {', '.join(sets) or 'nothing'}\n"
        f"run folder {folder.path}"
    )
    parts = trainer.world_size if shares_classes(trainer) else 1
    batch = datamodule.batch_size // (1 if parts > 1 else trainer.world_size)
    device = trainer.strategy.root_device
    memory = classifier_memory(
        rows,
        width,
        batch,
        head.options,
        optimizer=config["optimizer"]["_target_"].rpartition(".")[2],
        world=parts,
        accumulates=trainer.accumulate_grad_batches > 1,
        device=device,
    )
    for line in classifier_lines(memory, head.num_classes, head.options, parts, device):
        print(f"classifier: {line}")
    if str(trainer.precision).startswith("bf16") and not has_bfloat16(device):
        print(
            f"trainer.precision={trainer.precision} is many times slower here than 32-true: this "
            "CPU has no instructions for bfloat16"
        )
    for line in advise(head.margin, head.loss, **sizes_of(head), precision=trainer.precision).lines(
        untrained
    ):
        print(f"head {head.name}: {line}")
