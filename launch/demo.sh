#!/usr/bin/env bash
# The whole method on the embedded phone, on a laptop CPU: record experts, build a tiny model, SFT, then offline RL and
# semi-online RL side by side from the same SFT checkpoint, and score all of them. About 10 minutes on 2 cores.
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

say() { printf '\n== %s (%dm%02ds)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }
start() { "$@" 2>"$out/$name.log" >/dev/null || { echo "failed: $*" >&2; tail -20 "$out/$name.log" >&2; exit 1; }; }
score() { # score NAME MODEL TASKS: the three metrics of one agent, TASKS of them live
    local name="score-$1"
    start guiderail evaluate sop "$out/test" --model "$2" --out "$out/scores/$1/sop"
    start guiderail evaluate offline "$out/test" --limit 120 --model "$2" --out "$out/scores/$1/offline"
    start guiderail evaluate pocket --tasks "$3" --seed 1 --model "$2" --out "$out/scores/$1/pocket"
}
train() { # train NAME CONFIG MODEL PROCESSES
    local name="train-$1"
    NPROC="$4" start bash launch/train_single.sh "launch/configs/$2" \
        model.path="$3" data.train="$out/train" --out "$out/$1"
}

say "recording experts on the simulated phone"
guiderail record pocket --split train --episodes 800 --seed 0 --out "$out/train"
guiderail record pocket --split test --episodes 200 --seed 1 --out "$out/test"
guiderail gate "$out/test" --dialect brief

say "a random tiny vision-language model, and stage one: SFT on expert turns"
guiderail init tiny "$out/train" --out "$out/tiny"
train sft tiny_sft.yaml "$out/tiny" 2

say "offline RL and semi-online RL from the same SFT checkpoint, side by side"
train offline tiny_offline.yaml "$out/sft/model" 1 &
offline=$!
train semi-online tiny_semi_online.yaml "$out/sft/model" 1
wait "$offline"

say "scoring"
# A model that never ends its turn talks until its time is up: few live tasks are enough to see that.
{ score base "$out/tiny" 30 && score offline "$out/offline/model" 150; } &
lane=$!
score sft "$out/sft/model" 150
score semi-online "$out/semi-online/model" 150
wait "$lane"

say "report"
name=report start guiderail report "$out" --out "$out/report"

say "result"
python -m launch.demo_table "$out"
echo "pages: $out/report/index.html"
