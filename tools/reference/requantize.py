"""Makes test models with llama.cpp's quantizer: one GGUF file per format.

    python requantize.py MODEL.gguf --out models/requant                 # the eight re-quantizations, and F32
    python requantize.py TINY-F32.gguf --out models/requant --k-formats  # every K format, all matrices ("pure")

Quantizing a file that is quantized already rounds twice; that is what makes it a test model and not a good one.
"""

import argparse
import pathlib

import llama_cpp as lib

import llama  # noqa: F401  (quietens llama.cpp)

FTYPES = {
    "F32": lib.LLAMA_FTYPE_ALL_F32,
    "F16": lib.LLAMA_FTYPE_MOSTLY_F16,
    "BF16": lib.LLAMA_FTYPE_MOSTLY_BF16,
    "Q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_1": lib.LLAMA_FTYPE_MOSTLY_Q4_1,
    "Q5_0": lib.LLAMA_FTYPE_MOSTLY_Q5_0,
    "Q5_1": lib.LLAMA_FTYPE_MOSTLY_Q5_1,
    "Q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q2_K": lib.LLAMA_FTYPE_MOSTLY_Q2_K,
    "Q3_K": lib.LLAMA_FTYPE_MOSTLY_Q3_K_S,
    "Q3_K_M": lib.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "Q4_K": lib.LLAMA_FTYPE_MOSTLY_Q4_K_S,
    "Q4_K_M": lib.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q5_K": lib.LLAMA_FTYPE_MOSTLY_Q5_K_S,
    "Q6_K": lib.LLAMA_FTYPE_MOSTLY_Q6_K,
    "IQ4_NL": lib.LLAMA_FTYPE_MOSTLY_IQ4_NL,
}
REAL = ["F32", "Q4_0", "Q5_0", "Q5_1", "Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "Q2_K"]
K_FORMATS = ["F32", "F16", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "Q4_K_M"]


def quantize(source, target, name, threads=1, pure=False):
    """Runs llama.cpp's quantizer, through a temporary name so that a broken run leaves no file."""
    params = lib.llama_model_quantize_default_params()
    params.ftype = FTYPES[name]
    params.nthread = threads
    params.allow_requantize = True
    params.pure = pure
    partial = pathlib.Path(f"{target}.part")
    status = lib.llama_model_quantize(str(source).encode(), str(partial).encode(), params)
    if status != 0:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"llama_model_quantize of {source} to {name} answers {status}")
    partial.replace(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/requant"))
    parser.add_argument("--formats", nargs="+", choices=FTYPES, default=None)
    parser.add_argument("--k-formats", action="store_true", help="the K formats, every matrix in the same one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="make files again that exist")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.model.name.removesuffix(".gguf")
    for suffix in (".Q4_1", ".F32", ".F16", "-f32", "-f16"):
        stem = stem.removesuffix(suffix)
    for name in args.formats or (K_FORMATS if args.k_formats else REAL):
        target = args.out / f"{stem}.{name}.gguf"
        if target.exists() and not args.force:
            print(f"{target} is there")
            continue
        # A mixture such as Q4_K_M picks its types by tensor, which "pure" would undo.
        quantize(args.model, target, name, args.threads, pure=args.k_formats and not name.endswith("_M"))
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
