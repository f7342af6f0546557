#!/bin/sh
# Self-calibrate the real VLA data of 3C273 (8 GHz, 1989) that the casadata package ships.
# Usage: sh selfcal-3c273.sh FOLDER
set -eu

folder=${1:-demo}
if [ -e "$folder" ]; then
    echo "$folder exists; name a new folder" >&2
    exit 2
fi
mkdir -p "$folder"
cd "$folder"

echo "== Import: casadata ships UVFITS, everything else works on a Measurement Set"
data=$(python -c 'import casadata; print(casadata.datapath)')/demo
peelkit import-uvfits "$data/3C273XC1.fits" 3C273.ms

echo "== Which solution intervals are possible?"
peelkit snr-estimate 3C273.ms

echo "== Self-calibrate: each round is measured, and taken back if it does not help"
peelkit selfcal 3C273.ms

echo "== The core and the jet as a mask"
peelkit mask 3C273.selfcal/final.image 3C273.mask

echo "== Before and after"
peelkit stats 3C273.selfcal/first.image 3C273.selfcal/final.image --mask 3C273.mask --plot stats.png

echo "== Done: look at $PWD/3C273.selfcal/*.png and $PWD/stats*.png; 'peelkit undo 3C273.ms' takes it back"
