"""`marginface new`: a folder for one's own project, with a head in it."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.utils.errors import InputError

_README = """# {name}

Train the head in `{name}/heads.py`, or any other:

    marginface train debug=fast head=myhead
    marginface train head=myhead head.margin=0.3 data=folder data.root=faces
    marginface train -m head=myhead,arcface seed=1,2

`configs/head/myhead.yaml` has its defaults, `configs/local/default.yaml` settings of this project.
`marginface heads` lists all heads, `marginface --help` all commands.
"""

_HEAD = '''"""Heads of this project; configs/local/default.yaml names this module in `plugins`."""

from torch import Tensor

from marginface.heads import Margin, register_head


@register_head("myhead")
class MyHead(Margin):
    """Target logit: a steeper cosine, f = cos - margin (1 - cos)."""

    def __init__(self, *, scale: float = 64.0, margin: float = 0.2) -> None:
        super().__init__(scale)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin * (1 - cosine)
'''

_FILES = {
    "README.md": _README,
    "{name}/__init__.py": "",
    "{name}/heads.py": _HEAD,
    "configs/head/myhead.yaml": "name: myhead\nscale: 64.0\nmargin: 0.2\nloss: cross_entropy\n",
    "configs/local/default.yaml": (
        "# @package _global_\n# Settings of this project, under those of the command line.\n"
        "plugins: [{name}.heads]\n"
    ),
    ".gitignore": "logs/\n__pycache__/\n",
}


def new_command(
    name: Annotated[str, typer.Argument(help="of the folder and of the Python package in it")],
) -> None:
    """Write a folder for a project of your own: a head, its configuration, a README."""
    with clear_errors():
        folder = Path(name)
        package = folder.name
        if not package.isidentifier():
            raise InputError(
                f"{package!r} cannot be imported; use letters, digits and _, not beginning with a "
                "digit"
            )
        if _is_installed(package):
            raise InputError(f"{package!r} is a package that is installed; choose another name")
        if folder.exists():
            raise InputError(f"{folder} exists; choose another name, nothing is overwritten")
        for path, content in _FILES.items():
            file = folder / path.format(name=package)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content.format(name=package))
        typer.echo(f"{folder} written; try: cd {folder} && marginface train debug=fast head=myhead")


def _is_installed(package: str) -> bool:
    """Whether a package of that name would be hidden by the folder."""
    spec = find_spec(package)
    origin = (spec.origin or "") if spec is not None else ""
    return package in sys.stdlib_module_names or "site-packages" in origin
