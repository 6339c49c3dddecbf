"""Perplexity by llama-perplexity's method, llama.cpp's and ours, on the same windows.

    python compare_perplexity.py MODEL.gguf --text FILE [--windows N] [--json]

The text is cut into windows of --ctx tokens. The first token of each is replaced by the beginning-of-text token if the
tokenizer adds one; the tokens after the middle are scored, given everything before them in the window; what does not fill
a window is left out. Standard errors are those of the mean over scored tokens, times the perplexity. The change has a paired one, of
the windows' differences. With --llama-only it does not run our side.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np

import ours
from llama import Llama, read_text
from metrics import log_softmax


def llama_perplexity(path, text, context, windows, threads):
    """Perplexity, its standard error, and the negative log-likelihoods of all scored tokens."""
    model = Llama(path, n_ctx=context, n_batch=context, threads=threads)
    ids = model.tokenize(text)
    if len(ids) < 2 * context:
        raise SystemExit(f"the text has {len(ids)} tokens, which is less than two windows of {context}")
    total = min(windows or len(ids), len(ids) // context)
    half = context // 2
    nll, windows = [], []
    for i in range(total):
        window = ids[i * context : (i + 1) * context]
        targets = window[half + 1 :]
        if model.adds_bos:
            window[0] = model.bos
        logits = np.concatenate(list(model.logits(window, lambda position: half <= position < context - 1)))
        of_window = -log_softmax(logits)[np.arange(len(targets)), targets]
        nll.extend(of_window)
        windows.append(float(of_window.mean()))
        if sys.stderr.isatty():
            print(f"\rwindow {i + 1}/{total}: {math.exp(np.mean(nll)):.4f}", end="", file=sys.stderr)
    model.close()
    nll = np.array(nll)
    perplexity = math.exp(nll.mean())
    error = perplexity * nll.std() / math.sqrt(len(nll) - 1)
    return {"perplexity": perplexity, "standard_error": error, "scored_tokens": len(nll), "windows": total,
            "window_nats": windows}


def compare(path, args):
    text = read_text(args.text)
    result = {"model": pathlib.Path(path).name, "text": args.text.name, "window_tokens": args.ctx}
    result["llama"] = llama_perplexity(path, text, args.ctx, args.windows, args.threads)
    if not args.llama_only:
        command = ["perplexity", "--model", path, "--text", args.text, "--ctx", args.ctx, "--json", "--threads", args.threads]
        if args.windows:
            command += ["--windows", args.windows]
        result["ours"] = ours.sparse(*command)
        result["change"] = result["ours"]["perplexity"] / result["llama"]["perplexity"] - 1.0
        differences = np.array(result["ours"]["window_nats"]) - np.array(result["llama"]["window_nats"])
        result["change_error"] = float(differences.std(ddof=1) / math.sqrt(len(differences))) if len(differences) > 1 else None
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--windows", type=int, help="the first N windows only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-change", type=float, default=0.005)
    parser.add_argument("--llama-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.llama_only:
        ours.build()
    result = compare(args.model, args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for side in ("llama", "ours"):
            if row := result.get(side):
                print(
                    f"{side}: perplexity {row['perplexity']:.4f} +/- {row['standard_error']:.4f} "
                    f"({row['scored_tokens']} tokens scored in {row['windows']} windows)"
                )
        if "change" in result:
            error = result["change_error"]
            print(f"change: {result['change']:+.4%}" + (f" +/- {error:.4%}" if error is not None else ""))
    sys.exit(0 if abs(result.get("change", 0.0)) <= args.max_change else 1)


if __name__ == "__main__":
    main()
