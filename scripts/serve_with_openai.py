"""Asks `tcn serve` as OpenAI's own client does (pip install openai).

    python3 scripts/serve_with_openai.py http://127.0.0.1:8080

Prints a line for each thing that holds, and fails at the first that does not.
"""
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1].rstrip("/") + "/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
print("models")

ask = dict(model=model, prompt="In the beginning", max_tokens=40, seed=1, temperature=0.7)
whole = client.completions.create(**ask, n=2, logprobs=3)
assert [choice.index for choice in whole.choices] == [0, 1] and whole.usage.completion_tokens == 80
assert len(whole.choices[0].logprobs.tokens) == 40 and len(whole.choices[0].logprobs.top_logprobs[0]) == 3
print("completions, n, logprobs")

events = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
text = "".join(event.choices[0].text for event in events if event.choices)
assert text == whole.choices[0].text and events[-1].usage.completion_tokens == 40
print("streamed, seed, usage")

stopped = client.completions.create(**ask, stop=[text[10:14]]).choices[0]
assert stopped.text == text[: text.index(text[10:14])] and stopped.finish_reason == "stop"
print("stop")

chat = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Who art thou?"}], max_tokens=20)
assert chat.choices[0].message.role == "assistant" and chat.usage.completion_tokens <= 20
parts = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "Who art thou?"}], max_tokens=20, stream=True)
assert next(iter(parts)).choices[0].delta.role == "assistant"
print("chats")

vectors = client.embeddings.create(model=model, input=["light", "darkness"]).data
plain = client.embeddings.create(model=model, input=["light"], encoding_format="float").data
assert all(abs(a - b) < 1e-6 for a, b in zip(vectors[0].embedding, plain[0].embedding))
print("embeddings")

for error, change in [
    (openai.NotFoundError, {"model": "none"}),
    (openai.BadRequestError, {"temperature": -1}),
    (openai.BadRequestError, {"extra_body": {"temprature": 1}}),
]:
    try:
        client.completions.create(**{**ask, **change})
    except error as found:
        assert found.message
    else:
        raise AssertionError(f"expected {error}")
print("errors")

stream = client.completions.create(**{**ask, "max_tokens": 60000}, stream=True)
next(iter(stream))
stream.close()
assert client.completions.create(**ask).choices[0].text == text
print("a cut connection")
