"""What GGUF's formats cost on a model's feed-forward weights: signal-to-noise ratios in dB, as a Markdown table.

    python lane_snr.py models/all-MiniLM-L6-v2 --gguf minilm-ffn.gguf
    python lane_snr.py models/SmolLM2-135M-Instruct.Q4_1.gguf

ggml quantizes, without importance, and gguf-py decodes; energies of all layers are added before they are divided. Formats
in super-blocks of 256 are left out where rows do not have whole ones. `--gguf` writes a folder's matrices into a file, in
f32 and under llama.cpp's names, for the other half of the table, the lanes:

    cargo run --release -p sparse-precision --example lane_costs -- minilm-ffn.gguf ffn_down ffn_up
"""

import argparse
import ctypes
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import load_file

FORMATS = [T.Q2_K, T.Q3_K, T.Q4_0, T.Q4_K, T.Q5_0, T.Q5_K, T.Q6_K, T.Q8_0]
PARTS = ["ffn_down", "ffn_gate", "ffn_up"]
# What the transformers library calls these parts of an encoder.
NAMES = {"ffn_down": "output.dense", "ffn_up": "intermediate.dense"}


class Ggml:
    """ggml's quantizer, in llama-cpp-python's wheel or wherever `path` says."""

    def __init__(self, path):
        if path is None:
            import llama_cpp

            path = next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base*"))
        self.quantize = ctypes.CDLL(str(path)).ggml_quantize_chunk
        self.quantize.restype = ctypes.c_size_t
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        self.quantize.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]

    def round_trip(self, ty, x):
        """The rows of `x` as the format has them."""
        rows, cols = x.shape
        block_len, block_bytes = gguf.GGML_QUANT_SIZES[ty]
        blocks = np.zeros((rows, cols // block_len * block_bytes), np.uint8)
        written = self.quantize(ty, x.ctypes.data, blocks.ctypes.data, 0, rows, cols, None)
        assert written == blocks.size, f"{written} bytes of {ty.name}, expected {blocks.size}"
        return gguf.quants.dequantize(blocks, ty)


def matrices(model):
    """Names as llama.cpp has them and f32 matrices `[rows x cols]` of the feed-forward layers."""
    if model.is_dir():
        tensors = load_file(model / "model.safetensors")
        for layer in range(sum(name.endswith("intermediate.dense.weight") for name in tensors)):
            for part, name in NAMES.items():
                yield f"blk.{layer}.{part}.weight", tensors[f"encoder.layer.{layer}.{name}.weight"]
        return
    for tensor in gguf.GGUFReader(model).tensors:
        if any(f".{part}." in tensor.name for part in PARTS):
            yield tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="sentence-transformers folder, or GGUF file")
    parser.add_argument("--gguf", type=pathlib.Path, help="write the matrices to this file")
    parser.add_argument("--ggml", type=pathlib.Path, help="ggml's base library; default: llama-cpp-python's")
    args = parser.parse_args()
    ggml = Ggml(args.ggml)
    found = {name: np.ascontiguousarray(x, np.float32) for name, x in matrices(args.model)}
    parts = {part: [x for name, x in found.items() if f".{part}." in name] for part in PARTS}
    parts = {part: xs for part, xs in parts.items() if xs}
    if args.gguf:
        writer = gguf.GGUFWriter(args.gguf, "bert")
        for name, x in found.items():
            writer.add_tensor(name, x)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    print("| | bits |", " | ".join(f"{part} ({len(xs)} of {xs[0].shape})" for part, xs in parts.items()), "|")
    print("|---|---|" + "---|" * len(parts))
    for ty in FORMATS:
        block_len, block_bytes = gguf.GGML_QUANT_SIZES[ty]
        row = []
        for xs in parts.values():
            if xs[0].shape[1] % block_len:
                row.append("")
                continue
            signal = sum(np.sum(np.square(x, dtype=np.float64)) for x in xs)
            errors = sum(np.sum(np.square(x.astype(np.float64) - ggml.round_trip(ty, x))) for x in xs)
            row.append(f"{10 * np.log10(signal / errors):.2f}")
        print(f"| {ty.name} | {8 * block_bytes / block_len:.2f} |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
