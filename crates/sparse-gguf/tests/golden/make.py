#!/usr/bin/env python3
"""Makes the golden vectors beside this script, from implementations other than ours.

    pip install numpy gguf llama-cpp-python
    python make.py [--ggml PATH/TO/libggml-base.so]

Quantizing is done by ggml itself, through the shared library in the llama-cpp-python wheel (or the one given; on
Windows ggml-base.dll, on macOS libggml-base.dylib). Dequantizing is done by the gguf package and checked against
ggml. ggml-base is built for baseline x86-64 without fused multiply-add; builds that fuse may round a few codes
differently.

Files:
    input.f32       1024 values: 32 blocks of 32, each of another kind
    FORMAT.blocks   these values as ggml quantizes them, then blocks of random bits (512 values) with finite scales
    FORMAT.f32      all of these blocks as the gguf package dequantizes them
    tiny.gguf       a file written by the gguf package: every metadata type, three tensors, alignment 64
"""

import argparse
import ctypes
import enum
import pathlib
import re

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFValueType as V

HERE = pathlib.Path(__file__).parent

# A format that ggml has and the gguf package does not.
Q2_0 = enum.IntEnum("Type", {"Q2_0": 42}).Q2_0
SIZES = {**gguf.GGML_QUANT_SIZES, Q2_0: (64, 18)}

# Those that ggml alone decodes.
GGML_ONLY = [T.Q1_0, Q2_0]

# Where the half-precision floats of a block lie.
HALVES = {
    T.Q4_0: [0],
    T.Q4_1: [0, 2],
    T.Q5_0: [0],
    T.Q5_1: [0, 2],
    T.Q8_0: [0],
    T.Q2_K: [80, 82],
    T.Q3_K: [108],
    T.Q4_K: [0, 2],
    T.Q5_K: [0, 2],
    T.Q6_K: [208],
    T.IQ4_NL: [0],
    T.IQ4_XS: [0],
    T.MXFP4: [],
    T.TQ1_0: [52],
    T.TQ2_0: [64],
    T.Q1_0: [0],
    Q2_0: [0],
    T.IQ1_S: [0],
    T.IQ1_M: [],
    T.IQ2_XXS: [0],
    T.IQ2_XS: [0],
    T.IQ2_S: [0],
    T.IQ3_XXS: [0],
    T.IQ3_S: [0],
    T.NVFP4: [],
}


def values(rng):
    """32 blocks of 32 values."""
    ramp = np.arange(32)
    blocks = [rng.normal(0, 0.02, 32) for _ in range(8)]
    blocks += [rng.uniform(-1, 1, 32) for _ in range(4)]
    blocks += [rng.standard_t(2, 32) * 0.01 for _ in range(4)]
    blocks += [
        np.zeros(32),
        -np.zeros(32),
        np.full(32, 0.75),
        np.full(32, -0.75),
        np.where(ramp == 7, -3.0, 0.0),  # a spike of either sign
        np.where(ramp == 20, 3.0, 0.0),
        np.where(ramp % 2 == 0, 1.5, -1.5),  # extremes of equal magnitude, either sign first
        np.where(ramp % 2 == 0, -1.5, 1.5),
        # On the boundaries between codes of 4, 5 and 8 bits, symmetric and affine.
        np.clip((ramp - 16) / 2, -8, 7.5),
        ramp / 2 - 0.25,
        np.clip(ramp - 16.5, -16, 15),
        np.append(ramp[:-1] * 4 + 0.5, 127),
        rng.normal(0, 1e4, 32),  # large, small, and with scales that are subnormal or zero in half precision
        rng.normal(0, 1e-5, 32),
        rng.normal(0, 3e-7, 32),
        rng.normal(0, 1e-30, 32),
    ]
    return np.concatenate(blocks).astype(np.float32)


def random_blocks(rng, ty, count):
    """Blocks of `count` values in all, of random bits but for the exponents of their floats."""
    block_len, block_bytes = SIZES[ty]
    if ty == T.F32:
        floats = rng.integers(0, 1 << 32, count, dtype=np.uint32)
        return np.where(floats >> 23 & 0xFF == 0xFF, floats ^ 1 << 30, floats).astype("<u4").tobytes()
    if ty in (T.F16, T.BF16):
        exponent = 0x7C00 if ty == T.F16 else 0x7F80
        floats = rng.integers(0, 1 << 16, count, dtype=np.uint16)
        return np.where(floats & exponent == exponent, floats ^ 0x4000, floats).astype("<u2").tobytes()
    blocks = rng.integers(0, 256, (count // block_len, block_bytes), dtype=np.uint8)
    for at in HALVES[ty]:
        high = blocks[:, at + 1]
        blocks[:, at + 1] = np.where(high & 0x7C == 0x7C, high ^ 0x40, high)
    if ty == T.MXFP4:
        blocks[:2, 0] = [0, 1]  # subnormal scales; the last exponent is NaN, which ggml does not look for
        blocks[:, 0] = np.where(blocks[:, 0] == 255, 254, blocks[:, 0])
    if ty == T.NVFP4:  # the topmost bit of scales has no meaning; the last number is NaN, which ggml takes for zero
        blocks[:, :4] = np.minimum(blocks[:, :4] & 0x7F, 0x7E)
        blocks[0, :4] = [0, 1, 7, 8]  # zero, subnormal, the largest of them and the smallest that is not
    if ty == T.IQ1_M:  # the half-precision float is in the upper nibbles of the last eight bytes' odd ones
        high, low = blocks[:, 55], blocks[:, 53]
        blocks[:, 55] = np.where((high & 0x70 == 0x70) & (low & 0xC0 == 0xC0), high ^ 0x40, high)
    return blocks.tobytes()


class Ggml:
    """Quantizing and dequantizing by ggml."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(str(path))
        self.lib.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
        self.lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.lib.ggml_quantize_chunk.argtypes = [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]

    def quantize(self, ty, x):
        block_len, block_bytes = SIZES[ty]
        out = np.zeros(x.size // block_len * block_bytes, np.uint8)
        if ty == T.BF16:
            pointers = (a.ctypes.data_as(ctypes.c_void_p) for a in (x, out))
            self.lib.ggml_fp32_to_bf16_row_ref(*pointers, ctypes.c_int64(x.size))
            return out.tobytes()
        # One row of all values. Without an importance matrix these are the reference quantizers; some have to have one.
        ones = np.ones(x.size, np.float32)
        weights = ones.ctypes.data if self.lib.ggml_quantize_requires_imatrix(ty) else None
        n = self.lib.ggml_quantize_chunk(ty, x.ctypes.data, out.ctypes.data, 0, 1, x.size, weights)
        assert n == out.size
        return out.tobytes()

    def dequantize(self, ty, blocks, count):
        out = np.zeros(count, np.float32)
        k_quant = re.fullmatch("Q._K", ty.name)
        name = ty.name[:3].lower() + ty.name[3:] if k_quant else ty.name.lower()
        getattr(self.lib, "dequantize_row_" + name)(blocks, out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(count))
        return out


def tiny(x):
    """A file of every metadata type."""
    path = HERE / "tiny.gguf"
    w = gguf.GGUFWriter(path, "tiny")
    w.add_custom_alignment(64)
    w.add_key_value("a.u8", 200, V.UINT8)
    w.add_key_value("a.i8", -100, V.INT8)
    w.add_key_value("a.u16", 60000, V.UINT16)
    w.add_key_value("a.i16", -30000, V.INT16)
    w.add_key_value("a.u32", 4000000000, V.UINT32)
    w.add_key_value("a.i32", -2000000000, V.INT32)
    w.add_key_value("a.f32", 0.15625, V.FLOAT32)
    w.add_key_value("a.bool", True, V.BOOL)
    w.add_key_value("a.string", "naïve ☃", V.STRING)
    w.add_key_value("a.u64", 1 << 63, V.UINT64)
    w.add_key_value("a.i64", -(1 << 62), V.INT64)
    w.add_key_value("a.f64", 0.1, V.FLOAT64)
    w.add_array("b.strings", ["<s>", "", "Ġthe"])
    w.add_array("b.i32s", [1, -2, 3])
    w.add_array("b.f32s", [0.5, -1.5])
    w.add_array("b.bools", [True, False])
    w.add_array("b.nested", [[1, 2], [3]])
    w.add_tensor("norm", np.array([1.0, -2.0, 0.5], np.float32))
    w.add_tensor("weight", gguf.quants.quantize(x[:256].reshape(4, 64), T.Q8_0), raw_dtype=T.Q8_0)
    w.add_tensor("ids", np.arange(6, dtype=np.int32).reshape(1, 2, 3))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ggml", type=pathlib.Path, help="ggml's base library; default: llama-cpp-python's")
    path = parser.parse_args().ggml
    if path is None:
        import llama_cpp

        path = next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base*"))
    ggml = Ggml(path)

    rng = np.random.default_rng(20240229)
    x = values(rng)
    x.tofile(HERE / "input.f32")
    for ty in [T.F32, T.F16, T.BF16, *HALVES]:
        blocks = ggml.quantize(ty, x) + random_blocks(rng, ty, 512)
        count = len(blocks) // SIZES[ty][1] * SIZES[ty][0]
        if ty in GGML_ONLY:
            decoded = ggml.dequantize(ty, blocks, count)
        else:
            decoded = gguf.quants.dequantize(np.frombuffer(blocks, np.uint8), ty).astype(np.float32)
        assert decoded.size == x.size + 512 and np.isfinite(decoded).all(), ty
        if ty in HALVES:
            other = ggml.dequantize(ty, blocks, decoded.size)
            assert (decoded.view(np.uint32) == other.view(np.uint32)).all(), f"gguf and ggml decode {ty.name} differently"
        (HERE / f"{ty.name.lower()}.blocks").write_bytes(blocks)
        decoded.tofile(HERE / f"{ty.name.lower()}.f32")
    tiny(x)


if __name__ == "__main__":
    main()
