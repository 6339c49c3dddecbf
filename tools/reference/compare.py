"""Our logits and greedy texts against llama.cpp's, on the same file and the same token ids.

    python compare.py MODEL.gguf [--text FILE] [--positions 2000] [--json]

Teacher-forced over one window. Besides ours against llama.cpp's it measures what two such numbers are worth for this
file (README.md): llama.cpp against itself at another batch size, and both sides against `exact`, the same weights widened
to F32 and run by llama.cpp. The exit code is 0 when

    strict:  top-1 >= --min-top1 and mean KL <= --max-kl against llama.cpp on the same file, or
    noise:   KL(exact || ours) <= --max-noise-ratio x KL(exact || llama.cpp), and ours is at most as far from llama.cpp
             as that allows; unless --strict asks for the first.

Greedy texts may part where llama.cpp's two best logits are closer than the largest gap at which llama.cpp parts from
itself or from `exact` in the teacher-forced run (at least --tie).
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

import ours
from llama import Llama, read_text
from metrics import Comparison
from requantize import quantize

HERE = pathlib.Path(__file__).parent


def collect(path, ids, context, threads, **settings):
    model = Llama(path, n_ctx=context, threads=threads, **settings)
    logits = np.concatenate(list(model.logits(ids)))
    settings = model.settings
    model.close()
    return logits, settings


def distance(reference, test, ids):
    comparison = Comparison()
    for start in range(0, len(ids), 200):
        part = slice(start, start + 200)
        comparison.add(reference[part], np.asarray(test[part]), (ids + [None])[start + 1 : start + 201])
    return comparison.summary()


def greedy_texts(path, prompts, steps, threads):
    """llama.cpp's greedy texts and where ours part from them."""
    model = Llama(path, n_ctx=512, threads=threads)
    out = []
    for prompt in prompts:
        ids = model.tokenize(prompt, parse_special=True)
        theirs = model.greedy(ids, steps, stop_at_end=False)
        mine = ours.greedy(path, prompt, steps, threads)
        step = next((i for i, t in enumerate(theirs) if i >= len(mine) or mine[i] != t["id"]), None)
        entry = {"prompt": prompt, "steps": steps, "parts_at": step}
        if step is not None:
            entry |= {
                "gap": theirs[step]["gap"],
                "llama": model.piece(theirs[step]["id"]).decode("utf-8", "replace"),
                "ours": model.piece(mine[step]).decode("utf-8", "replace") if step < len(mine) else None,
                "ours_is_runner_up": step < len(mine) and mine[step] == theirs[step]["runner_up"],
            }
        out.append(entry)
    model.close()
    return out


def compare(path, args):
    model = Llama(path, n_ctx=8)
    ids = model.tokenize(read_text(args.text))[: args.positions]
    n_vocab = model.n_vocab
    model.close()
    if len(ids) < args.positions:
        raise SystemExit(f"{args.text} has {len(ids)} tokens only")
    context = (len(ids) + 255) // 256 * 256
    llama, settings = collect(path, ids, context, args.threads)
    result = {"model": pathlib.Path(path).name, "settings": settings}
    test = ours.logits(path, ids, n_vocab, len(ids), args.threads)
    result["llama_ours"] = distance(llama, test, ids)
    if not args.quick:
        other, _ = collect(path, ids, context, args.threads, n_batch=16, n_ubatch=16)
        result["llama_llama"] = distance(llama, other, ids)
        del other
        with tempfile.TemporaryDirectory() as folder:
            wide = pathlib.Path(folder) / "f32.gguf"
            quantize(path, wide, "F32", args.threads)
            exact, _ = collect(wide, ids, context, args.threads)
        result["exact_llama"] = distance(exact, llama, ids)
        result["exact_ours"] = distance(exact, test, ids)
        del exact
    else:
        result["llama_llama"] = result["exact_llama"] = result["exact_ours"] = None
    result["one_by_one"] = None
    if args.one_by_one:
        single = ours.logits(path, ids, n_vocab, len(ids), args.threads, one_by_one=True)
        result["one_by_one"] = distance(llama, single, ids)
    result["greedy"] = greedy_texts(path, read_text(args.prompts).splitlines(), args.steps, args.threads)
    result["verdict"] = verdict(result, args)
    return result


def verdict(result, args):
    mine = result["llama_ours"]
    strict = mine["top1"] >= args.min_top1 and mine["kl_mean"] <= args.max_kl
    out = {"strict": bool(strict), "noise": None, "noise_ratio": None}
    tie = args.tie
    if result["exact_ours"]:
        # 1e-6: what F32 arithmetic itself leaves open.
        theirs = result["exact_llama"]["kl_mean"] + 1e-6
        out["noise_ratio"] = (result["exact_ours"]["kl_mean"] + 1e-6) / theirs
        # Two independent errors of the size of theirs: twice the KL.
        out["noise"] = bool(
            out["noise_ratio"] <= args.max_noise_ratio and mine["kl_mean"] <= 2 * args.max_noise_ratio * theirs
        )
        # The extreme of these positions is not the extreme of all: twice it.
        widest = max(result[k]["largest_gap_disagreed"] for k in ("llama_llama", "exact_llama", "exact_ours"))
        tie = max(tie, 2 * widest)
    out["tie"] = tie
    parted = [g for g in result["greedy"] if g["parts_at"] is not None]
    out["greedy"] = all(g["gap"] <= tie for g in parted)
    logits_pass = strict or (out["noise"] and not args.strict)
    out["pass"] = bool(logits_pass and out["greedy"])
    return out


def table(result):
    print(f"{result['model']}: {result['llama_ours']['positions']} positions; {result['settings']['package']}")
    print("| reference | test | top-1 | differ | of them gap < 0.01 / < 0.1 / max | mean KL | max KL | perplexity |")
    print("|---|---|---|---|---|---|---|---|")
    for key, names in {
        "llama_ours": "llama.cpp | ours",
        "one_by_one": "llama.cpp | ours, token by token",
        "llama_llama": "llama.cpp | llama.cpp, batch 16",
        "exact_llama": "exact | llama.cpp",
        "exact_ours": "exact | ours",
    }.items():
        if row := result[key]:
            print(
                f"| {names} | {row['top1']:.2%} | {row['disagreements']} | {row['disagreements_gap_below_0.01']} / "
                f"{row['disagreements_gap_below_0.1']} / {row['largest_gap_disagreed']:.2f} | {row['kl_mean']:.1e} | "
                f"{row['kl_max']:.1e} | {row['perplexity_change']:+.3%} |"
            )
    for text in result["greedy"]:
        if text["parts_at"] is None:
            print(f"greedy {text['prompt']!r}: same {text['steps']} tokens")
        else:
            print(
                f"greedy {text['prompt']!r}: parts at step {text['parts_at']}, gap {text['gap']:.3f}: "
                f"llama.cpp {text['llama']!r}, ours {text['ours']!r}"
            )
    print("verdict:", json.dumps(result["verdict"]))


def arguments(parser):
    parser.add_argument("--text", type=pathlib.Path, default=HERE / "prose.txt")
    parser.add_argument("--prompts", type=pathlib.Path, default=HERE / "prompts.txt")
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=64, help="tokens of each greedy text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-top1", type=float, default=0.99)
    parser.add_argument("--max-kl", type=float, default=1e-3)
    parser.add_argument("--max-noise-ratio", type=float, default=1.1)
    parser.add_argument("--tie", type=float, default=0.01)
    parser.add_argument("--strict", action="store_true", help="only the strict bars count")
    parser.add_argument("--quick", action="store_true", help="without llama.cpp against itself and against exact")
    parser.add_argument("--one-by-one", action="store_true", help="our logits token by token, too")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    arguments(parser)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ours.build()
    result = compare(args.model, args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        table(result)
    sys.exit(0 if result["verdict"]["pass"] else 1)


if __name__ == "__main__":
    main()
