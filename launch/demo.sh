#!/usr/bin/env bash
# What semi-online RL adds, on a laptop CPU: from the shipped agent tiny-sft, semi-online RL on one core and, for about as
# long, more SFT on the other; all three are scored on recordings and on live simulated phones. 9 to 12 minutes on 2 cores.
#   ./launch/demo.sh [FOLDER]        everything is written there (default runs/demo; an earlier demo in it is replaced)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out="${1:-runs/demo}"
if [ -e "$out" ]; then
    [ -e "$out/.demo" ] || { echo "$out exists and is not a demo; give another folder" >&2; exit 2; }
    rm -rf "$out"
fi
mkdir -p "$out" && touch "$out/.demo"
export OMP_NUM_THREADS=1
export GUIDERAIL_FEATURES="$out/features" # all agents here have the same vision tower
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 # freed tensors' memory is used again at once

say() { printf '\n== %s (%dm%02ds)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }
start() { # start NAME COMMAND...: its output goes to NAME.log
    local log="$out/$1.log"
    shift
    "$@" 2>"$log" >/dev/null || { touch "$out/.failed"; echo "failed: $*" >&2; tail -20 "$log" >&2; exit 1; }
}
await() { until [ -e "$out/$1" ]; do [ ! -e "$out/.failed" ] || exit 1; sleep 1; done; } # what the other core makes
record() { start record-train guiderail record pocket --split train --episodes 1500 --seed 0 --out "$out/train"; }
train() { # train NAME CONFIG OVERRIDES...
    await train
    start "train-$1" guiderail train "$2" model.path=tiny-sft data.train="$out/train" "${@:3}" --out "$out/$1"
}
score() { # score NAME TASKS: on recordings and on live phones, sampled at temperature 1, the policy that RL trains
    local model=tiny-sft
    if [ "$1" != tiny-sft ]; then
        model="$out/$1/model"
        await "$1/metrics.json"
    fi
    start "score-$1" python -m guiderail.launch.demo_scores "$out" "$1" "$model" "$2"
}
work() { # one core takes piece by piece what the other has not taken
    local n piece
    for n in "${!pieces[@]}"; do
        if mkdir "$out/.piece-$n" 2>/dev/null; then
            read -ra piece <<<"${pieces[$n]}"
            "${piece[@]}"
        fi
    done
}

say "recordings of experts on the simulated phone: the expert must score 100 % against itself"
own_steps() { "$@" 2> >(grep -v '^next: ' >&2); } # the demo itself goes on with what follows
own_steps guiderail record pocket --split test --episodes 150 --seed 1 --out "$out/test"
own_steps guiderail gate "$out/test" --dialect brief

say "from tiny-sft: semi-online RL, more SFT, scores; two cores"
pieces=(
    record "score tiny-sft 900"
    "train semi-online tiny_semi_online method.groups=4 method.rollouts=16 method.eta=0 training.max_steps=64"
    "train more-sft tiny_more_sft" "score semi-online 900" "score more-sft 200"
)
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
work &
other=$!
work
wait "$other"
rm -r "$GUIDERAIL_FEATURES"

say "report"
start report guiderail report "$out" --out "$out/report"

say "result"
python -m guiderail.launch.demo_table "$out"
echo "pages: $out/report/index.html"
