"""Asks a running `sparse serve` through OpenAI's own Python package, and checks the answers.

    python tools/serve/check_openai.py http://127.0.0.1:8080/v1 [--embeddings]
"""

import argparse
import json
import math

from openai import BadRequestError, NotFoundError, OpenAI


def check_models(client):
    names = [model.id for model in client.models.list()]
    assert names, "no models"
    assert client.models.retrieve(names[0]).id == names[0]
    return names


def check_chat(client, model):
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "What is a cat?"}]
    ask = dict(model=model, messages=messages, max_tokens=40, seed=7, temperature=0.7)
    whole = client.chat.completions.create(**ask)
    text = whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant" and text, whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.choices[0].finish_reason in ("stop", "length"), whole

    pieces, usage = [], None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        pieces += [c.delta.content for c in chunk.choices if c.delta.content]
    assert "".join(pieces) == text, (pieces, text)
    assert len(pieces) > 5 and usage == whole.usage, usage

    several = client.chat.completions.create(**ask, n=2)
    assert several.choices[0].message.content == text

    stopped = client.chat.completions.create(**ask, stop=[text[10:13]])
    assert stopped.choices[0].message.content == text[: text.index(text[10:13])], stopped
    assert stopped.choices[0].finish_reason == "stop"

    tools = [{"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {}}}]
    assert client.chat.completions.create(**ask, tools=tools).choices[0].message is not None


def check_logprobs(client, model):
    ask = dict(model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0)
    content = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(content) == 8 or content, content
    for token in content:
        assert len(token.top_logprobs) == 3
        # Greedy: the chosen token is the most probable one.
        assert math.isclose(token.logprob, token.top_logprobs[0].logprob, abs_tol=1e-5), token
        assert bytes(token.bytes).decode(errors="replace") == token.token

    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=5, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs)


def check_completions(client, model):
    ask = dict(model=model, prompt="Once upon a time", max_tokens=24, seed=3)
    whole = client.completions.create(**ask).choices[0].text
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True)]
    assert whole and "".join(pieces) == whole, (whole, pieces)
    both = client.completions.create(**{**ask, "prompt": ["Once upon a time", "The sea"]}).choices
    assert [c.index for c in both] == [0, 1] and both[0].text == whole, both


def check_schema(client, model):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "animal": {"enum": ["cat", "dog"]},
        },
        "required": ["name", "age", "animal"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Describe a pet as JSON."}],
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": schema}},
    )
    pet = json.loads(answer.choices[0].message.content)
    assert set(pet) == {"name", "age", "animal"} and pet["animal"] in ("cat", "dog"), pet
    assert 0 <= pet["age"] <= 150 and len(pet["name"]) <= 20, pet


def check_errors(client, model):
    for error, change in [
        (NotFoundError, {"model": "nobody's"}),
        (BadRequestError, {"temperature": 9}),
        (BadRequestError, {"messages": []}),
        (
            BadRequestError,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"allOf": [{"type": "string"}, {"type": "number"}]}},
                }
            },
        ),
    ]:
        ask = dict(model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=4)
        try:
            client.chat.completions.create(**{**ask, **change})
        except error:
            continue
        raise AssertionError(f"no {error.__name__} for {change}")


def check_embeddings(client, model):
    texts = ["A cat sleeps.", "A kitten is resting.", "Shares fell sharply."]
    answer = client.embeddings.create(model=model, input=texts)
    a, b, c = (item.embedding for item in answer.data)
    cosine = lambda x, y: sum(p * q for p, q in zip(x, y)) / math.hypot(*x) / math.hypot(*y)
    assert cosine(a, b) > cosine(a, c) + 0.2, (cosine(a, b), cosine(a, c))
    plain = client.embeddings.create(model=model, input=texts[0], encoding_format="float")
    assert all(math.isclose(x, y, abs_tol=1e-6) for x, y in zip(plain.data[0].embedding, a))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--key", default="none")
    parser.add_argument("--embeddings", action="store_true", help="the server has an embedding model")
    args = parser.parse_args()
    client = OpenAI(base_url=args.url, api_key=args.key, max_retries=0)
    names = check_models(client)
    for check in (check_chat, check_logprobs, check_completions, check_schema, check_errors):
        check(client, names[0])
        print(f"{check.__name__}: passed")
    if args.embeddings:
        check_embeddings(client, names[1])
        print("check_embeddings: passed")


if __name__ == "__main__":
    main()
