"""Our side: the workspace's own programs, built in release mode."""

import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def target_folder():
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, capture_output=True, check=True
    )
    return pathlib.Path(json.loads(metadata.stdout)["target_directory"])


def build():
    """Builds both programs; later calls run them directly, so that nothing but the program is timed."""
    for target in (["-p", "sparse-cli", "--features", "logits", "--bin", "logits"], ["-p", "sparse-cli"]):
        subprocess.run(["cargo", "build", "--release", "--quiet", *target], cwd=ROOT, check=True)
    release = target_folder() / "release"
    global SPARSE, LOGITS
    SPARSE, LOGITS = release / "sparse", release / "logits"


SPARSE = LOGITS = None


def logits(model, ids, n_vocab, context, threads=1, one_by_one=False):
    """Our logits [len(ids), n_vocab] for one run over `ids`, as a memory map of an unlinked temporary file."""
    import numpy as np  # not by all: whoever measures a child's memory has to be small

    with tempfile.TemporaryDirectory() as folder:
        tokens, out = pathlib.Path(folder) / "tokens.json", pathlib.Path(folder) / "logits.f32"
        tokens.write_text(json.dumps(ids))
        command = [LOGITS, model, tokens, out, "--ctx", str(context), "--threads", str(threads)]
        subprocess.run(command + ["--one-by-one"] * one_by_one, check=True)
        return np.memmap(out, np.dtype("<f4"), "r", shape=(len(ids), n_vocab))


def sparse(*arguments, **more):
    """Runs the program and parses the JSON it prints."""
    run = subprocess.run([SPARSE, *map(str, arguments)], stdout=subprocess.PIPE, check=True, **more)
    return json.loads(run.stdout)


def example(name):
    """An example of sparse-model, built."""
    target = ["-p", "sparse-model", "--example", name]
    subprocess.run(["cargo", "build", "--release", "--quiet", *target], cwd=ROOT, check=True)
    return target_folder() / "release" / "examples" / name


def json_lines(*command, **more):
    """Runs a command and parses a JSON value per line of its output."""
    run = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True, **more)
    return [json.loads(line) for line in run.stdout.splitlines()]


def sparse_lines(*arguments):
    """Runs the program and parses a JSON value per line."""
    return json_lines(SPARSE, *arguments)


def greedy(model, prompt, steps, threads=1):
    """Token ids of the greedy continuation of a text."""
    found = sparse(
        "generate", "--model", model, "--greedy", "--json", "--ignore-eos", "--max-tokens", steps,
        "--threads", threads, "--", prompt,
    )
    return found["tokens"]


def wait_with_peak(process):
    """Waits for a child; returns its peak resident bytes, which the kernel reports at its end."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args[0]} ended with {process.returncode}")
    return usage.ru_maxrss * 1024
