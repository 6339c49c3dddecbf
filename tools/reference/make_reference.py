"""Writes the small committed reference file that `cargo xtask verify` checks a model against.

    python make_reference.py MODEL.gguf --out smollm2-q4_1.json

It holds token ids, llama.cpp's 20 best log-probabilities at 256 positions of prose.txt, and greedy continuations of the
prompts in prompts.txt. Log-probabilities and continuations are there twice: from the file as it is (`quantized`), and from
the same weights widened to F32 (`exact`), where llama.cpp does not round activations to eight bits. The second has a noise
of 1e-6 nats and pins an implementation down; the first does so only up to its own rounding noise (README.md).
"""

import argparse
import hashlib
import json
import pathlib
import tempfile

import numpy as np

from llama import Llama, read_text
from metrics import Comparison, log_softmax
from requantize import quantize
from token_cases import CASES, SPECIAL_CASES

HERE = pathlib.Path(__file__).parent


def evaluate(path, ids, args):
    """Best log-probabilities at every `stride`-th position, greedy texts, and all logits."""
    model = Llama(path, n_ctx=args.tokens + 64, threads=args.threads)
    logits = np.concatenate(list(model.logits(ids)))
    rows = logits[:: args.stride]
    log_p = log_softmax(rows)
    order = np.argsort(-log_p, axis=-1, kind="stable")[:, : args.top]
    kept = np.take_along_axis(log_p, order, axis=-1)
    out = {
        "logsumexp": [round(float(v), 5) for v in (rows[:, 0] - log_p[:, 0])],
        "top_ids": order.tolist(),
        "top_logprobs": [[round(float(v), 6) for v in row] for row in kept],
        "greedy": [],
    }
    for prompt in read_text(HERE / "prompts.txt").splitlines():
        prompt_ids = model.tokenize(prompt)
        steps = model.greedy(prompt_ids, args.steps, stop_at_end=False)
        text = b"".join(model.piece(step["id"]) for step in steps).decode("utf-8", "replace")
        out["greedy"].append(
            {
                "prompt": prompt,
                "prompt_ids": prompt_ids,
                "ids": [step["id"] for step in steps],
                "gaps": [round(step["gap"], 4) for step in steps],
                "text": text,
            }
        )
    settings = model.settings
    model.close()
    return out, logits, settings


def compact(value, depth=2):
    """JSON with one line per entry of the outer levels."""
    if depth and isinstance(value, dict):
        inner = ",\n".join(f"{json.dumps(k)}:{compact(v, depth - 1)}" for k, v in value.items())
        return "{\n" + inner + "\n}"
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of prose.txt to run")
    parser.add_argument("--stride", type=int, default=2, help="keep every n-th position")
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--steps", type=int, default=64, help="tokens of each greedy continuation")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    tokenizer = Llama(args.model, n_ctx=8)
    all_ids = tokenizer.tokenize(read_text(HERE / "prose.txt"))
    tokens = [{"text": text, "ids": tokenizer.tokenize(text)} for text in CASES]
    special = [{"text": text, "ids": tokenizer.tokenize(text, parse_special=True)} for text in SPECIAL_CASES]
    tokenizer.close()
    ids = all_ids[: args.tokens]

    quantized, quantized_logits, settings = evaluate(args.model, ids, args)
    with tempfile.TemporaryDirectory() as folder:
        wide = pathlib.Path(folder) / "f32.gguf"
        quantize(args.model, wide, "F32", args.threads)
        exact, exact_logits, _ = evaluate(wide, ids, args)
    noise = Comparison()
    noise.add(exact_logits[:: args.stride], quantized_logits[:: args.stride], (ids + [None])[1 :: args.stride])

    reference = {
        "about": "made by tools/reference/make_reference.py",
        "model": args.model.name,
        "sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
        "settings": settings,
        "stride": args.stride,
        "llama_cpp_quantized_against_exact": noise.summary(),
        "prose_ids": all_ids,
        "tokens": len(ids),
        "tokenize": tokens,
        "tokenize_special": special,
        "quantized": quantized,
        "exact": exact,
    }
    text = compact(reference) + "\n"
    args.out.write_text(text, encoding="ascii")
    print(f"{args.out}: {len(text)} bytes, {len(ids)} tokens, every {args.stride}. position kept")


if __name__ == "__main__":
    main()
