#!/bin/sh
# From UVFITS or a Measurement Set as observed to a calibrated image of the target.
# Written by 'peelkit recipe calibrate'; it is yours to edit.
#
#   sh calibrate.sh DATA FLUX GAIN TARGET OUTDIR
#
# DATA: a UVFITS file, which is imported into OUTDIR, or an MS, which gets CORRECTED_DATA and MODEL_DATA.
# FLUX: field that sets flux scale, delays and bandpass, such as 3C286. GAIN: the calibrator beside the
# target; the same as FLUX if there is but one. TARGET: what is to be imaged. All as in CASA: ids, names, 1331*.
#
# It stops at the first command that fails or says no, with that command's exit status. Started again it
# goes on where it stopped: a finished step leaves OUTDIR/<step>.done; delete that to repeat the step.
set -eu

# ---- parameters -------------------------------------------------------------------------------------
flux_model='standard'   # what FLUX is: standard (by its position), 3C286, point:5.5Jy, point:5.5Jy,alpha=-0.7@3GHz
flux_terms='--term K --term B --term G'     # solved on FLUX, in this order; without K if there is one channel
gain_terms='--term G'   # solved on GAIN, with the delays and bandpass of FLUX applied
solve_spw=''            # spws and channels for delays and gains, such as 0:6~56: without the edges of the band
solve_options='--applymode calflag'         # of both solves, such as '--refant ea10 --uvrange >1klambda'
image_spw=''            # what to image of the target, such as 0:12~50
image_options=''        # such as '--imsize 512 --cell 15arcsec'

# ---- the chain --------------------------------------------------------------------------------------
if [ $# -ne 5 ]; then
    echo "usage: sh $0 DATA FLUX GAIN TARGET OUTDIR" >&2
    exit 2
fi
data=$1 flux=$2 gain=$3 target=$4 out=$5
case $out in *[[:space:],]*) echo "$out: name an OUTDIR without blanks and commas" >&2; exit 2 ;; esac
mkdir -p "$out"

# The same data all the way: others need another OUTDIR.
mark="$data $flux $gain $target"
if [ -e "$out/of" ] && [ "$(cat "$out/of")" != "$mark" ]; then
    echo "$out belongs to $(cat "$out/of"); give another OUTDIR" >&2
    exit 2
fi
printf '%s\n' "$mark" > "$out/of"

# step NAME COMMAND...: run a command once. Where it was interrupted, its products are its own to replace.
step() {
    name=$1
    shift
    if [ -e "$out/$name.done" ]; then
        echo "== $name: done before"
        return 0
    fi
    fresh=new
    if [ -e "$out/$name.begun" ]; then
        set -- "$@" --overwrite
        fresh=old
    fi
    : > "$out/$name.begun"
    echo "== $name: $*"
    status=0
    "$@" < /dev/null || status=$?
    case $fresh$status in
        # Refused before anything was made: what exists is not this script's to replace.
        new2 | new3) rm -f "$out/$name.begun" ;;
    esac
    [ "$status" -eq 0 ] || return "$status"
    : > "$out/$name.done"
}

ms=$data
if [ -f "$data" ]; then
    ms=$out/$(basename "${data%.*}").ms
    step import \
        peelkit import-uvfits "$data" "$ms"
fi

# With one calibrator only its gains go to the target at once.
to_target=''
[ "$flux" != "$gain" ] || to_target=$target

# Words in the parameters are split where they have blanks; field names with * are not the shell's.
set -f
step flux \
    peelkit selfcal "$ms" --field "$flux" --model "$flux_model" --spw "$solve_spw" \
    $flux_terms $solve_options ${to_target:+--apply-to "$to_target"} --out "$out/flux.cal" --sidecar "$out/flux.json"

if [ "$flux" != "$gain" ]; then
    # Flux 1 Jy for a start: its gains against those of FLUX tell the true one. --overwrite: CORRECTED_DATA
    # is there since the step before; the rows of other fields stay.
    step gain \
        peelkit selfcal "$ms" --field "$gain" --model point:1Jy --spw "$solve_spw" \
        $gain_terms $solve_options --pre "$out/flux.cal" --flux-from "$out/flux.cal" \
        --apply-to "$target" --out "$out/gain.cal" --overwrite --sidecar "$out/gain.json"
fi

step image \
    peelkit image-residual "$ms" "$out/target" --column CORRECTED_DATA --field "$target" \
    --spw "$image_spw" $image_options
set +f

image=$out/target.image
[ -e "$image" ] || image=$out/target.image.tt0
echo "== image: $image; the calibrated data are in CORRECTED_DATA of $ms ('peelkit undo' takes a step back)"
echo "== plots: $(echo "$out"/*.cal/*.png)"
