#!/usr/bin/env bash
# Makes tests/fixtures/before anew with a `tcn` of version 0.1 (commit a8d845c):
#   scripts/make_before_fixtures.sh PATH_OF_THAT_TCN
# The text is the start of the built-in one.
set -euo pipefail
tcn=$(realpath "$1")
cd "$(dirname "$0")/../tests/fixtures/before"
export TCN_KERNEL=portable
head -c 3000 ../../../src/bin/tcn/default/kjv.txt > text.txt
rm -rf run on state.safetensors
"$tcn" train --data text.txt --config network.json --steps 300 --batch-size 2 --seq-len 32 --dtype f32 \
  --valid-every 300 --valid-bytes 300 --lr 0.01 --out run --quiet
cp -r run on
"$tcn" train --resume --out on --steps 304 --quiet
mv on/checkpoints/step-304/model.safetensors step-304.safetensors
"$tcn" generate --model run --prompt "And God" --max-tokens 5 --save-state state.safetensors --temperature 0
"$tcn" generate --model run --load-state state.safetensors --max-tokens 80 --temperature 0.8 --seed 3 > goes_on.txt
rm -rf on run/loss.svg
# no paths of this machine
sed -i "s#$tcn#tcn#g; s#\"[^\"]*/text.txt\"#\"text.txt\"#" run/run.json
