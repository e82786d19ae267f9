#!/usr/bin/env bash
# What semi-online RL adds, on a laptop CPU: from the shipped agent tiny-sft, semi-online RL on one core and, for as
# long, more SFT on the other; then all three are scored on recordings and on live simulated phones. About 12 minutes on 2 cores.
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

say() { printf '\n== %s (%dm%02ds)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }
start() { "$@" 2>"$out/$name.log" >/dev/null || { echo "failed: $*" >&2; tail -20 "$out/$name.log" >&2; exit 1; }; }
# NAME MODEL TEMPERATURE [TASKS]: on recordings, on live phones; 1 is the policy as RL trains it, 0 its likeliest answers
sop() {
    local name="sop-$1-$3"
    start guiderail evaluate sop "$out/test" --temperature "$3" --model "$2" --out "$out/scores/$1/sop-$3"
}
live() {
    local name="live-$1-$3"
    start guiderail evaluate pocket --tasks "$4" --seed 1 --temperature "$3" --model "$2" --out "$out/scores/$1/live-$3"
}
on_recordings() { sop "$1" "$2" 0 && sop "$1" "$2" 1; }
on_phones() { live "$1" "$2" 0 150 && live "$1" "$2" 1 500; }
train() { # train NAME CONFIG
    local name="train-$1"
    start guiderail train "launch/configs/$2" model.path=tiny-sft data.train="$out/train" --out "$out/$1"
}

say "recording experts on the simulated phone"
guiderail record pocket --split train --episodes 1500 --seed 0 --out "$out/train"
guiderail record pocket --split test --episodes 150 --seed 1 --out "$out/test"
guiderail gate "$out/test" --dialect brief

say "from tiny-sft: semi-online RL on one core, more SFT on the other; each core goes on with scoring"
more="$out/more-sft/model" rl="$out/semi-online/model"
{
    train more-sft tiny_more_sft.yaml
    on_recordings tiny-sft tiny-sft
    on_phones tiny-sft tiny-sft
    on_phones more-sft "$more"
} &
beside=$!
train semi-online tiny_semi_online.yaml
on_recordings semi-online "$rl"
on_phones semi-online "$rl"
on_recordings more-sft "$more"
wait "$beside"
rm -r "$GUIDERAIL_FEATURES"

say "report"
name=report start guiderail report "$out" --out "$out/report"

say "result"
python -m launch.demo_table "$out"
echo "pages: $out/report/index.html"
