#!/usr/bin/env python3
"""Distributions made with Hugging Face transformers for the test of the sampler.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 transformers==5.23.0
    venv/bin/python scripts/make_sampling_fixtures.py

Writes tests/fixtures/sampling/transformers.json: a list of cases, each with

logits    float32, one per token
history   token ids so far
banned    ids that must not be drawn (`suppress_tokens`)
config    the options by their names in SamplerConfig
expected  the probabilities after all processors, one per token, 0 for those removed;
          for temperature 0 there is `greedy` instead, the id of the largest score
draws     whether 100,000 draws are to be compared with `expected`

The processors and their order are those that `generate` makes of a GenerationConfig: the method of
GenerationMixin that it calls is called here on a small model. What transformers does not have is
added here: presence and frequency penalty, as a custom processor, which `generate` puts behind its
own processors and before temperature; and the window of the penalties, by handing over no more
than the last tokens.

Scores are float64, as in the crate. A case is thrown away, and the next one tried, where the answer of
transformers is not a matter of its definition: where float32 keeps other tokens, where one of two
equally likely tokens is kept and the other not (the sort of top-p is not stable), or where the largest
of greedy scores is there twice.
The seed is fixed: the same transformers writes the same file.
"""
import json
import random
import struct
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LogitsProcessor

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "sampling" / "transformers.json"
MODEL = GPT2LMHeadModel(
    GPT2Config(
        vocab_size=60, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=None, eos_token_id=None
    )
)
ALONE = 16
COMBINED = 140
GREEDY = 16
DRAWN = 12


class PresenceAndFrequency(LogitsProcessor):
    """score -= presence * [count > 0] + frequency * count, as in OpenAI's API reference."""

    def __init__(self, presence, frequency):
        self.presence, self.frequency = presence, frequency

    def __call__(self, input_ids, scores):
        counts = torch.zeros_like(scores)
        counts.scatter_add_(1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype))
        return scores - self.presence * (counts > 0) - self.frequency * counts


def scores(case, dtype, without=()):
    """The scores after all processors but those of the options in `without`."""
    config = {name: value for name, value in case["config"].items() if name not in without}
    temperature = config.get("temperature", 1.0)
    options = GenerationConfig(
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        top_k=config.get("top_k", 0),
        top_p=config.get("top_p", 1.0),
        min_p=config.get("min_p"),
        typical_p=config.get("typical_p", 1.0),
        repetition_penalty=config.get("repetition_penalty", 1.0),
        sequence_bias=[[[token], value] for token, value in config.get("logit_bias", [])] or None,
        suppress_tokens=case["banned"] or None,
    )
    options._eos_token_tensor = None
    custom = PresenceAndFrequency(config.get("presence_penalty", 0.0), config.get("frequency_penalty", 0.0))
    history = case["history"][-config.get("penalty_window", 256):]
    processors = MODEL._get_logits_processor(
        options, input_ids_seq_length=len(history), logits_processor=[custom], model_kwargs={}
    )
    logits = torch.tensor([case["logits"]], dtype=dtype)
    return processors(torch.tensor([history], dtype=torch.long), logits)[0]


def answer(case):
    """Adds what is expected; false where transformers leaves it open."""
    main, single = scores(case, torch.float64), scores(case, torch.float32)
    if case["config"].get("temperature", 1.0) == 0:
        if (main == main.max()).sum() > 1 or main.argmax() != single.argmax():
            return False
        case["greedy"] = int(main.argmax())
        return True
    removed = main == -torch.inf
    unfiltered = scores(case, torch.float64, without=FILTERS)
    cut_between_equals = set(unfiltered[removed].tolist()) & set(unfiltered[~removed].tolist())
    if cut_between_equals or not torch.equal(single == -torch.inf, removed):
        return False
    expected = torch.softmax(main, dim=-1)
    if not bool(torch.isfinite(expected).all()):
        return False
    case["expected"] = [float(f"{p:.7g}") if p > 1e-12 else 0 for p in expected.tolist()]
    return True


def float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def some_logits(size):
    kind = random.choice(["normal", "normal", "peaked", "ties", "flat", "huge", "small"])
    draw = {
        "normal": lambda: round(random.gauss(0, 2), 3),
        "peaked": lambda: round(random.gauss(0, 8), 2),
        "ties": lambda: random.randint(-2, 2) / 2,
        "flat": lambda: round(random.gauss(3, 0.1), 4),
        "huge": lambda: random.choice([-1e30, -1e4, -50.0, 0.0, 0.5, 40.0, 41.0, 1e4, 1e4 - 1]),
        "small": lambda: random.choice([0.0, -0.0, 1e-30, -1e-30, 1e-3, -2.5]),
    }[kind]
    return [float32(draw()) for _ in range(size)]


OPTIONS = {
    "logit_bias": lambda size: [
        [token, random.randint(-40, 40) / 8] for token in random.sample(range(size), random.randint(1, 4))
    ],
    "repetition_penalty": lambda size: random.choice([0.5, 0.9, 1.1, 1.3, 2.0, 5.0]),
    "presence_penalty": lambda size: random.choice([-1.5, 0.25, 0.5, 1.0, 2.0]),
    "frequency_penalty": lambda size: random.choice([-0.5, 0.1, 0.3, 1.0, 2.0]),
    "temperature": lambda size: random.choice([0.1, 0.5, 0.7, 1.3, 2.0, 10.0]),
    "top_k": lambda size: random.choice([1, 2, 3, 5, 10, 40, 100]),
    "top_p": lambda size: random.choice([0.0, 0.1, 0.3, 0.5, 0.75, 0.9, 0.95, 0.99]),
    "min_p": lambda size: random.choice([0.0, 0.01, 0.05, 0.1, 0.3, 0.6, 1.0]),
    "typical_p": lambda size: random.choice([0.01, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99]),
}
FILTERS = {"top_k", "top_p", "min_p", "typical_p"}
PENALTIES = {"repetition_penalty", "presence_penalty", "frequency_penalty"}


def some_case(names):
    size = random.randint(5, 24) if random.random() < 0.85 else random.randint(25, 60)
    config = {name: OPTIONS[name](size) for name in names}
    history = []
    if PENALTIES & set(names):
        # few different ones, so that counts are above 1
        tokens = random.sample(range(size), random.randint(1, 5))
        history = [random.choice(tokens) for _ in range(random.randint(1, 20))]
        if random.random() < 0.5:
            config["penalty_window"] = random.randint(1, 12)
    banned = random.sample(range(size), 2) if random.random() < 0.2 else []
    return {"logits": some_logits(size), "history": history, "banned": banned, "config": config}


def make(what, count, names, **more):
    cases = []
    tried = 0
    while len(cases) < count:
        tried += 1
        case = some_case(names())
        case["config"].update(more)
        if answer(case):
            cases.append(case)
    print(f"{what}: {count} of {tried} tried")
    return cases


def main():
    random.seed(20)
    cases = make("no option", 8, lambda: [])
    for name in OPTIONS:
        cases += make(name, ALONE, lambda: [name])
    names = list(OPTIONS)
    cases += make("combined", COMBINED, lambda: random.sample(names, random.randint(2, len(names))))
    before_temperature = names[: names.index("temperature")]
    greedy = lambda: random.sample(before_temperature, random.randint(0, 4))
    cases += make("greedy", GREEDY, greedy, temperature=0.0)
    spread = [case for case in cases if max(case.get("expected", [1])) < 0.7]
    for case in random.sample(spread, DRAWN):
        case["draws"] = True
    OUT.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    head = json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})
    OUT.write_text(f'{head[:-1]}, "cases": [\n{lines}\n]}}\n')
    print(f"{OUT.name}: {len(cases)} cases, {OUT.stat().st_size} bytes")


main()
