#!/bin/sh
# Self-calibrate the real VLA data of 3C273 (8 GHz, 1989) that the casadata package ships.
# Usage: sh selfcal-3c273.sh FOLDER
set -eu

folder=${1:-demo}
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"

# casadata ships UVFITS; an MS is what everything else works on.
python "$here/import_demo.py" 3C273XC1.fits 3C273.ms

peelkit snr-estimate 3C273.ms
peelkit selfcal 3C273.ms --from 3C273.ms.snr-estimate.peelkit.json --out plan
peelkit undo 3C273.ms

# The automatic ladder decides again after each round, with the S/N it has by then.
peelkit selfcal 3C273.ms --solint auto --out auto
peelkit mask auto/first.image 3C273.mask
peelkit stats auto/first.image "$(python -c 'import json; print(json.load(open("3C273.ms.selfcal.peelkit.json"))["results"]["final"]["image"])')" --plot stats.png

echo "Everything is in $PWD: plots in auto/*.png and stats.png."
