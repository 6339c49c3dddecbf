"""A copy of ONNX Runtime that does not see AVX-512 and VNNI, which it has no switch for: to compare AVX2 with AVX2.

    python without_avx512.py FOLDER
    SPARSE_SIMD=avx2 LD_PRELOAD=FOLDER/hide.so PYTHONPATH=FOLDER python embedding_speed.py MODEL_FOLDER

Linux on x86-64. Every `cpuid` of the copy becomes a trap, which the preloaded library answers without those features. Needs
binutils and a C compiler.
"""

import pathlib
import re
import shutil
import subprocess
import sys

import onnxruntime

HIDE = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint32_t leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(part));
    if (leaf == 7 && part == 0) {
        /* AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS,
           VP2INTERSECT, AMX and FP16. */
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    }
    if (leaf == 7 && part == 1) {
        /* AVX-VNNI, AVX-512 BF16; AVX-VNNI-INT8 and AVX-NE-CONVERT. */
        a &= ~(BIT(4) | BIT(5));
        d &= ~(BIT(4) | BIT(5));
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 1; /* over the second byte of what was `cpuid` */
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {0};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGTRAP, &action, 0);
}
"""


def text_of(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, check=True, text=True).stdout


def patch(library):
    """Puts a trap in place of every `cpuid` of the code; returns how many there are."""
    section = r"\[\s*\d+\] (\.text\S*)\s+\S+\s+([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)"
    sections = [
        (int(start, 16), int(offset, 16), int(size, 16))
        for _, start, offset, size in re.findall(section, text_of("readelf", "-SW", str(library)))
    ]
    code = text_of("objdump", "-d", "--no-show-raw-insn", str(library))
    places = [int(at, 16) for at in re.findall(r"^\s*([0-9a-f]+):\s+cpuid", code, re.MULTILINE)]
    content = bytearray(library.read_bytes())
    for place in places:
        at = next(place - start + offset for start, offset, size in sections if 0 <= place - start < size)
        assert content[at : at + 2] == b"\x0f\xa2"
        content[at : at + 2] = b"\xcc\x90"  # int3, nop
    library.write_bytes(content)
    return len(places)


def main():
    folder = pathlib.Path(sys.argv[1])
    copy = folder / "onnxruntime"
    shutil.copytree(pathlib.Path(onnxruntime.__file__).parent, copy)
    places = sum(patch(library) for library in copy.glob("capi/*pybind11_state*.so"))
    assert places, "no cpuid in ONNX Runtime's library"
    compile_ = ["cc", "-O2", "-shared", "-fPIC", "-x", "c", "-o", str(folder / "hide.so"), "-"]
    subprocess.run(compile_, input=HIDE, text=True, check=True)
    print(f"{places} places; use with LD_PRELOAD={folder}/hide.so PYTHONPATH={folder}")


if __name__ == "__main__":
    main()
