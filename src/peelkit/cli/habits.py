"""What people who know CASA's tasks type out of habit: read as it is meant, or explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

# Both sides of an image, which are alike here; and lists.
SQUARE, LISTS = ("--imsize", "--cell"), ("--scales", "--spwmap")

_SIDE = re.compile(r"\d*\.?\d+\s*[a-z\"']*")

# Options of CASA's tasks that have no counterpart, and what serves.
INSTEAD = {
    "--vis": "the MS stands first, without a word before it",
    "--imagename": "the image's name is the argument OUT, or in the folder of --out",
    "--caltable": "gain tables are in the folder of --out",
    "--deconvolver": "it follows from --nterms and --scales",
    "--specmode": "images are of the whole band (mfs)",
    "--weighting": "images have Briggs weights; --robust 2 is nearly natural, --robust -2 uniform",
    "--usemask": "masks are made from each image, or given with --mask",
    "--savemodel": "the model is in MODEL_DATA after selfcal, and where predict-region puts it",
    "--interactive": "masks are made from each image, or given with --mask",
    "--inp": "the parameters are listed by --help",
}


def as_meant(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """Arguments of a command with CASA's spellings put right.

    ``--imsize 512 512``, ``512,512`` and ``[512, 512]`` are 512; lists lose their brackets.

    Raises
    ------
    click.UsageError
        For sides that differ, ``name=value``, a value after a flag, and options that only CASA has.
    """
    known = {word: option for option in command.params for word in option.opts}
    rest, found = list(arguments), []
    takes_value = False
    while rest:
        word = rest.pop(0)
        name, given, value = word.partition("=")
        if takes_value or word == "--":
            found += [word, *rest] if word == "--" else [word]
            if word == "--":
                break
            takes_value = False
            continue
        if name in INSTEAD and name not in known:
            raise click.UsageError(f"No such option '{name}': {INSTEAD[name]}.")
        option = known.get(name)
        if name in (*SQUARE, *LISTS) and option is not None and (given or rest):
            value = value if given else rest.pop(0)
            if name in SQUARE:
                sides = _sides(value, rest)
                if any(side != sides[0] for side in sides):
                    raise click.UsageError(
                        f"{name} {' '.join(sides)}: images are square, with square pixels; give one value."
                    )
                value = sides[0]
            found += [name, value.strip("[]()").replace(" ", "")]
            continue
        if isinstance(option, click.Option) and not given:
            takes_value = not option.is_flag and not option.count and option.nargs == 1
            if option.is_flag and rest and rest[0] in ("True", "False"):
                raise click.UsageError(
                    f"{word} {rest[0]}: {word} takes no value; write it, or leave it out."
                )
        if given and f"--{name}" in known and not Path(word).exists():
            raise click.UsageError(f"{word}: write --{name} {value}.")
        if given and name == "vis" and not Path(word).exists():
            raise click.UsageError(f"{word}: {INSTEAD['--vis']}; write {value}.")
        found.append(word)
    return found


def _sides(value: str, rest: list[str]) -> list[str]:
    """Both sides, if there are two; the second is taken from ``rest``."""
    sides = [_bare(side) for side in re.split(r"[\s,]+", value.strip("[]() ")) if side]
    second = _bare(rest[0].strip("[](), ")) if rest else ""
    if len(sides) == 1 and _SIDE.fullmatch(second.lower()) and not Path(rest[0]).exists():
        rest.pop(0)
        sides.append(second)
    return sides or [value]


def _bare(side: str) -> str:
    return side.strip(side[0]) if side[:1] in ("'", '"') else side
