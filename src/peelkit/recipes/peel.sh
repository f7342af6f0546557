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
datacolumn=auto         # data, corrected, or auto: CORRECTED_DATA if it is calibrated (differs from DATA), else DATA
rounds=5                # of predict, solve, subtract and image, at most
least_fall=0.1          # a round that brings the local rms down by less than this share is the last
enough=1.2              # a round that brings the local rms within this factor of the thermal noise is the last,
enough_chi2=1.02        # or whose solve leaves this times the chi-squared of noise
imager=tclean           # or wsclean, for one field ('apt install wsclean')
selfcal_options=''      # such as '--solint inf --solint 30s --refant ea10'
imaging_options=''      # such as '--imsize 1080 --cell 2arcsec --nterms 2'
mask_options=''         # for finding the sources, such as '--bright-flux 0.5'
predict_options=''      # such as '--shape point'
ddsolve_options=''      # such as '--de-time 60s --de-freq 2chan --k delay'
own_nsigma=1.5          # depth of cleaning of an extended bright source, in units of the noise
residual_options=''     # such as '--nsigma 3'
stats_options=''        # such as '--radius 150arcsec'

# ---- the chain --------------------------------------------------------------------------------------
case $# in
    2) ms=$1 regions='' out=$2 ;;
    3) ms=$1 regions=$2 out=$3 ;;
    *) echo "usage: sh $0 MS [REGIONS] OUTDIR" >&2; exit 2 ;;
esac
case $out in *[[:space:]]*) echo "$out: name an OUTDIR without blanks" >&2; exit 2 ;; esac
mkdir -p "$out"

# words WORD...: the words as a shell would take them again.
words() {
    for word in "$@"; do
        case $word in
            '' | *[!A-Za-z0-9_./,:=+-]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
}

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
    echo "== $name:$(words "$@")"
    status=0
    "$@" < /dev/null || status=$?
    case $fresh$status in
        # Refused before anything was made: what exists is not this script's to replace.
        new2 | new3) rm -f "$out/$name.begun" ;;
    esac
    [ "$status" -eq 0 ] || return "$status"
    : > "$out/$name.done"
}

# image_of NAME: the restored image of NAME, with or without Taylor terms.
image_of() {
    if [ -e "$1.image.tt0" ]; then echo "$1.image.tt0"; else echo "$1.image"; fi
}

# figure KEY FILE: a number of a sidecar; empty if it is not known.
figure() {
    sed -n "s/.*\"$1\": *\([-+.0-9][-+.0-9e]*\).*/\1/p" "$2" | tail -1
}

# short NUMBER: to three digits.
short() {
    LC_ALL=C printf '%.3g' "${1:-nan}"
}

# holds EXPRESSION: whether a comparison of numbers holds, which it does not where one is not known.
holds() {
    awk "BEGIN { exit !($1) }" 2> /dev/null
}

# extended ROUND: column and label (which may have blanks) of the directions whose model is no point and no Gaussian.
extended() {
    awk -F'"' '/"label":/ { label = $4 } /"column":/ { column = $4 }
        /"shape": "clean"/ { print column, label }' "$out/predict$1.json"
}

# steps: how many steps are recorded in the MS.
steps() {
    peelkit --quiet undo "$ms" --list --json --sidecar "$out/steps.json" | grep -c '"command"' || true
}

# take_back: undo what this round did to the MS.
take_back() {
    echo "== round $round makes $before no better: undone"
    while [ "$(steps)" -gt "$(cat "$out/steps$round")" ]; do
        peelkit --quiet undo "$ms" > /dev/null
    done
    # Run again, the script does not try it again: later steps of yours would be undone.
    : > "$out/undone$round"
}

# The same MS all the way: another one needs another OUTDIR.
if [ -e "$out/ms" ] && [ "$(cat "$out/ms")" != "$ms" ]; then
    echo "$out belongs to $(cat "$out/ms"); give another OUTDIR for $ms" >&2
    exit 2
fi
printf '%s\n' "$ms" > "$out/ms"

# Options in the parameters are words: they are split where they have blanks.
refused=0
step selfcal \
    peelkit selfcal "$ms" --field "$field" --datacolumn "$datacolumn" --out "$out/selfcal" --imager "$imager" \
    --sidecar "$out/selfcal.json" $selfcal_options $imaging_options || refused=$?
first=$(image_of "$out/selfcal/first")
final=$(image_of "$out/selfcal/final")
# What selfcal has written is calibrated, and so is taken from here on.
data=auto
if [ "$refused" -eq 5 ] && [ -e "$first" ]; then
    echo "== self-calibration makes $first no better: going on with the data as they are"
    final=$first
    data=$datacolumn
elif [ "$refused" -ne 0 ]; then
    exit "$refused"
fi

if [ -z "$regions" ]; then
    regions=$out/bright.crtf
    refused=0
    step mask \
        peelkit mask "$final" "$out/bright.mask" --regions "$regions" \
        --sidecar "$out/mask.json" $mask_options || refused=$?
    # 3 is an empty mask: no source at all.
    case $refused in 0 | 3 | 5) ;; *) exit "$refused" ;; esac
    if [ ! -e "$regions" ]; then
        echo "no source in $final has artefacts worth peeling" >&2
        exit 5
    fi
fi

# Every round solves the self-calibrated data anew, with better models: the bright sources' from the gains of
# the round before, the rest of the sky's from its image. A round that makes it worse is undone.
round=1
before=$final
best=0
again=''
begin=''
refine=''
while [ "$round" -le "$rounds" ] && [ ! -e "$out/undone$round" ]; do
    [ -e "$out/steps$round" ] || steps > "$out/steps$round"
    # Words of the extended sources, whose labels may have blanks: $@.
    set --
    if [ "$round" -gt 1 ]; then
        while read -r column label; do
            set -- "$@" --direction-model "$label=$(image_of "$out/own$best.$column")"
        done < "$out/extended$best"
    fi
    step "predict$round" \
        peelkit predict-region "$ms" --field "$field" --image "$before" --regions "$regions" \
        --all-column ALL_SKY_MODEL --datacolumn "$data" $refine "$@" $again \
        --sidecar "$out/predict$round.json" $predict_options
    extended "$round" > "$out/extended$round"
    set --
    while read -r column label; do
        set -- "$@" --own-data "$label"
    done < "$out/extended$round"
    refused=0
    step "solve$round" \
        peelkit ddsolve "$ms" --field "$field" --from "$out/predict$round.json" "$@" \
        --datacolumn "$data" --out "$out/solutions$round" $again \
        --sidecar "$out/solve$round.json" $ddsolve_options || refused=$?
    if [ "$refused" -ne 0 ]; then
        if [ "$refused" -eq 5 ] && [ "$best" -gt 0 ]; then
            take_back
            break
        fi
        exit "$refused"
    fi
    step "image$round" \
        peelkit image-residual "$ms" "$out/peeled$round" --column PEELED_DATA \
        --like "$final" $begin $residual_options
    now=$(image_of "$out/peeled$round")
    refused=0
    step "fall$round" \
        peelkit stats "$before" "$now" --regions "$regions" --ms "$ms" \
        --ddsolve "$out/solve$round.json" --sidecar "$out/fall$round.json" $stats_options || refused=$?
    if [ "$refused" -eq 5 ]; then
        take_back
        break
    fi
    [ "$refused" -eq 0 ] || exit "$refused"
    best=$round
    # Not the last as long as something is known to be left.
    last=yes
    ! grep -q '"finished": false' "$out/fall$round.json" || last=no
    fall=$(figure local_rms_fell_by "$out/fall$round.json")
    over=$(figure local_rms_over_thermal "$out/fall$round.json")
    if [ $last = yes ] && holds "$fall < $least_fall"; then
        echo "== round $round brought the local rms down by $(short "$fall"), less than $least_fall: it is the last"
        break
    fi
    left=$(figure chi2_over_noise "$out/fall$round.json")
    if [ $last = yes ] && holds "$left <= $enough_chi2"; then
        echo "== the solve leaves $(short "$left") times the chi-squared of noise: round $round is the last"
        break
    fi
    if [ $last = yes ] && holds "$over <= $enough"; then
        echo "== the local rms is $(short "$over") times the thermal noise: round $round is the last"
        break
    fi
    if [ "$round" -eq "$rounds" ]; then
        echo "== round $round of rounds=$rounds brought the local rms down by $(short "$fall"): another may bring it further"
        break
    fi
    again='--overwrite'
    refine="--refine $out/solve$best.json"
    # An extended source is imaged by itself, its own gains taken out, deep: what is not cleaned is not subtracted.
    while read -r column label; do
        refused=0
        step "own$round.$column" \
            peelkit image-residual "$ms" "$out/own$round.$column" --column "${column}_DATA" \
            --around "$regions:$label" --like "$final" --nsigma "$own_nsigma" || refused=$?
        if [ "$refused" -eq 2 ] && [ "$round" -eq 1 ]; then
            echo "== $label is extended, and cannot be imaged by itself: this round is the last"
            break 2
        fi
        [ "$refused" -eq 0 ] || exit "$refused"
    done < "$out/extended$round"
    # The mask of this round, and not its model: artefacts in that would be solved as sources.
    [ ! -e "$out/peeled$round.cleanmask" ] || begin="--mask $out/peeled$round.cleanmask --grow-mask"
    before=$now
    round=$((round + 1))
done
if [ "$best" -eq 0 ]; then
    echo "peeling makes $final no better; $ms is as selfcal left it" >&2
    exit 5
fi

peeled=$(image_of "$out/peeled$best")

images=$first
[ "$final" = "$first" ] || images="$first $final"
step stats \
    peelkit stats $images "$peeled" --ms "$ms" --ddsolve "$out/solve$best.json" \
    --regions "$regions" --plot "$out/stats.png" --csv "$out/stats.csv" \
    --sidecar "$out/stats.json" $stats_options

if grep -q '"finished": false' "$out/fall$best.json"; then
    echo "$peeled: better than $final, but not what it could be: see '== fall$best' above; more rounds (rounds=$rounds)," \
        "regions for other bright sources or better self-calibration may mend it" >&2
    status=5
fi
echo "== $best rounds; the peeled data are in PEELED_DATA of $ms ('peelkit undo --forget' frees what is kept)"
echo "== images: $images $peeled"
echo "== plots: $out/stats*.png $out/solutions$best/*.png $out/selfcal/*.png"
exit "${status:-0}"
