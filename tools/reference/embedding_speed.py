"""Time per sentence of our embeddings against ONNX Runtime's, in turn, on the same model folder.

    python embedding_speed.py MODEL_FOLDER [--threads 1 2] [--rounds 3] [--seconds 0.4] [--onnx FILE] [--weights uint8] [--candle] [--json FILE]

ONNX Runtime runs the transformer alone, on ids that are there already, all of the same length: f32 as exported here by
torch, int8 by its own dynamic quantization. Ours is from text to embedding. With --candle, candle's BERT in f32 takes its
turn, too, built from benches/peers for this CPU; it begins with ids. Medians of the rounds; ratios are of the same round.
Needs requirements-embeddings.txt.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModel

import ours

# Each is one token of the vocabulary of BERT.
WORDS = (
    "time people year way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother"
).split()

# Its kernel for int8 and AVX2 adds products in 16 bits, which may saturate; its documentation names uint8 as a way out.
WEIGHTS = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}


class LastLayer(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def export(model, path):
    """The model as ONNX files: f32, and both kinds of WEIGHTS."""
    example = torch.ones(2, 16, dtype=torch.long)
    axes = {"input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "tokens"}}
    module = LastLayer(AutoModel.from_pretrained(model).eval())
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(module, (example, example), path, input_names=names, dynamic_axes=axes, dynamo=False, opset_version=17)
    for name, kind in WEIGHTS.items():
        quantize_dynamic(path, path.with_suffix(f".{name}.onnx"), weight_type=kind)


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def theirs(session, batch, tokens, seconds):
    """Median milliseconds per sentence."""
    ids = np.random.default_rng(1).integers(1000, 5000, (batch, tokens))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    session.run(None, feed)
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times)) / batch


def mine(program, model, form, threads, batch, tokens, seconds):
    texts = [" ".join(WORDS[(7 * b + 3 * i) % len(WORDS)] for i in range(tokens - 2)) for b in range(batch)]
    command = [program, model, form, str(threads), str(seconds)]
    run = subprocess.run(command, input="\n".join(texts), stdout=subprocess.PIPE, check=True, text=True)
    result = json.loads(run.stdout)
    assert result["tokens"] == batch * tokens, result
    return result["ms_per_sentence"]


def candle_program():
    """The peers' program, built for this very CPU, which some of candle's loops need to be fast."""
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", "benches/peers/Cargo.toml"]
    target = ours.target_folder() / "peers-native"
    environment = os.environ | {"RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(target)}
    subprocess.run(command, cwd=ours.ROOT, env=environment, check=True)
    return target / "release" / "sparse-peers"


def candle(program, model, threads, batch, tokens, seconds):
    command = [program, "embed", model, str(batch), str(tokens), str(seconds)]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True).stdout)["ms_per_sentence"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--onnx", type=pathlib.Path, help="keep the exported model here, or take it from here")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--weights", choices=WEIGHTS, default="int8", help="of onnxruntime's quantized model")
    parser.add_argument("--candle", action="store_true", help="measure candle, too")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here, too")
    args = parser.parse_args()
    peer = candle_program() if args.candle else None
    program = ours.example("embed_speed")
    with tempfile.TemporaryDirectory() as folder:
        onnx = args.onnx or pathlib.Path(folder) / "model.onnx"
        if not onnx.exists():
            export(args.model, onnx)
        figures = []
        print(f"onnxruntime {onnxruntime.__version__}, ms per sentence; ratios are onnxruntime f32 over ours")
        print("threads batch tokens  ours int8  ours f32   ort f32  ort int8   int8 ratio (least..most)   f32 ratio" + "   candle, over ours int8" * args.candle)
        for threads in args.threads:
            runtime = {"f32": session(onnx, threads), args.weights: session(onnx.with_suffix(f".{args.weights}.onnx"), threads)}
            for batch in args.batches:
                for tokens in args.tokens:
                    rounds = []
                    for _ in range(args.rounds):
                        found = {f"ort {k}": theirs(s, batch, tokens, args.seconds) for k, s in runtime.items()}
                        for form in ("int8", "f32"):
                            found[f"ours {form}"] = mine(program, args.model, form, threads, batch, tokens, args.seconds)
                        if peer:
                            found["candle"] = candle(peer, args.model, threads, batch, tokens, args.seconds)
                        rounds.append(found)
                    median = {k: float(np.median([r[k] for r in rounds])) for k in rounds[0]}
                    ratios = [[r["ort f32"] / r[f"ours {form}"] for r in rounds] for form in ("int8", "f32")]
                    int8, f32 = map(np.median, ratios)
                    over = [r["candle"] / r["ours int8"] for r in rounds] if peer else []
                    last = f"   candle {median['candle']:.3f}, {np.median(over):.2f} ({min(over):.2f}..{max(over):.2f})" if over else ""
                    print(
                        f"{threads:7} {batch:5} {tokens:6} {median['ours int8']:10.3f} {median['ours f32']:9.3f} "
                        f"{median['ort f32']:9.3f} {median[f'ort {args.weights}']:9.3f}   "
                        f"{int8:.2f} ({min(ratios[0]):.2f}..{max(ratios[0]):.2f})   {f32:.2f}{last}",
                        flush=True,
                    )
                    figures.append({"threads": threads, "batch": batch, "tokens": tokens, "rounds": rounds})
        if args.json:
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
