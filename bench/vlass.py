"""What a VLASS tile and an epoch of VLASS would cost, on paper, with the coefficients of ``peelkit.core.cost``.

    python bench/vlass.py [--check]

Writes the tables between the markers of docs/scaling.md; with --check only says whether it is up to date.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from peelkit import memory
from peelkit.core import cost
from peelkit.core.cost import KEPT_PER_ROW, Grid, Size, Stage, stages_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
MARKERS = "<!-- begin: bench/vlass.py{} -->", "<!-- end: bench/vlass.py{} -->"

# A tile as the memo's chain has it: fields, spws, channels and correlations (issue 6; seed 001).
FIELDS, SPWS, CHANNELS, CORRELATIONS = 189, 16, 64, 4
ANTENNAS = 27
# 67 M rows are 63 integrations of 0.45 s for each field; taken as three scans of 21.
SCANS, INTEGRATIONS = 3, 21
# An epoch of VLASS is 899 tiles, observed in two halves (Lacy et al. 2020, PASP 132, 035001).
TILES_EPOCH = 899
# Each field's image: 0.6" pixels of a 2.5" beam over 20', little more than the main lobe at 3 GHz.
IMSIZE, NTERMS, ROUNDS = 2048, 2, 4
BRIGHT = 1
# The cores of the machine that the coefficients are of.
CORES = 2


def tile() -> Size:
    """All data of a tile."""
    baselines = ANTENNAS * (ANTENNAS - 1) // 2
    rows = FIELDS * SPWS * SCANS * INTEGRATIONS * baselines
    return Size(
        rows=rows, samples=rows * CHANNELS * CORRELATIONS, visibilities=rows * CHANNELS,
        fields=FIELDS, spws=SPWS, antennas=ANTENNAS, channels=SPWS * CHANNELS,
    )  # fmt: skip


def chain(size: Size) -> list[tuple[str, list[Stage], float]]:
    """Commands of the chain, their stages, and how often they run: selfcal and images field by field, not averaged."""
    one = size.times(1 / FIELDS)
    grid = Grid(IMSIZE, NTERMS, "standard")
    return [
        ("selfcal, each field", cost.selfcal(one, None, grid, rounds=ROUNDS, whole=one, calwt=False), FIELDS),
        ("predict-region", cost.predict_region(size, regions=BRIGHT, columns=BRIGHT + 1, fitted=BRIGHT), 1),
        ("ddsolve", cost.ddsolve(size, directions=BRIGHT, auto=True, columns=1, whole=size), 1),
        ("image-residual, each field", cost.image_residual(one, None, grid, new=False, grows=True), FIELDS),
    ]  # fmt: skip


def text() -> str:
    """The table."""
    size = tile()
    lines = [
        f"A tile: {FIELDS} fields x {SPWS} spws x {SCANS * INTEGRATIONS} integrations x "
        f"{ANTENNAS * (ANTENNAS - 1) // 2} baselines = {size.rows / 1e6:.1f} M rows of {CHANNELS} channels x "
        f"{CORRELATIONS} correlations: {size.samples / 1e9:.2f} G samples, "
        f"{size.column_bytes / 1e9:.0f} GB a column. An epoch: {TILES_EPOCH} tiles.",
        "",
        f"Taken are {SCANS} scans of {INTEGRATIONS} integrations for each field, an image of {IMSIZE}² pixels with {NTERMS} "
        f"Taylor terms of each field and none of all together, {ROUNDS} rounds of self-calibration of "
        f"{cost.MAJOR_CYCLES} major cycles, one round of peeling of one source, and one process at a time.",
        "",
        "| command | stage | CPU, tile [h] | wall, tile [h] | read, tile [TB] | CPU, epoch [core years] |",
        "|---|---|---:|---:|---:|---:|",
    ]
    totals = [0.0, 0.0, 0.0]
    largest: tuple[float, str] = (0.0, "")
    for command, stages, times in chain(size):
        for item in stages:
            cpu, wall, read = (
                times * value for value in (item.cpu_s, item.seconds, item.read_bytes)
            )
            totals = [old + new for old, new in zip(totals, (cpu, wall, read), strict=True)]
            largest = max(largest, (wall, f"{command}: {item.name}"))
            if cpu > 0.002 * 3600:
                lines.append(_line(command, item.name, cpu, wall, read))
        cpu, wall = stages_of(stages)
        lines.append(_line(f"**{command}**", "all", times * cpu, times * wall,
                           times * sum(one.read_bytes for one in stages)))  # fmt: skip
    lines.append(_line("**chain**", "all", *totals))
    share = 100 * largest[0] / totals[1]
    rows_gib = {name: value * size.rows / memory.GIB for name, value in KEPT_PER_ROW.items()}
    most = max(rows_gib, key=lambda name: rows_gib[name])
    lines += [
        "",
        f"The bottleneck is *{largest[1]}*: {share:.0f} % of the wall time. On {CORES} cores a tile takes "
        f"{totals[1] / 86400:.1f} days, and an epoch in half a year "
        f"{math.ceil(totals[1] * TILES_EPOCH / 86400 / 182)} such machines.",
        "",
        f"What stays in memory for a tile's rows is {rows_gib[most]:.2f} GiB at most ({most}).",
    ]
    return "\n".join(lines)


def rows_text() -> str:
    """What is kept for each row, and how many rows the default limit holds."""
    size = tile()
    room = memory.DEFAULT_GIB * memory.GIB - cost.OWN_BYTES - 12 * memory.chunk_bytes()
    lines = [
        "| command | kept [B/row] | a VLASS tile [GiB] | rows in 2 GiB beside 12 pieces, no engine [M] |",
        "|---|---:|---:|---:|",
    ]
    for name, value in KEPT_PER_ROW.items():
        gib = value * size.rows / memory.GIB
        lines.append(f"| {name} | {value:g} | {gib:.2f} | {room / value / 1e6:.0f} |")
    return "\n".join(lines)


def _line(command: str, name: str, cpu: float, wall: float, read: float) -> str:
    years = cpu * TILES_EPOCH / 86400 / 365.25
    return f"| {command} | {name} | {cpu / 3600:.2f} | {wall / 3600:.2f} | {read / 1e12:.2f} | {years:.2f} |"


def main() -> None:
    """Write the table, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="Only say whether the page is up to date."
    )
    asked = parser.parse_args()
    page = PAGE.read_text("utf-8")
    fresh = page
    for name, made in (("", text()), (" rows", rows_text())):
        begin, end = (marker.format(name) for marker in MARKERS)
        before, rest = fresh.split(begin)
        fresh = f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
    if asked.check:
        sys.exit(fresh != page and f"{PAGE}: not up to date; run bench/vlass.py")
    PAGE.write_text(fresh, "utf-8")


if __name__ == "__main__":
    main()
