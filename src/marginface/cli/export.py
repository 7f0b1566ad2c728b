"""`marginface export`: a trained network as an ONNX file or as a folder to share."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import ModelArgument, SourceOptions, takes
from marginface.utils.errors import InputError, check_choice


@takes(source=SourceOptions)
def export_command(
    model: ModelArgument,
    target: Annotated[Path, typer.Argument(help="new file x.onnx, or new folder")],
    input: Annotated[
        str, typer.Option(help="float (as the network takes it) or uint8 (RGB bytes, does it all)")
    ] = "float",
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="for uint8; else as evaluated")
    ] = None,
    opset: Annotated[int, typer.Option(help="of ONNX, 17 to 20")] = 18,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="for int8: folder of 100 to 500 aligned faces")
    ] = None,
    quantization: Annotated[
        str, typer.Option(help="of int8: per-channel, or to see figures: per-tensor, dynamic")
    ] = "per-channel",
    faces: Annotated[
        Path | None,
        typer.Option(help="aligned faces for the check, in a folder a person; or noise"),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="folder of an evaluation, for thresholds and metrics")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="for a folder: SPDX id of the weights, or unknown")
    ] = None,
    license_file: Annotated[Path | None, typer.Option(help="for a folder: its text")] = None,
    training_data: Annotated[
        str | None, typer.Option(help="for a folder: name of the data and its terms")
    ] = None,
    with_head: Annotated[
        bool, typer.Option("--with-head", help="for a folder: class centers, templates of people")
    ] = False,
    pack: Annotated[
        Path | None, typer.Option(help="also copy it where insightface's FaceAnalysis looks")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="keep a file that the check refuses")
    ] = False,
    *,
    source: SourceOptions,
) -> None:
    """Write an ONNX file, checked against the network, or a folder to share."""
    with clear_errors():
        from marginface.inference.export_check import Precision
        from marginface.inference.export_folder import FolderOptions, write_shared_folder
        from marginface.inference.export_onnx import (
            ExportOptions,
            ExportRefusedError,
            Layout,
            export_onnx,
        )
        from marginface.inference.face_analysis_pack import check_pack, write_pack
        from marginface.inference.onnx_precision import Quantization

        check_choice("--input", input, get_args(Layout))
        check_choice("--precision", precision, get_args(Precision))
        check_choice("--quantization", quantization, get_args(Quantization))
        options = ExportOptions(
            layout=input,  # type: ignore[arg-type]  # checked above, as the two others
            flip=flip,
            opset=opset,
            precision=precision,  # type: ignore[arg-type]
            calibration=calibration,
            quantization=quantization,  # type: ignore[arg-type]
            faces=faces,
            evaluation=evaluation,
            force=force,
        )
        file = source.open(model)
        if pack is not None:
            check_pack(pack, file, options)
        try:
            if target.suffix == ".onnx":
                _check_no_folder_options(license, license_file, training_data, with_head)
                check = export_onnx(file, target, options)
            else:
                if license is None:
                    raise InputError(
                        f"{target} will be a folder to share, and needs --license: the SPDX id of "
                        "the weights' license, or unknown. The data trained on may forbid sharing"
                    )
                folder = FolderOptions(license, license_file, training_data, with_head, options)
                check = write_shared_folder(file, target, folder)
        except ExportRefusedError as refused:
            print(refused)
            raise SystemExit(1) from None
        if pack is not None:
            print(f"for FaceAnalysis: {write_pack(pack, target)}")
        print(f"{target} written and checked: {check.words()}")


def _check_no_folder_options(*given: object) -> None:
    if any(given):
        raise InputError(
            "--license, --license-file, --training-data and --with-head are for a folder to share; "
            "give a target without .onnx"
        )
