#!/usr/bin/env bash
# The field's table (Bai, Kolter & Koltun 2018, arXiv:1803.01271, table 1): adding problem, copy memory, JSB chorales,
# Nottingham, with the settings published there, beside its figures of TCN and LSTM.
#
#   scripts/field_table.sh MUSIC OUT [TASK…]
#
# Tasks: adding copy jsb nottingham, with the settings published there as far as they are; and copy-own jsb-own
# nottingham-own, with settings of our own (the first: no dropout and AdamW; the others: wider, more dropout and weight
# decay; JSB with kernels of 2, chosen on the validation part). Without a task, all. Seed 1. MUSIC is a folder with jsb_chorales.safetensors and nottingham.safetensors (see scripts/unpack_rolls.py); OUT takes the
# runs and table.md. A task that was stopped goes on where it was; one that is done is measured again. Hours.
set -euo pipefail
music=$1
out=$2
shift 2
tasks=${*:-adding copy jsb nottingham copy-own jsb-own nottingham-own}
tcn=${TCN:-"$(dirname "$0")/../target/release/tcn"}
mkdir -p "$out"

network() { # channels levels kernel_size dropout
  local channels
  channels=$(printf "%s, " $(yes "$1" | head -n "$2"))
  printf '{"model_type": "temporal_conv_net", "num_inputs": 0, "network": {"num_channels": [%s], "kernel_size": %s, "dropout": %s}}\n' \
    "${channels%, }" "$3" "$4"
}

# name, network, test data, flags of training
train() {
  local name=$1
  network $2 >"$out/$name.json"
  local data=$3
  shift 3
  if [ -e "$out/$name/model.safetensors" ] && [ -e "$out/$name/done" ]; then
    :
  elif [ -d "$out/$name/checkpoints" ]; then
    "$tcn" train --resume --out "$out/$name"
    touch "$out/$name/done"
  else
    "$tcn" train --config "$out/$name.json" --out "$out/$name" --force "$@"
    touch "$out/$name/done"
  fi
  "$tcn" eval --model "$out/$name" --data "$data" --json >"$out/$name.result"
}

# unpacks the rolls of a collection, once
rolls() {
  rolls="$out/rolls-$1"
  [ -d "$rolls" ] || python3 "$(dirname "$0")/unpack_rolls.py" "$music/$1.safetensors" "$rolls"
}

roll_flags() { # lr weight_decay epochs valid_every
  echo --task multilabel --data "$rolls/train.safetensors" --valid "$rolls/valid.safetensors" --batch-size 1 \
    --lr "$1" --weight-decay "$2" --epochs "$3" --valid-every "$4"
}

# `key` of a result, a plain number; `mse` is the square of `rmse`
figure() {
  case $2 in
  mse) awk -v x="$(figure "$1" rmse)" 'BEGIN { print x * x }' ;;
  *) sed -n "s/.*\"$2\":\([-0-9.e+]*\).*/\1/p" "$out/$1.result" ;;
  esac
}

for task in $tasks; do
  case $task in
  adding)
    train adding "24 8 8 0" adding:600 --task regress --scale none --target sum --data adding:600 --valid-fraction 0.02 \
      --batch-size 32 --lr 0.004 --clip 1 --weight-decay 0 --steps 16000 --valid-every 1000
    ;;
  copy)
    train copy "10 8 8 0.05" copy:1000 --task label --scale none --target copy --data copy:1000 --valid-fraction 0.02 \
      --batch-size 32 --optimizer rmsprop --lr 0.0005 --clip 1 --steps 8000 --valid-every 500
    ;;
  copy-own)
    train copy-own "10 8 8 0" copy:1000 --task label --scale none --target copy --data copy:1000 --valid-fraction 0.02 \
      --batch-size 32 --lr 0.003 --clip 1 --weight-decay 0 --steps 4000 --valid-every 500
    ;;
  jsb*)
    rolls jsb_chorales
    case $task in
    jsb) train jsb "150 2 3 0.5" "$rolls/test.safetensors" $(roll_flags 0.001 0 60 458) ;;
    *) train jsb-own "500 2 2 0.65" "$rolls/test.safetensors" $(roll_flags 0.001 0.3 60 458) ;;
    esac
    ;;
  nottingham*)
    rolls nottingham
    case $task in
    nottingham) train nottingham "150 4 6 0.2" "$rolls/test.safetensors" $(roll_flags 0.001 0 30 1388) --clip 0.4 ;;
    *) train nottingham-own "200 4 6 0.35" "$rolls/test.safetensors" $(roll_flags 0.001 0.3 30 1388) --clip 0.4 ;;
    esac
    ;;
  *)
    echo "unknown task $task: expected adding, copy, jsb, nottingham, copy-own, jsb-own, nottingham-own" >&2
    exit 2
    ;;
  esac
done

row() { # name, task, key, TCN, LSTM
  [ -e "$out/$2.result" ] || [ -e "$out/$2-own.result" ] || return 0
  local here=– own=–
  [ ! -e "$out/$2.result" ] || here=$(figure "$2" "$3")
  [ ! -e "$out/$2-own.result" ] || own=$(figure "$2-own" "$3")
  echo "| $1 | $here | $own | $4 | $5 |"
}
{
  echo "| task | here | own settings | TCN, published | LSTM, published |"
  echo "|---|---|---|---|---|"
  row "adding problem, T = 600, squared error" adding mse 5.8e-5 0.164
  row "copy memory, T = 1000, nats" copy nll 3.5e-5 0.0204
  row "JSB chorales, nats per frame" jsb nll 8.10 8.45
  row "Nottingham, nats per frame" nottingham nll 3.07 3.29
} | tee "$out/table.md"
