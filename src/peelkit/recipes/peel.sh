#!/bin/sh
# From a Measurement Set to an image without its bright sources and their artefacts.
# Written by 'peelkit recipe peel'; it is yours to edit.
#
#   sh peel.sh MS REGIONS OUTDIR      REGIONS: CRTF or DS9, one region for each source to peel
#   sh peel.sh MS OUTDIR              the sources are found by 'peelkit mask'
#
# It stops at the first command that fails or says no, with that command's exit status. Started again it
# goes on where it stopped: a finished step leaves OUTDIR/<step>.done; delete that to repeat the step.
set -eu

# ---- parameters -------------------------------------------------------------------------------------
field=''                # as in CASA; one field, or all fields of a mosaic
selfcal_options=''      # such as '--solint inf --solint 30s --refant ea10'
imaging_options=''      # such as '--imsize 1080 --cell 2arcsec --nterms 2'
mask_options=''         # for finding the sources, such as '--bright-flux 0.5'
ddsolve_options=''      # such as '--de-time 60s --de-freq 2chan --k delay'
residual_options=''     # such as '--restore'
stats_options=''        # such as '--radius 150arcsec'

# ---- the chain --------------------------------------------------------------------------------------
case $# in
    2) ms=$1 regions='' out=$2 ;;
    3) ms=$1 regions=$2 out=$3 ;;
    *) echo "usage: sh $0 MS [REGIONS] OUTDIR" >&2; exit 2 ;;
esac
mkdir -p "$out"

# step NAME COMMAND...: run a command once. Where it was interrupted, its products are its own to replace.
step() {
    name=$1
    shift
    if [ -e "$out/$name.done" ]; then
        echo "== $name: done before"
        return 0
    fi
    if [ -e "$out/$name.begun" ]; then
        set -- "$@" --overwrite
    fi
    : > "$out/$name.begun"
    echo "== $name: $*"
    "$@"
    : > "$out/$name.done"
}

# image_of NAME: the restored image of NAME, with or without Taylor terms.
image_of() {
    if [ -e "$1.image.tt0" ]; then echo "$1.image.tt0"; else echo "$1.image"; fi
}

# The same MS all the way: another one needs another OUTDIR.
if [ -e "$out/ms" ] && [ "$(cat "$out/ms")" != "$ms" ]; then
    echo "$out belongs to $(cat "$out/ms"); give another OUTDIR for $ms" >&2
    exit 2
fi
printf '%s\n' "$ms" > "$out/ms"

# Options in the parameters are words: they are split where they have blanks.
step selfcal \
    peelkit selfcal "$ms" --field "$field" --out "$out/selfcal" \
    --sidecar "$out/selfcal.json" $selfcal_options $imaging_options

first=$(image_of "$out/selfcal/first")
final=$(image_of "$out/selfcal/final")

if [ -z "$regions" ]; then
    regions=$out/bright.crtf
    step mask \
        peelkit mask "$final" "$out/bright.mask" --regions "$regions" \
        --sidecar "$out/mask.json" $mask_options
    if [ ! -e "$regions" ]; then
        echo "no source in $final has artefacts worth peeling" >&2
        exit 5
    fi
fi

step predict \
    peelkit predict-region "$ms" --field "$field" --image "$final" \
    --regions "$regions" --all-column ALL_SKY_MODEL --sidecar "$out/predict.json"

step solve \
    peelkit ddsolve "$ms" --field "$field" --from "$out/predict.json" --out "$out/solutions" \
    --sidecar "$out/solve.json" $ddsolve_options

step image \
    peelkit image-residual "$ms" "$out/peeled" --column PEELED_DATA \
    --like "$final" --sidecar "$out/image.json" $residual_options

peeled=$(image_of "$out/peeled")

step stats \
    peelkit stats "$first" "$final" "$peeled" \
    --regions "$regions" --plot "$out/stats.png" --csv "$out/stats.csv" \
    --sidecar "$out/stats.json" $stats_options

echo "== images: $first $final $peeled"
echo "== plots: $out/stats*.png $out/solutions/*.png $out/selfcal/*.png"
