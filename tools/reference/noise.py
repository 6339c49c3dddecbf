"""llama.cpp against itself on one file: batch sizes, flash attention, and the same weights widened to F32.

    python noise.py MODEL.gguf [--text FILE] [--tokens 1000] [--json]

The figures say what two correct implementations can be expected to agree on (README.md).
"""

import argparse
import itertools
import json
import pathlib
import tempfile

import numpy as np

from llama import Llama, read_text
from metrics import Comparison
from requantize import quantize

HERE = pathlib.Path(__file__).parent
RUNS = {
    "flash auto, batch 512": {},
    "flash auto, batch 1": {"n_batch": 1, "n_ubatch": 1},
    "flash off, batch 512": {"flash": "off"},
    "flash off, batch 1": {"flash": "off", "n_batch": 1, "n_ubatch": 1},
}


def run(path, text, args, **settings):
    model = Llama(path, n_ctx=args.tokens + 8, threads=args.threads, **settings)
    ids = model.tokenize(text)[: args.tokens]
    logits = np.concatenate(list(model.logits(ids)))
    model.close()
    return ids, logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, default=HERE / "prose.txt")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    text = read_text(args.text)
    results = {}
    for name, settings in RUNS.items():
        ids, results[name] = run(args.model, text, args, **settings)
    with tempfile.TemporaryDirectory() as folder:
        wide = pathlib.Path(folder) / "f32.gguf"
        quantize(args.model, wide, "F32", args.threads)
        for name in list(RUNS)[0::2]:
            _, results[f"F32, {name}"] = run(wide, text, args, **RUNS[name])
    rows = []
    for one, other in itertools.combinations(results, 2):
        comparison = Comparison()
        for start in range(0, len(ids), 250):
            part = slice(start, start + 250)
            comparison.add(results[one][part], results[other][part], (ids + [None])[start + 1 : start + 251])
        rows.append({"reference": one, "test": other, **comparison.summary()})
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"| {args.model.name}: reference | test | top-1 | mean KL | max KL | perplexity |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['reference']} | {row['test']} | {row['top1']:.2%} | {row['kl_mean']:.1e} | {row['kl_max']:.1e} "
            f"| {row['perplexity_change']:+.3%} |"
        )


if __name__ == "__main__":
    main()
