"""Decode speed and resident memory, llama.cpp's and ours, on the same file.

    python compare_speed.py MODEL.gguf [--rounds 5] [--threads 1] [--json]

Rounds are interleaved (ours, llama.cpp, ours, ...), each in a new process; medians and ranges are over rounds. A round
evaluates a prompt of --prompt tokens, then decodes --tokens tokens greedily. Both sides' times include choosing the token.
Memory is measured once a side in a process that fills a context of 2048 tokens: the peak resident set (VmHWM) of the
`sparse` program, and for llama.cpp that of a Python process less what was resident before the model was opened. Both map
the file, so resident pages of the file count on both sides.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import ours

HERE = pathlib.Path(__file__).parent
CONTEXT = 2048


def resident(field):
    for line in open("/proc/self/status", encoding="ascii"):
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def llama_round(path, prompt, tokens, context, threads):
    """One round of llama.cpp, in this process, which does nothing else."""
    import numpy as np

    from llama import Llama, read_text

    before = resident("VmRSS")
    start = time.perf_counter()
    model = Llama(path, n_ctx=context, n_batch=2048, threads=threads)
    load = time.perf_counter() - start
    ids = (model.tokenize(read_text(HERE / "prose.txt")) * 8)[:prompt]
    start = time.perf_counter()
    row = model.decode(ids, 0, lambda position: position == prompt - 1)[-1]
    prefill = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(tokens - 1):
        row = model.decode([int(np.argmax(row))], prompt + i)[-1]
    decode = time.perf_counter() - start
    return {
        "load_ms": load * 1e3,
        "prefill_tokens_per_s": prompt / prefill,
        "decode_tokens_per_s": (tokens - 1) / decode,
        "peak_bytes": resident("VmHWM") - before,
        "python_bytes": before,
    }


def llama(path, prompt, tokens, context, threads):
    arguments = [str(path), str(prompt), str(tokens), str(context), str(threads)]
    run = subprocess.run([sys.executable, __file__, "--round", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout)


def mine(path, prompt, tokens, context, threads, text):
    command = [ours.SPARSE, "generate", "--model", path, "--greedy", "--json", "--ignore-eos"]
    command += ["--max-tokens", tokens, "--context", context, "--threads", threads, "--", text]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE)
    out = process.stdout.read()
    peak = ours.wait_with_peak(process)
    found = json.loads(out)
    if found["prompt_tokens"] != prompt or found["generated_tokens"] != tokens:
        raise RuntimeError(f"asked for {prompt}+{tokens} tokens, got {found['prompt_tokens']}+{found['generated_tokens']}")
    return {
        "load_ms": found["timings"]["load_ms"],
        "prefill_tokens_per_s": found["timings"]["prompt_tokens_per_s"],
        "decode_tokens_per_s": found["timings"]["decode_tokens_per_s"],
        "peak_bytes": peak,
        "bytes_per_token": found["bytes_per_token"],
        "level": found["level"],
    }


def prompt_of(path, count):
    """A text that has exactly `count` tokens, or nearly, and the exact count."""
    from llama import Llama, read_text

    model = Llama(path, n_ctx=8)
    text = read_text(HERE / "prose.txt") * 4
    ids = model.tokenize(text)[:count]
    begin = 1 if model.adds_bos else 0
    text = b"".join(model.piece(i) for i in ids[begin:]).decode("utf-8", "ignore")
    # SentencePiece puts a space before a text.
    text = text[1:] if begin and text.startswith(" ") else text
    count = len(model.tokenize(text, parse_special=True))
    model.close()
    return text, count


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(path, args):
    text, prompt = prompt_of(path, args.prompt)
    rounds = {"ours": [], "llama": []}
    for _ in range(args.rounds):
        rounds["ours"].append(mine(path, prompt, args.tokens, CONTEXT, args.threads, text))
        rounds["llama"].append(llama(path, prompt, args.tokens, CONTEXT, args.threads))
    result = {"model": pathlib.Path(path).name, "threads": args.threads, "prompt": prompt, "tokens": args.tokens}
    for side, found in rounds.items():
        result[side] = {
            key: spread([r[key] for r in found]) for key in ("load_ms", "prefill_tokens_per_s", "decode_tokens_per_s")
        }
    result["ours"] |= {"bytes_per_token": rounds["ours"][0]["bytes_per_token"], "level": rounds["ours"][0]["level"]}
    ratios = [o["decode_tokens_per_s"] / t["decode_tokens_per_s"] for o, t in zip(rounds["ours"], rounds["llama"])]
    result["decode_ratio"] = spread(ratios)
    long_text, long_prompt = prompt_of(path, CONTEXT - 32)
    tokens = CONTEXT - long_prompt
    result["ours"]["peak_bytes"] = mine(path, long_prompt, tokens, CONTEXT, args.threads, long_text)["peak_bytes"]
    result["llama"]["peak_bytes"] = llama(path, long_prompt, tokens, CONTEXT, args.threads)["peak_bytes"]
    result["memory_ratio"] = result["ours"]["peak_bytes"] / result["llama"]["peak_bytes"]
    return result


def arguments(parser):
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)


def main():
    if sys.argv[1:2] == ["--round"]:
        path, *numbers = sys.argv[2:]
        print(json.dumps(llama_round(path, *map(int, numbers))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    arguments(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ours.build()
    result = compare(args.model, args)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['model']}, {args.threads} thread(s), {args.rounds} rounds of {result['prompt']}+{args.tokens} tokens")
    print("| | prefill tokens/s | decode tokens/s | load ms | peak MB at 2k context |")
    print("|---|---|---|---|---|")
    for side in ("ours", "llama"):
        row = result[side]
        cells = [
            f"{row[key]['median']:.0f} ({row[key]['min']:.0f} to {row[key]['max']:.0f})"
            for key in ("prefill_tokens_per_s", "decode_tokens_per_s", "load_ms")
        ]
        print(f"| {side} | {' | '.join(cells)} | {row['peak_bytes'] / 1e6:.0f} |")
    ratio = result["decode_ratio"]
    print(f"decode ratio {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}), memory ratio {result['memory_ratio']:.2f}")


if __name__ == "__main__":
    main()
