"""Import one of the UVFITS files that casadata ships: import_demo.py NAME.fits OUT.ms."""

import sys
from pathlib import Path

import casadata

from peelkit.engines.casa import Casa, import_uvfits

name, out = sys.argv[1], Path(sys.argv[2])
with Casa(out.with_name(f"{out.name}.import.casa.log")) as casa:
    import_uvfits(casa, Path(casadata.datapath) / "demo" / name, out)
