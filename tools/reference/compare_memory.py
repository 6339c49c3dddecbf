"""Resident memory of generation at a context of 2048 tokens, llama.cpp's and ours, on the same file.

    python compare_memory.py MODEL.gguf [--threads 1] [--json]

Each side is one process that fills the context: the peak resident set of the `sparse` program, and for llama.cpp that of a
Python process less what was resident before the model was opened. Both map the file, so resident pages of the file count
on both sides.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import ours

HERE = pathlib.Path(__file__).parent
CONTEXT = 2048
TOKENS = 32


def resident(field):
    for line in open("/proc/self/status", encoding="ascii"):
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def llama_here(path, threads):
    """llama.cpp's peak in this process, which does nothing else."""
    import numpy as np

    from llama import Llama, read_text

    before = resident("VmRSS")
    model = Llama(path, n_ctx=CONTEXT, n_batch=2048, threads=threads)
    prompt = CONTEXT - TOKENS
    ids = (model.tokenize(read_text(HERE / "prose.txt")) * 8)[:prompt]
    row = model.decode(ids, 0, lambda position: position == prompt - 1)[-1]
    for i in range(TOKENS - 1):
        row = model.decode([int(np.argmax(row))], prompt + i)[-1]
    return resident("VmHWM") - before


def alone(side, path, threads):
    """The peak of one side, from a process of its own: a child's peak counts that of the process that it was forked from."""
    command = [sys.executable, __file__, "--here", side, str(path), str(threads)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def ours_here(path, threads):
    ours.build()
    text = (HERE / "prose.txt").read_text(encoding="utf-8") * 4
    tokens = ours.sparse("tokenize", "--model", path, "--no-special", "--json", "--file", "-", input=text.encode())
    # A few tokens short, because a text that is cut may become more tokens.
    text = "".join(token["piece"] for token in tokens[: CONTEXT - TOKENS - 8] if token["whole"])
    command = [ours.SPARSE, "generate", "--model", path, "--greedy", "--json", "--ignore-eos"]
    command += ["--max-tokens", TOKENS, "--context", CONTEXT, "--threads", threads, "--", text]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE)
    out = process.stdout.read()
    peak = ours.wait_with_peak(process)
    filled = json.loads(out)["prompt_tokens"] + TOKENS
    if not CONTEXT - 64 <= filled <= CONTEXT:
        raise RuntimeError(f"filled {filled} of {CONTEXT} tokens")
    return peak


def compare(path, threads):
    result = {"model": pathlib.Path(path).name} | {side: alone(side, path, threads) for side in SIDES}
    return result | {"ratio": result["ours"] / result["llama"]}


SIDES = {"ours": ours_here, "llama": llama_here}


def main():
    if sys.argv[1:2] == ["--here"]:
        print(SIDES[sys.argv[2]](sys.argv[3], int(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ours.build()
    result = compare(args.model, args.threads)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['model']}: ours {result['ours'] / 1e6:.0f} MB, llama.cpp {result['llama'] / 1e6:.0f} MB, ratio {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
