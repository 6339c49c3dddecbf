"""Decode speed and memory of a model larger than the memory for it, by budget and policy.

    python tools/reference/memory_budget.py MODEL --example PROGRAM [--cgroup DIR] [--llama-bench PROGRAM]

MODEL has experts, or neurons that `sparse convert` has stored and its sidecar or its activation chooses. PROGRAM is the example
`budget` of sparse-model, in release mode. It computes the tokens of a text, so all runs do the same: with all weights in
memory, under the budgets with each policy, and over the plain map of the file. A budget is a share of the file (--files), or the
weights that every token reads and a share of the experts or of the feed-forward weights (--shares).

Every run begins with the files out of the page cache. With --cgroup, a directory of the memory controller (version 1) that
this user may write to, each runs in it with the budget and --room as its limit, and llama.cpp (mmap, weights not repacked) with
the same limit. Peak memory is the process's own, as the system counts it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
from pathlib import Path

import gguf

MIB = 1 << 20
STORED = re.compile(r"blk\.\d+\.ffn_(gate|up|down|gate_up)(_exps|_t)?\.weight")
# Starts the program as the only child, whose peak it reports.
WRAPPER = "import resource,subprocess,sys; p=subprocess.run(sys.argv[1:],stdout=subprocess.PIPE); " \
          "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,flush=True); sys.stdout.buffer.write(p.stdout); sys.exit(p.returncode)"


def run(args, command, limit):
    """What a command printed, as JSON, with its peak memory; nothing if it failed or took too long."""
    for path in [args.model, args.model.with_suffix(".records.gguf")]:
        if path.exists():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def enter():
        if args.cgroup:
            (args.cgroup / "memory.limit_in_bytes").write_text(str(limit))
            (args.cgroup / "cgroup.procs").write_text(str(os.getpid()))

    command = ["python3", "-c", WRAPPER, *map(str, command)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=enter, start_new_session=True)
    try:
        out, errors = process.communicate(timeout=args.timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return {"failed": f"not done after {args.timeout} s"}
    if process.returncode != 0:
        return {"failed": errors.decode().strip()[-300:]}
    peak, text = out.split(b"\n", 1)
    found = json.loads(text)
    return {**(found[0] if isinstance(found, list) else found), "peak_mib": int(peak) / 1024}


def measured(args, kind, budget, limit):
    if kind == "llama.cpp":
        found = run(args, [args.llama_bench, "-m", args.model, "-t", args.threads, "-p", 0, "-n", args.tokens, "-r", 1, "--repack", 0,
                           "--load-mode", "mmap", "--no-warmup", "-o", "json"], limit)
        return {"tokens_per_s": found["avg_ts"], "peak_mib": found["peak_mib"]} if "avg_ts" in found else found
    sidecar = args.model.with_suffix(".sparse.gguf")
    command = [args.example, args.model, args.text, args.tokens, args.threads, kind, budget]
    return run(args, command + [sidecar] * sidecar.exists(), limit)


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--example", type=Path, default=here.parents[1] / "target/release/examples/budget")
    parser.add_argument("--text", type=Path, default=here / "prose.txt")
    parser.add_argument("--room", type=int, default=64, help="MiB of a control group beyond the budget")
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--files", type=float, nargs="+", default=[], help="budgets as shares of the file")
    parser.add_argument("--shares", type=float, nargs="+", default=[], help="budgets by shares of the experts or feed-forward weights")
    parser.add_argument("--kinds", nargs="+", default=["lru", "lfu", "map"])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=100)
    args = parser.parse_args()
    size = args.model.stat().st_size
    stored = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(args.model).tensors if STORED.fullmatch(tensor.name))
    print(f"{size / MIB:.0f} MiB, of which {stored / MIB:.0f} MiB are experts or feed-forward weights")
    budgets = {f"{share:.0%} of the file": int(size * share) for share in args.files}
    budgets |= {f"{share:.0%}": int(size - stored + stored * share) for share in args.shares}
    kinds = args.kinds + ["llama.cpp"] * bool(args.llama_bench)
    results = {(name, kind): [] for name in budgets for kind in kinds}
    whole = measured(args, "whole", 0, 1 << 40)
    print("whole", {key: value for key, value in whole.items() if key != "tokens"}, flush=True)
    texts, logits = {str(whole["tokens"])}, {whole["logits"]}
    for _ in range(args.rounds):
        for name, kind in results:
            found = measured(args, kind, budgets[name], budgets[name] + args.room * MIB)
            results[name, kind].append(found)
            if "tokens" in found:
                texts.add(str(found.pop("tokens")))
                # In the map, sums have another order.
                logits |= {found["logits"]} if kind != "map" else set()
            print(name, kind, found, flush=True)
    print("logits: the same bits in all memory and under every budget" if len(logits) == 1 else f"{len(logits)} DIFFERENT LOGITS")
    print("best tokens: the same in every run" if len(texts) == 1 else f"{len(texts)} different lists of best tokens")
    print("| share in memory | budget | kind | tokens/s | hits | read per token | peak memory | beyond the budget |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, kind), found in results.items():
        found = [f for f in found if "failed" not in f]

        def median(key, unit="", scale=1):
            values = [f[key] * scale for f in found if key in f]
            return f"{statistics.median(values):.3g}{unit}" if values else ""

        peak = [f["peak_mib"] for f in found]
        beyond = f"{max(peak) - budgets[name] / MIB:.0f} MiB" if peak else ""
        print(f"| {name} | {budgets[name] / MIB:.0f} MiB | {kind} | {median('tokens_per_s') or 'none'} | {median('hit_rate', ' %', 100)} "
              f"| {median('read_bytes', ' MB', 1e-6 / args.tokens)} | {max(peak, default=0):.0f} MiB | {beyond} |")


if __name__ == "__main__":
    main()
