"""Peak resident memory of sentence embeddings, ONNX Runtime's and ours, on the same model folder.

    python embedding_memory.py MODEL_FOLDER [--threads 1] [--onnx FILE] [--json FILE]

Each figure is the peak of a process that loads the model and embeds one batch. Of ONNX Runtime's, which runs in Python on ids
that are there already, what Python and the imported packages took before the model was opened is left out. Needs
requirements-embeddings.txt.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import ours

CASES = [(1, 16), (32, 256)]


def runtime_here(onnx, threads, batch, tokens):
    """ONNX Runtime's peak in this process, which does nothing else."""
    import numpy as np
    import onnxruntime

    from compare_memory import resident

    ids = np.full((batch, tokens), 2000)
    before = resident("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return resident("VmHWM") - before


def ours_here(program, model, form, threads, batch, tokens):
    """Our peak. This process has imported nothing: a child's peak counts that of the process that it was forked from."""
    text = " ".join(["time"] * (tokens - 2))
    command = [program, model, form, str(threads), "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write("\n".join([text] * batch))
    process.stdin.close()
    found = json.loads(process.stdout.read())
    assert found["tokens"] == batch * tokens, found
    return ours.wait_with_peak(process)


def alone(*arguments):
    command = [sys.executable, __file__, "--here", *map(str, arguments)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def here(side, *arguments):
    if side == "ours":
        program, model, form, *numbers = arguments
        return ours_here(program, model, form, *map(int, numbers))
    onnx, *numbers = arguments
    return runtime_here(onnx, *map(int, numbers))


def main():
    if sys.argv[1:2] == ["--here"]:
        print(here(*sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--onnx", type=pathlib.Path, help="keep the exported model here, or take it from here")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here, too")
    args = parser.parse_args()
    program = ours.example("embed_speed")
    with tempfile.TemporaryDirectory() as folder:
        onnx = args.onnx or pathlib.Path(folder) / "model.onnx"
        if not onnx.exists():
            from embedding_speed import export

            export(args.model, onnx)
        files = {"f32": onnx, "int8": onnx.with_suffix(".int8.onnx")}
        figures = []
        print("peak MB     batch tokens     ours  ONNX Runtime  ratio")
        for form, file in files.items():
            for batch, tokens in CASES:
                mine = alone("ours", program, args.model, form, args.threads, batch, tokens)
                theirs = alone("runtime", file, args.threads, batch, tokens)
                print(f"{form:10} {batch:6} {tokens:6} {mine / 1e6:8.0f} {theirs / 1e6:13.0f} {mine / theirs:6.2f}", flush=True)
                figures.append({"format": form, "batch": batch, "tokens": tokens, "ours": mine, "onnxruntime": theirs})
        if args.json:
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
