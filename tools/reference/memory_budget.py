"""Decode speed and memory of a model larger than the memory for it, by budget and policy.

    python tools/reference/memory_budget.py MODEL --resident MB --sparse PROGRAM [--cgroup DIR] [--llama-bench PROGRAM]

MODEL has experts, or neurons that `sparse convert` has stored and --neurons chooses; --resident is the size of its other weights.
Budgets are that and a share of the experts or of the feed-forward weights. Every run begins with the files out of the page cache.
With --example PROGRAM, the example `budget` of sparse-model decodes in place of the program, under the budgets and over the
plain map of the file, in the same control groups. With --cgroup, a directory of the memory
controller (version 1) that this user may write to, each runs in it with the budget and --room as its limit, and llama.cpp
(mmap, weights not repacked) with the same limit. Peak memory is the process's own, as the system counts it.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

MIB = 1 << 20


def run(args, command, limit):
    """Output and peak resident bytes of a command."""
    records = Path(args.model).with_suffix(".records.gguf")
    for path in [args.model] + [records] * records.exists():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if args.cgroup:
        (args.cgroup / "memory.limit_in_bytes").write_text(str(limit))

    def enter():
        if args.cgroup:
            (args.cgroup / "cgroup.procs").write_text(str(os.getpid()))

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=enter)
    try:
        out, _ = process.communicate(timeout=args.timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return out if process.returncode == 0 else None


def ours(args, budget, policy):
    command = [args.sparse, "generate", "-m", args.model, args.prompt, "--temperature", "0", "--json", "--ignore-eos",
               "-n", str(args.tokens), "--threads", str(args.threads), "--memory-budget", str(budget), "--cache", policy]
    command += ["--sparse", args.neurons] * bool(args.neurons)
    if args.example:
        command = decode(args, policy, budget)
    # A wrapper reports the peak of its only child.
    script = "import resource,subprocess,sys; p=subprocess.run(sys.argv[1:],stdout=subprocess.PIPE); " \
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.stdout.buffer.write(p.stdout); sys.exit(p.returncode)"
    out = run(args, ["python3", "-u", "-c", script, *command], budget + args.room * MIB)
    if out is None:
        return None
    peak, text = out.split(b"\n", 1)
    report = json.loads(text)
    store = report if args.example else report["store"]
    return {"tokens_per_s": report["tokens_per_s"] if args.example else report["timings"]["decode_tokens_per_s"], "hit_rate": store["hit_rate"],
            "read_mb_per_token": store["read_bytes"] / 1e6 / args.tokens, "peak_mib": int(peak) / 1024,
            "tokens": report["tokens"]}


def decode(args, kind, budget):
    sidecar = [str(Path(args.model).with_suffix(".sparse.gguf"))] * (args.neurons == "sidecar")
    return [args.example, args.model, str(args.tokens), str(args.threads), kind, str(budget), *sidecar]


def mapped(args, limit):
    out = run(args, decode(args, "map", 0), limit)
    return out and {key: json.loads(out)[key] for key in ["tokens_per_s", "tokens"]}


def llama(args, limit):
    command = [args.llama_bench, "-m", args.model, "-t", str(args.threads), "-p", "0", "-n", str(args.tokens), "-r", "1",
               "--repack", "0", "--load-mode", "mmap", "--no-warmup", "-o", "json"]
    out = run(args, command, limit)
    return out and {"tokens_per_s": json.loads(out)[0]["avg_ts"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--resident", type=float, required=True, help="MB of weights that every token reads")
    parser.add_argument("--sparse", default="sparse")
    parser.add_argument("--neurons", help="what to leave out: exact-zero or sidecar")
    parser.add_argument("--example")
    parser.add_argument("--room", type=int, default=64, help="MiB of a control group beyond the budget")
    parser.add_argument("--llama-bench")
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.75, 0.5, 0.25])
    parser.add_argument("--policies", nargs="+", default=["lru", "lfu"])
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=int, default=300)
    args = parser.parse_args()
    resident = int(args.resident * 1e6)
    experts = os.path.getsize(args.model) - resident
    kinds = [(share, kind) for share in args.shares for kind in args.policies + ["mapped"] * bool(args.example) + ["llama.cpp"] * bool(args.llama_bench)]
    results = {kind: [] for kind in kinds}
    texts = set()
    for _ in range(args.rounds):
        for share, kind in kinds:
            budget = resident + int(share * experts)
            others = {"llama.cpp": llama, "mapped": mapped}
            found = others[kind](args, budget + args.room * MIB) if kind in others else ours(args, budget, kind)
            results[share, kind].append(found)
            if found and "tokens" in found:
                texts.add(tuple(found["tokens"]))
            print(share, kind, {k: v for k, v in (found or {"failed": True}).items() if k != "tokens"}, flush=True)
    print("the same text in every run" if len(texts) == 1 else f"{len(texts)} DIFFERENT TEXTS")
    print("| share in memory | budget | policy | tokens/s | hits | read per token | peak memory |\n|---|---|---|---|---|---|---|")
    for (share, kind), found in results.items():
        found = [f for f in found if f]
        median = lambda key, unit: f"{statistics.median(f[key] for f in found):.3g}{unit}" if found and key in found[0] else ""
        print(f"| {share:.0%} | {(resident + share * experts) / MIB:.0f} MiB | {kind} | {median('tokens_per_s', '') or 'none'} "
              f"| {median('hit_rate', '')} | {median('read_mb_per_token', ' MB')} | {median('peak_mib', ' MiB')} |")


if __name__ == "__main__":
    main()
