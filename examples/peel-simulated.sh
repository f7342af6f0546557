#!/bin/sh
# Peel a simulated source from a simulated field, and compare with the truth.
# Usage: sh peel-simulated.sh FOLDER
set -eu

folder=${1:-demo}
if [ -e "$folder" ]; then
    echo "$folder exists; name a new folder" >&2
    exit 2
fi
mkdir -p "$folder"
cd "$folder"

echo "== Simulate: a bright source 8' off axis, seen through beams that point wrongly, among faint ones"
peelkit simulate sim.ms --config D --integrations 30

echo "== The recipe, with few rounds to save time"
peelkit recipe peel |
    sed -e "s/^selfcal_options=''/selfcal_options='--solint 30s --calmode p'/" -e "s/^rounds=5/rounds=2/" > peel.sh
sh peel.sh sim.ms out

echo "== The sources against the truth"
# The last round that was kept.
image=$(ls -d out/peeled*.image out/peeled*.image.tt0 2> /dev/null | tail -n 1)
peelkit stats "$image" --truth sim.ms.truth.json --regions out/bright.crtf

echo "== Done: look at $PWD/out/*.png and $PWD/out/*/*.png"
