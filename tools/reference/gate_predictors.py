"""Writes a sidecar whose predictors are made from the gates themselves: for files of `cargo xtask gen`, whose gates have a low rank.

    sparse calibrate -m MODEL --only ffn --ranks --fit-tokens 128 --tune-tokens 128 --test-tokens 128 --ctx 64
    python tools/reference/gate_predictors.py MODEL

`sparse calibrate` fits predictors to tokens, which takes hours at this size; it writes a sidecar that names the model, and this
one takes its place. A predictor is the truncated singular value decomposition of the gates. Its bias is the gate's, and --margin
deviations of what the decomposition leaves out. Heat is how often that is above zero for normally distributed inputs, which
norms come close to. Recall and density are printed, as found for random inputs.
"""

import argparse
import math
from pathlib import Path

import gguf
import numpy as np

Q8_0 = gguf.GGMLQuantizationType.Q8_0


def factors(gate, rank, random):
    """`q @ p`, close to `gate`: orthonormal columns, and what they make of it."""
    q = random.standard_normal((gate.shape[1], rank + 16), dtype=np.float32)
    for _ in range(2):
        q = np.linalg.qr(gate.T @ np.linalg.qr(gate @ q)[0])[0]
    left = np.linalg.svd(gate @ q, full_matrices=False)[0][:, :rank]
    return left, left.T @ gate


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--margin", type=float, default=1.0)
    args = parser.parse_args()
    path = args.model.with_suffix(".sparse.gguf")
    fields = gguf.GGUFReader(path).fields
    fingerprint, activation = (fields[f"sparse.model.{key}"].contents() for key in ["fingerprint", "activation"])
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(args.model).tensors}
    layers = sum(name.endswith("ffn_gate.weight") for name in tensors)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "sparse")
    writer.add_string("general.type", "sidecar")
    writer.add_uint32("sparse.version", 1)
    writer.add_string("sparse.model.fingerprint", fingerprint)
    writer.add_string("sparse.model.activation", activation)
    writer.add_array("sparse.selectors", ["low-rank"] * layers)
    writer.add_array("sparse.thresholds", [0.0] * layers)
    random = np.random.default_rng(1)
    for i in range(layers):
        weight, bias = tensors[f"blk.{i}.ffn_gate.weight"], tensors[f"blk.{i}.ffn_gate.bias"].data
        gate = gguf.dequantize(weight.data, weight.tensor_type).astype(np.float32)
        q, p = factors(gate, args.rank, random)
        known = q @ p
        shifted = (bias + args.margin * np.linalg.norm(gate - known, axis=1)).astype(np.float32)
        heat = [(1 + math.erf(z / math.sqrt(2))) / 2 for z in shifted / np.linalg.norm(known, axis=1)]
        x = random.standard_normal((gate.shape[1], 64), dtype=np.float32)
        active, named = gate @ x + bias[:, None] > 0, known @ x + shifted[:, None] > 0
        print(f"layer {i}: active {active.mean():.1%}, named {named.mean():.1%}, recall {(active & named).sum() / active.sum():.1%}", flush=True)
        writer.add_tensor(f"blk.{i}.ffn_predictor.bias", shifted)
        for name, matrix in [("p", p), ("q", q)]:
            writer.add_tensor(f"blk.{i}.ffn_predictor_{name}.weight", gguf.quantize(matrix, Q8_0), raw_dtype=Q8_0)
        writer.add_tensor(f"blk.{i}.ffn_heat", np.array(heat, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    main()
