"""What the README shows is right: its commands pass the check, its Python runs."""

import re
import shlex

import pytest

from conftest import ROOT
from marginface.cli.entry import check_command_line
from marginface.errors import InputError

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.replace("\\\n", " ").split("#")[0].strip()
    for line in re.findall(r"^python train\.py(?:.*\\\n)*.*$", README, re.MULTILINE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_pass_the_check(command: str) -> None:
    arguments = shlex.split(command)[2:]
    if "head=myhead" not in arguments:
        check_command_line("train", arguments)


def test_there_are_commands_and_wrong_ones_would_fail() -> None:
    assert len(COMMANDS) >= 7
    with pytest.raises(InputError):
        check_command_line("train", ["sweep=margin"])


def test_the_loop_in_plain_pytorch_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (loop,) = [block for block in blocks if "loss.backward()" in block]
    names: dict[str, object] = {}
    exec(loop, names)
    assert names["head"].weight.grad.isfinite().all()  # type: ignore[attr-defined]


def test_files_it_links_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_short_enough_to_read() -> None:
    assert len(README.splitlines()) < 200
