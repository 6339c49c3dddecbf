"""Every comparison over many models in one command: a Markdown table, and all figures as JSON.

    python compare_all.py [MODEL ...] [--text FILE] [--windows 40] [--memory] [--json OUT.json]

Without models it takes models/SmolLM2*.gguf and models/requant/*.gguf. `--text` is what perplexity is measured on (files of random
weights, whose names begin with "tiny", are left out of that); the logits are compared on prose.txt. The exit code says
whether every model passed (compare.py), and every perplexity is within --max-change.
"""

import argparse
import json
import pathlib
import sys

import compare
import compare_memory
import compare_perplexity
import ours


def row(result):
    logits, verdict = result["logits"], result["logits"]["verdict"]
    mine, themselves = logits["llama_ours"], logits["llama_llama"]
    parted = [g for g in logits["greedy"] if g["parts_at"] is not None]
    widest = max((g["gap"] for g in parted), default=0.0)
    cells = [
        result["model"].removesuffix(".gguf"),
        f"{mine['top1']:.2%}",
        f"{mine['kl_mean']:.1e}",
        f"{themselves['top1']:.2%}" if themselves else "",
        f"{themselves['kl_mean']:.1e}" if themselves else "",
        f"{verdict['noise_ratio']:.2f}" if verdict["noise_ratio"] else "",
        f"{len(logits['greedy']) - len(parted)} of {len(logits['greedy'])}" + (f", gap {widest:.2f}" if parted else ""),
    ]
    if found := result.get("perplexity"):
        cells += [f"{found['llama']['perplexity']:.3f}", f"{found['ours']['perplexity']:.3f}", f"{found['change']:+.2%}"]
    else:
        cells += ["", "", ""]
    cells.append(f"{result['memory']['ratio']:.2f}" if "memory" in result else "")
    cells.append("yes" if result["pass"] else "no")
    return cells


HEADER = [
    "model", "top-1", "KL", "llama.cpp's own top-1", "its own KL", "noise ratio", "same greedy texts",
    "perplexity llama.cpp", "ours", "change", "memory", "pass",
]


def line(cells):
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    compare.arguments(parser)
    parser.set_defaults(text=None)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--max-change", type=float, default=0.01)
    parser.add_argument("--memory", action="store_true", help="resident memory at 2k context, too")
    parser.add_argument("--max-memory", type=float, default=1.15)
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    args = parser.parse_args()
    args.llama_only = False
    perplexity_text, args.text = args.text, compare.HERE / "prose.txt"
    folder = ours.ROOT / "models"
    models = args.models or sorted(folder.glob("SmolLM2*.gguf")) + sorted(folder.glob("requant/*.gguf"))
    ours.build()
    results = []
    print(line(HEADER), line(["---"] * len(HEADER)), sep="\n", flush=True)
    for path in models:
        result = {"model": path.name, "logits": compare.compare(path, args)}
        result["pass"] = result["logits"]["verdict"]["pass"]
        if perplexity_text and not path.name.startswith("tiny"):
            options = argparse.Namespace(**vars(args) | {"text": perplexity_text})
            result["perplexity"] = compare_perplexity.compare(path, options)
            result["pass"] &= abs(result["perplexity"]["change"]) <= args.max_change
        if args.memory and not path.name.startswith("tiny"):
            result["memory"] = compare_memory.compare(path, args.threads)
            result["pass"] &= result["memory"]["ratio"] <= args.max_memory
        results.append(result)
        print(line(row(result)), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="ascii")
    sys.exit(0 if all(r["pass"] for r in results) else 1)


if __name__ == "__main__":
    main()
