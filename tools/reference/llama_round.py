"""One round of llama.cpp in a process of its own: JSON for `cargo xtask bench --peers`.

    python llama_round.py MODEL.gguf --prompt 512 --tokens 128 --depth 16 --threads 1

Times a prompt of --prompt tokens at once and then --tokens greedy steps after a prompt of --depth tokens, as `sparse bench`
does; choosing the token is included on both sides, starting Python is not.
"""

import argparse
import json
import time

import numpy as np

from llama import Llama


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name, value in (("prompt", 512), ("tokens", 128), ("depth", 16), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    start = time.perf_counter()
    context = max(args.prompt, args.depth + args.tokens)
    model = Llama(args.model, n_ctx=context, n_batch=max(args.prompt, args.depth), threads=args.threads)
    load = time.perf_counter() - start

    def evaluate(count):
        model.clear()
        ids = [i * 7919 % model.n_vocab for i in range(count)]
        return int(np.argmax(model.decode(ids, 0, lambda position: position == count - 1)[-1]))

    start = time.perf_counter()
    evaluate(args.prompt)
    prefill = time.perf_counter() - start
    token = evaluate(args.depth)
    start = time.perf_counter()
    for i in range(args.tokens):
        token = int(np.argmax(model.decode([token], args.depth + i)[-1]))
    decode = time.perf_counter() - start
    found = {
        "package": model.settings["package"],
        "load_ms": load * 1e3,
        "prefill_tokens_per_s": args.prompt / prefill,
        "decode_tokens_per_s": args.tokens / decode,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
