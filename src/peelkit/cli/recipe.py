"""``peelkit recipe``."""

from __future__ import annotations

from importlib import resources

import click

from peelkit.cli import options

RECIPES = ("peel", "calibrate")


@click.command("recipe", short_help="Print a shell script that chains the commands.")
@click.argument("name", metavar="NAME", type=click.Choice(RECIPES))
@options.verbosity
def recipe(name: str) -> None:
    """Print the shell script NAME, to be kept in a file, edited and run.

    peel: self-calibrate, find or take the regions of the bright sources, predict them, solve gains
    towards them, subtract them, image what is left, compare.

    calibrate: from UVFITS or an MS as observed to an image of the target: delays, bandpass and gains on
    a flux calibrator, gains on the calibrator beside the target, its flux from both.

    The parameters are at the top of the script. It stops at the first command that fails or says no;
    started again it goes on there.

    \b
    Examples:
      peelkit recipe peel > peel.sh
      sh peel.sh target.ms bright.crtf out
      sh peel.sh target.ms out
      peelkit recipe calibrate > calibrate.sh
      sh calibrate.sh day.uvfits 3C286 J1445 NGC5921 out
    """
    text = (resources.files("peelkit") / "recipes" / f"{name}.sh").read_text("utf-8")
    click.echo(text, nl=False)
