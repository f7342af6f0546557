#!/bin/sh
# Calibrate the real VLA data of NGC 5921 (21 cm line, 1995) that the casadata package ships, from UVFITS to an image.
# Usage: sh calibrate-ngc5921.sh FOLDER
set -eu

folder=${1:-demo}
if [ -e "$folder" ]; then
    echo "$folder exists; name a new folder" >&2
    exit 2
fi
mkdir -p "$folder"
cd "$folder"

echo "== The recipe, with the channels of these data: 6 to 56 are flat, the line is in 12 to 50"
peelkit recipe calibrate |
    sed -e "s/^solve_spw=''/solve_spw='0:6~56'/" -e "s/^image_spw=''/image_spw='0:12~50'/" > calibrate.sh
data=$(python -c 'import casadata; print(casadata.datapath)')/demo/NGC5921.fits

echo "== Import, 3C286 (1331+305), the calibrator beside the target (1445+099), apply, image"
sh calibrate.sh "$data" '1331*' '1445*' 'N5921*' out

echo "== Done: look at $PWD/out/*.cal/*.png; the tables are in out/*.cal, the figures in out/*.json"
