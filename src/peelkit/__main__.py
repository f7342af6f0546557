"""``python -m peelkit``."""

from peelkit.cli.main import cli

cli(prog_name="peelkit")
