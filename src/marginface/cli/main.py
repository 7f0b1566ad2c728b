"""Work with face data, heads and networks."""

import importlib
import os
import sys
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

# Module, attribute and help of each command. Modules are imported when their command runs, because
# some need torch, and `marginface --help` should not wait for it.
COMMANDS = {
    "train": ("run", "train_command", "Train a network; overrides as for train.py."),
    "evaluate": ("run", "evaluate_command", "Evaluate a network; overrides as for evaluate.py."),
    "new": ("new", "new_command", "A folder for a project of your own, with a head."),
    "pack": ("pack", "pack_command", "Copy faces into another format, byte for byte."),
    "pairs": ("pairs", "pairs_command", "Draw verification pairs of your own people."),
    "align": ("align", "align_command", "Warp photographs onto the five-point template."),
    "inspect-data": ("inspect_data", "inspect_command", "Look for faults in face data."),
    "heads": ("heads", "app", "List heads, draw their curves, explain their parameters."),
    "export": ("export", "export_command", "Write an ONNX file, or a folder to share."),
    "embed": ("embed", "embed_command", "Faces of photographs as embeddings in a file."),
    "verify": ("verify", "verify_command", "Whether two photographs show one person."),
    "enroll": ("enroll", "enroll_command", "Add people to a gallery."),
    "identify": ("identify", "identify_command", "Who the faces in photographs are."),
    "gallery": ("gallery", "app", "Look into a gallery, remove people, export it."),
    "demo": ("demo", "demo_command", "A page on this machine to try a model."),
    "profile": ("profile", "profile_command", "Time and memory of a network, by runtime."),
    "push": ("hub", "push_command", "Upload a shared folder to the Hugging Face Hub."),
    "pull": ("hub", "pull_command", "Fetch a shared folder from the Hugging Face Hub."),
    "export-head": ("export_head", "export_head_command", "Write class centers to a file."),
    "runs": ("runs", "runs_command", "List run folders: state, step, best accuracy."),
    "report": ("report", "report_command", "Write the page of a run or a sweep again."),
    "compare": ("compare", "compare_command", "Compare runs, or evaluations, in a table."),
}


class LazyCommands(TyperGroup):
    """Imports a command when it is asked for.

    Contexts and formatters are those of click, of which typer has a copy in some versions.
    """

    def list_commands(self, context: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        target: Any = getattr(importlib.import_module(f"marginface.cli.{module}"), attribute)
        if isinstance(target, typer.Typer):
            command: Any = typer.main.get_command(target)
        else:
            alone = typer.Typer(add_completion=False)
            settings = getattr(target, "context_settings", None)
            alone.command(name, context_settings=settings)(target)
            command = typer.main.get_command(alone)
        command.name = name
        return command

    def format_help(self, context: Any, formatter: Any) -> None:
        self.format_usage(context, formatter)
        formatter.write_paragraph()
        formatter.write_text(str(__doc__))
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def _marginface() -> None:
    """`marginface COMMAND --help` explains each of them."""
    here = os.getcwd()
    if sys.path[0] != here:  # a console script has its own folder there
        sys.path.insert(0, here)
