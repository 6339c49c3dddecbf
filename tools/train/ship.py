"""From a checkpoint to what the repository ships: model, sidecar, figures, card.

    python ship.py runs/final/checkpoint.pt --logs runs/relu/log.jsonl runs/final/log.jsonl \\
        --equal runs/relu/step-001000.pt --twin runs/silu/step-001000.pt \\
        --text train.txt.xz --heldout heldout.txt.xz --tokenizer runs/tokenizer.json

Into crates/sparse-cli/story: story.gguf (export.py), story.sparse.gguf (`sparse calibrate`, which fits predictors, measures
what they cost and chooses), figures.json (everything below, measured on the files as they ship), README.md and the charts
(card.py). Held-out figures are of float arithmetic on the quantized weights (evaluate.py) and of our own program; the twins are
compared as checkpoints, at equal steps. Samples are those of seeds 1 to 20, whatever they are, by the scalar kernels, which
every CPU repeats. Without a checkpoint it takes seven minutes on two cores, most of it calibration; `--skip-calibration` keeps the sidecar.

Without a checkpoint the model and what was measured on it by torch (figures.json has it) stay as they are; sidecar, our own
figures, samples and card are made anew.
"""

import argparse
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile

import card
import data

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STORY = ROOT / "crates/sparse-cli/story"
SAMPLES = 20


def run(*command, env=None):
    """What the command prints."""
    command = [str(part) for part in command]
    print("$", " ".join(command), file=sys.stderr)
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | (env or {})).stdout


def python(script, *args):
    return run(sys.executable, HERE / script, *args)


def build(*flags):
    """Builds the program; without the story model where that is not there yet."""
    run("cargo", "build", "--release", "--locked", "--package", "sparse-cli", *flags)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "release/sparse"


def plain(path, folder):
    """The stories of a text as the model was trained on them: the token that ends each, and no line ends around it."""
    out = folder / f"{path.stem}.stories"
    out.write_text(data.END + "".join(story + data.END for story in data.stories(path)), encoding="utf-8")
    return out


def curve(logs):
    """Training loss, held-out loss and sparsity by step; of a step that was taken twice the later one."""
    entries = {}
    for path in logs:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        # A run that goes on from another takes its place from there.
        entries = {key: entry for key, entry in entries.items() if key[0] < lines[0]["step"]}
        entries |= {(e["step"], "heldout_loss" in e): e for e in lines}
    training = [e for e in entries.values() if "loss" in e]
    group = max(1, len(training) // 150)
    training = [training[i : i + group] for i in range(0, len(training), group)]

    def mean(values):
        values = list(values)
        return round(sum(values) / len(values), 4)

    return {
        "training": [[g[-1]["step"], mean(e["loss"] for e in g)] for g in training],
        "sparsity": [[g[-1]["step"], mean(mean(e["sparsity"]) for e in g)] for g in training],
        "heldout": [[e["step"], e["heldout_loss"]] for e in entries.values() if "heldout_loss" in e],
        "tokens": max(e["tokens"] for e in entries.values()),
    }


def measured_by_us(sparse, heldout):
    """Perplexity on held-out text for each choice of neurons, by the rules of `sparse perplexity`."""
    choices = ("none", "exact-zero", "sidecar")
    reports = [json.loads(run(sparse, "perplexity", "--text", heldout, "--parse-special", "--windows", 200, "--sparse", c, "--json")) for c in choices]
    return {c: {k: r[k] for k in ("perplexity", "standard_error", "scored_tokens")} for c, r in zip(choices, reports)}


def samples(sparse):
    """Texts and what was skipped for them: with the sidecar, and with exact zeros alone."""
    prompts = (STORY / "prompts.txt").read_text(encoding="utf-8").splitlines()
    texts, skipped, computed = [], [], []
    for seed in range(1, SAMPLES + 1):
        # Of every name two openings, and every opening twice.
        prompt = prompts[(seed - 1) * 5 + (seed - 1) // 2 % 5]
        args = ("generate", prompt, "--seed", seed, "--json")
        texts.append({"seed": seed, "prompt": prompt, "text": json.loads(run(sparse, *args, env={"SPARSE_SIMD": "scalar"}))["text"]})
    layers = []
    for seed in range(1, SAMPLES + 1):
        args = ("generate", "Once upon a time", "--seed", seed, "--json", "-n", 100, "--ignore-eos")
        report = json.loads(run(sparse, *args))
        skipped.append(report["skipped"])
        rows = [layer[part] for layer in report["layers"] for part in ("gate", "up", "down")]
        computed.append(sum(rows) / len(rows))
        layers.append([1.0 - layer["down"] for layer in json.loads(run(sparse, *args, "--sparse", "exact-zero"))["layers"]])
    zeros = [sum(of_layer) / SAMPLES for of_layer in zip(*layers)]
    return texts, {
        "zeros_per_layer": zeros,
        "zeros": sum(zeros) / len(zeros),
        "skipped": sum(skipped) / SAMPLES,
        "computed": sum(computed) / SAMPLES,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path, nargs="?")
    parser.add_argument("--logs", type=pathlib.Path, nargs="+", help="log.jsonl of the runs, in order")
    parser.add_argument("--equal", type=pathlib.Path, help="checkpoint to compare with the twin")
    parser.add_argument("--twin", type=pathlib.Path, help="checkpoint of the SiLU twin, after as many steps")
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--heldout", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    parser.add_argument("--max-loss", default="0.5%")
    parser.add_argument("--calibrate", default="--ranks 32,64 --only ffn", help="more options for `sparse calibrate`, as one argument")
    parser.add_argument("--skip-calibration", action="store_true", help="the sidecar and its report are there already")
    args = parser.parse_args()
    if args.checkpoint and not (args.logs and args.tokenizer):
        parser.error("a checkpoint needs --logs and --tokenizer")
    args = argparse.Namespace(**{
        key: value.resolve() if isinstance(value, pathlib.Path) else value for key, value in vars(args).items()
    })
    model, sidecar, report = STORY / "story.gguf", STORY / "story.sparse.gguf", ROOT / "target/story-calibration.json"
    evaluation = ("--heldout", args.heldout, "--tokenizer", args.tokenizer, "--json")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if args.checkpoint:
            python("export.py", args.checkpoint, "--tokenizer", args.tokenizer, "--out", model)
        heldout = plain(args.heldout, folder)
        if not args.skip_calibration:
            report.parent.mkdir(exist_ok=True)
            report.write_text(run(
                build("--no-default-features"), "calibrate", "--model", model, "--text", plain(args.text, folder), "--test", heldout,
                "--max-loss", args.max_loss, "--out", sidecar, "--json", *args.calibrate.split(),
            ), encoding="utf-8")
        if args.checkpoint:
            figures = {"curve": curve(args.logs), "heldout": json.loads(python("evaluate.py", model, "--windows", 0, *evaluation))}
        else:
            figures = json.loads((STORY / "figures.json").read_text(encoding="utf-8"))
        figures["sidecar"] = json.loads(report.read_text(encoding="utf-8"))
        if args.twin:
            figures["twin"] = json.loads(python("evaluate.py", args.equal, "--twin", args.twin, *evaluation))
        sparse = build()
        figures["ours"] = measured_by_us(sparse, heldout)
        figures["speed"] = json.loads(run(
            sparse, "bench", "--sparse", "dense-rows,none,exact-zero,sidecar", "--text", heldout, "--prompt", 256, "--tokens", 400, "--rounds", 15, "--json",
        ))
    texts, figures["own_text"] = samples(sparse)
    figures["samples"] = texts
    (STORY / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    card.write(STORY)


if __name__ == "__main__":
    main()
