"""Loss, perplexity and sparsity on held-out stories, and samples.

    python evaluate.py MODEL [--twin TWIN] --heldout heldout.txt.xz [--windows 200] [--samples 20] [--json]

MODEL and TWIN are checkpoints, or GGUF files that export.py wrote (--tokenizer is needed for these): a quantized model is
measured as it ships. Arithmetic is float32. Windows do not overlap and every token but a window's first is scored. A twin is
compared on the same windows; the standard error is that of the mean difference per window. Samples are whatever seeds 0, 1,
2 ... give, none left out.
"""

import argparse
import json
import math
import pathlib

import torch
from torch.nn import functional as F

import data
from export import load, load_gguf


def open_model(path):
    """The model and what is known of its training."""
    if path.suffix == ".gguf":
        return load_gguf(path), {"file": path.name, "megabytes": path.stat().st_size / 1e6}
    model, kept = load(path)
    return model, {"file": path.name, "step": kept["step"], "tokens": kept["tokens"]}


@torch.no_grad()
def measure(model, ids, windows, size=8):
    """Losses per window in nats [windows], zero share per layer, and share of each layer's neurons that never were active."""
    losses, active, tokens = [], 0, 0
    for rows in data.heldout_batches(ids, size, model.shape.context, windows):
        rows = torch.from_numpy(rows)
        logits, gates = model(rows[:, :-1])
        losses.append(F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none").mean(1))
        active = active + torch.stack([(gate != 0).flatten(0, 1).sum(0) for gate in gates])
        tokens += rows[:, 1:].numel()
    return torch.cat(losses).double(), 1.0 - (active / tokens).mean(1), (active == 0).float().mean(1), tokens


@torch.no_grad()
def samples(model, tokenizer, prompt, count, length=200, temperature=0.8, top_k=40):
    """Texts of seeds 0, 1, ...: each ends with its story, or after `length` tokens."""
    end = tokenizer.token_to_id(data.END)
    start = [end, *tokenizer.encode(prompt).ids]
    ids = torch.tensor([start] * count)
    random = [torch.Generator().manual_seed(seed) for seed in range(count)]
    for _ in range(length):
        logits, _ = model(ids)
        best, token = (logits[:, -1] / temperature).topk(top_k)
        drawn = [torch.multinomial(p, 1, generator=g) for p, g in zip(best.softmax(-1), random)]
        ids = torch.cat((ids, token.gather(1, torch.stack(drawn))), 1)
    texts = []
    for row in ids[:, 1:].tolist():
        row = row[: row.index(end)] if end in row else row
        texts.append(tokenizer.decode(row))
    return texts


def evaluate(path, ids, args):
    model, result = open_model(path)
    losses, zeros, never, tokens = measure(model, ids, args.windows)
    result |= {
        "activation": model.shape.activation,
        "parameters": model.parameter_count(),
        "scored_tokens": tokens,
        "loss": float(losses.mean()),
        "perplexity": math.exp(losses.mean()),
        "standard_error": math.exp(losses.mean()) * float(losses.std()) / math.sqrt(len(losses)),
        "sparsity": float(zeros.mean()),
        "sparsity_per_layer": zeros.tolist(),
        "never_active_per_layer": never.tolist(),
    }
    return model, losses, result


def report(result):
    print(f"{result['file']}: {result['activation']}, {result['parameters'] / 1e6:.2f} M parameters, "
          + (f"{result['step']} steps, {result['tokens'] / 1e6:.1f} M tokens" if "step" in result else f"{result['megabytes']:.2f} MB"))
    print(f"  loss {result['loss']:.4f} nats, perplexity {result['perplexity']:.3f} +- {result['standard_error']:.3f} "
          f"({result['scored_tokens']} tokens)")
    per_layer = zip(result["sparsity_per_layer"], result["never_active_per_layer"])
    print(f"  exact zeros {result['sparsity']:.1%}; per layer (never active): "
          + ", ".join(f"{zero:.1%} ({never:.1%})" for zero, never in per_layer))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--twin", type=pathlib.Path)
    parser.add_argument("--heldout", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--windows", type=int, default=200, help="0 for all")
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = data.load_tokenizer(args.tokenizer)
    ids = data.load_ids(args.heldout, tokenizer, args.tokenizer.parent)
    model, losses, result = evaluate(args.model, ids, args)
    if args.twin:
        _, others, result["twin"] = evaluate(args.twin, ids, args)
        difference = losses - others
        result["perplexity_change"] = math.exp(difference.mean()) - 1.0
        result["perplexity_change_error"] = float(difference.std()) / math.sqrt(len(difference))
    if args.samples:
        result["samples"] = samples(model, tokenizer, args.prompt, args.samples)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    report(result)
    if args.twin:
        report(result["twin"])
        print(f"perplexity against the twin: {result['perplexity_change']:+.2%} +- {result['perplexity_change_error']:.2%}")
    for seed, text in enumerate(result.get("samples", [])):
        print(f"\n[seed {seed}] {text}")


if __name__ == "__main__":
    main()
