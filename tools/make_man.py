"""Write man/ from the command tree: one page for peelkit and one for each command."""

import inspect
import re
import textwrap
from pathlib import Path

import click

from peelkit import __version__
from peelkit.cli.main import EXIT_STATUS, cli

FOLDER = Path(__file__).parents[1] / "man"


def escape(text: str) -> str:
    """Roff text: backslashes, dashes and leading dots mean something there."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def split_help(command: click.Command) -> tuple[list[str], str]:
    """Paragraphs of the description, and the block of examples."""
    paragraphs, examples = [], ""
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        if block.startswith("\b"):
            text = "\n".join(block.splitlines()[1:]).removeprefix("Examples:\n")
            examples = textwrap.dedent(text)
        else:
            paragraphs.append(" ".join(block.split()))
    return paragraphs, examples


def options(command: click.Command, ctx: click.Context) -> list[str]:
    """OPTIONS entries."""
    lines = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record and isinstance(parameter, click.Option):
            lines += [".TP", f"\\fB{escape(record[0])}\\fR", escape(" ".join(record[1].split()))]
    return lines


def page(command: click.Command, ctx: click.Context) -> str:
    """One page."""
    title = ctx.command_path.replace(" ", "-")
    paragraphs, examples = split_help(command)
    summary = command.get_short_help_str(200).rstrip(".")
    lines = [
        f'.TH "{title.upper()}" "1" "" "peelkit {__version__}" "peelkit manual"',
        ".SH NAME",
        f"{escape(title)} \\- {escape(summary)}",
        ".SH SYNOPSIS",
        f"\\fB{escape(ctx.command_path)}\\fR {escape(' '.join(command.collect_usage_pieces(ctx)))}",
        ".SH DESCRIPTION",
    ]
    for paragraph in paragraphs:
        lines += [escape(paragraph), ".PP"]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name, child in sorted(command.commands.items()):
            lines += [
                ".TP",
                f"\\fBpeelkit {escape(name)}\\fR(1)",
                escape(child.get_short_help_str(200)),
            ]
    lines += [".SH OPTIONS", *options(command, ctx), ".SH EXIT STATUS"]
    for code, meaning in EXIT_STATUS.items():
        lines += [".TP", f"\\fB{code}\\fR", escape(meaning)]
    if examples:
        lines += [".SH EXAMPLES", ".nf", escape(examples), ".fi"]
    others = ["peelkit", *(f"peelkit-{name}" for name in sorted(cli.commands))]
    see = ", ".join(f"\\fB{escape(name)}\\fR(1)" for name in others if name != title)
    return "\n".join([*lines, ".SH SEE ALSO", see]) + "\n"


def generate() -> dict[str, str]:
    """File name to its text."""
    ctx = click.Context(cli, info_name="peelkit", **cli.context_settings)
    texts = {"peelkit.1": page(cli, ctx)}
    for name, command in cli.commands.items():
        child = click.Context(command, info_name=name, parent=ctx)
        texts[f"peelkit-{name}.1"] = page(command, child)
    return texts


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in generate().items():
        (FOLDER / name).write_text(text)
