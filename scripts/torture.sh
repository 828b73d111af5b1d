#!/usr/bin/env bash
# Kills, full disks and failing system calls at seeded random moments of a training or an embedding; after
# each, the work goes on and must end bit for bit as if nothing had happened.
#
#   scripts/torture.sh kill N [SEED]     kill -9 a training N times, each run as often as it takes
#   scripts/torture.sh embed N [SEED]    the same of `tcn embed`
#   scripts/torture.sh disk N [SEED]     a disk that fills during a training (a tmpfs: needs root)
#   scripts/torture.sh faults N [SEED]   ENOSPC and EIO from a system call (needs strace)
#
# TCN names the program (default: target/release/tcn, built if it is not there).
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '5,8s/^# *//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
mode=$1 rounds=$2 seed=${3:-1}
RANDOM=$seed

if [ -z "${TCN:-}" ]; then
  [ -x target/release/tcn ] || cargo build --release --bin tcn
  TCN=$PWD/target/release/tcn
fi
work=$(mktemp -d)
disk=$work/disk
finish() {
  mountpoint -q "$disk" && umount "$disk"
  rm -rf "$work"
}
trap finish EXIT
root=$PWD
cd "$work"

fail() { echo "torture: round $round (seed $seed): $*" >&2; cat log >&2 || true; exit 1; }

# Some of $1 milliseconds, as seconds
below() { local ms=$((RANDOM * 32768 + RANDOM)); ms=$((ms % ($1 + 1))); printf '%d.%03d' $((ms / 1000)) $((ms % 1000)); }

now() { date +%s%3N; }

## A training of some two seconds with over a hundred checkpoints
cat > net.json <<'JSON'
{ "model_type": "tcn", "embedding_dim": 16, "tie_weights": true,
  "network": { "num_channels": [16, 16], "kernel_size": 3, "norm": "rms", "gate": "glu", "pre_norm": true } }
JSON
cp "$root/README.md" text.txt
training="--data $work/text.txt --tokenizer byte --config $work/net.json --batch-size 4 --seq-len 32 --steps 400
  --valid-every 3 --valid-bytes 300 --dropout 0.1 --seed 7 --threads 2"

# What a training leaves but for its clock: weights, optimizer, state, and the steps of its log
left() {
  (cd "$1" && sha256sum model.safetensors checkpoints/step-400/*.safetensors &&
    sed 's/,"tokens_per_s":.*"elapsed_s":[^,}]*//' metrics.jsonl)
}

# Runs a program whose number is in the file pid meanwhile; the shell's own word of a kill is left out
go() {
  {
    "$@" > log 2>&1 &
    echo $! > pid
    wait $!
  } 2> /dev/null
}

# Goes on with the training in $1, or begins it where there is nothing to go on with; strace or nothing before it
train() {
  local run=$1; shift
  if [ -d "$run/checkpoints" ] && go "$@" "$TCN" train --resume --out "$run"; then
    return 0
  elif [ -d "$run/checkpoints" ] && ! grep -q 'found none' log; then
    return 1
  elif [ -e "$run/run.json" ]; then
    # shellcheck disable=SC2086
    go "$@" "$TCN" train $training --out "$run" --force
  else
    # shellcheck disable=SC2086
    go "$@" "$TCN" train $training --out "$run"
  fi
}

# Twice, as the first one is slower: the second gives the time in which things go wrong
undisturbed() {
  local start
  for round in 0 0; do
    rm -rf whole
    start=$(now)
    train whole || fail "the undisturbed training failed"
    length=$(($(now) - start))
  done
  left whole > expected
  echo "an undisturbed training takes $length ms" >&2
}

check() {
  left "$1" > found || fail "something is missing"
  cmp -s expected found || { diff expected found >&2; fail "another result"; }
  local names
  names=$(ls -A "$1" "$1/checkpoints" | grep -E '^\.' || true)
  [ -z "$names" ] || fail "left behind: $names"
}

torture_kill() {
  undisturbed
  local kills=0
  for ((round = 1; round <= rounds; round++)); do
    rm -rf cut
    for ((i = RANDOM % 3; i >= 0; i--)); do
      : > pid
      train cut & local shell=$!
      sleep "$(below "$length")"
      kill -9 "$(cat pid)" 2> /dev/null && kills=$((kills + 1))
      wait "$shell" 2> /dev/null || true
    done
    train cut || fail "does not go on"
    check cut
    progress
  done
  echo "$rounds of $rounds trainings, killed $kills times, ended with the same weights"
}

progress() { if ((round % 10 == 0)); then echo "$round of $rounds" >&2; fi; }

torture_disk() {
  undisturbed
  mkdir "$disk"
  mount -t tmpfs -o size=4m tmpfs "$disk"
  local failures=0
  for ((round = 1; round <= rounds; round++)); do
    rm -rf "${disk:?}"/*
    train "$disk/cut" & local child=$!
    sleep "$(below "$length")"
    # all that is left, or all but a few kilobytes
    dd if=/dev/zero of="$disk/full" bs=1k count=$((4096 - RANDOM % 3 * 20)) > /dev/null 2>&1 || true
    wait "$child" || failures=$((failures + 1))
    rm "$disk/full"
    train "$disk/cut" || fail "does not go on"
    check "$disk/cut"
    progress
  done
  echo "$rounds of $rounds trainings ended with the same weights; the full disk stopped $failures"
}

torture_faults() {
  command -v strace > /dev/null || { echo "torture: strace is not installed" >&2; exit 2; }
  undisturbed
  local failures=0
  local calls=(write fsync rename openat mkdir unlink unlinkat ftruncate)
  for ((round = 1; round <= rounds; round++)); do
    rm -rf cut
    local call=${calls[RANDOM % ${#calls[@]}]} errors=(ENOSPC EIO)
    local error=${errors[RANDOM % 2]} first=$((1 + RANDOM % 2000))
    [ "$call" = openat ] && first=$((1 + RANDOM % 8000))
    train cut strace -f -qq -o /dev/null -e trace="$call" -e inject="$call:error=$error:when=$first+$((1 + RANDOM % 50))" ||
      failures=$((failures + 1))
    train cut || fail "does not go on after $call: $error"
    check cut
    progress
  done
  echo "$rounds of $rounds trainings ended with the same weights; injected errors stopped $failures"
}

## Some thousand sequences, kept in groups
embed() { go "$TCN" embed --model "$root/tests/fixtures/carp-tiny" --input sequences.txt --output "$1"; }

torture_embed() {
  awk 'BEGIN { srand(7); split("A C D E F G H I K L M N P Q R S T V W Y", letter, " ")
    for (i = 0; i < 30000; i++) {
      line = ""
      for (n = int(20 + 60 * rand()); n > 0; n--) line = line letter[1 + int(20 * rand())]
      print line
    } }' > sequences.txt
  local start kills=0
  for round in 0 0; do
    rm -f whole.npy
    start=$(now)
    embed whole.npy || fail "the undisturbed run failed"
    length=$(($(now) - start))
  done
  echo "an undisturbed run takes $length ms" >&2
  for ((round = 1; round <= rounds; round++)); do
    rm -f cut.npy cut.npy.part
    for ((i = RANDOM % 3; i >= 0; i--)); do
      [ -e cut.npy ] && break
      : > pid
      embed cut.npy & local shell=$!
      sleep "$(below "$length")"
      kill -9 "$(cat pid)" 2> /dev/null && kills=$((kills + 1))
      wait "$shell" 2> /dev/null || true
    done
    [ -e cut.npy ] || embed cut.npy || fail "does not go on"
    cmp -s whole.npy cut.npy || fail "another result"
    [ ! -e cut.npy.part ] || [ -e cut.npy ] || fail "left behind: cut.npy.part"
    progress
  done
  echo "$rounds of $rounds runs, killed $kills times, ended with the same bytes"
}

case $mode in
  kill) torture_kill ;;
  embed) torture_embed ;;
  disk) torture_disk ;;
  faults) torture_faults ;;
  *) usage ;;
esac
