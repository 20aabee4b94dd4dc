#!/usr/bin/env python3
"""Makes network.ptx from network.cu. Needs no NVIDIA card, only the library NVRTC 11.8, for example from the
Python package nvidia-cuda-nvrtc-cu11 of version 11.8.89:

    python3 make_ptx.py PATH/TO/libnvrtc.so.11.2 PATH/TO/libnvrtc-builtins.so.11.8

11.8 on purpose: it writes PTX 7.8, which drivers from 520 on read. A newer NVRTC writes PTX that only newer
drivers read.
"""

import ctypes
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
source = (HERE / "network.cu").read_bytes()

ctypes.CDLL(sys.argv[2], mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(sys.argv[1])


def check(result):
    if result != 0:
        sys.exit(f"NVRTC answers {result}")


def text(size_of, get):
    size = ctypes.c_size_t()
    check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    check(get(program, buffer))
    return buffer.value.decode()


program = ctypes.c_void_p()
check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"network.cu", 0, None, None))
options = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_50")
compiled = nvrtc.nvrtcCompileProgram(program, 1, options)
log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
if log.strip():
    print(log, file=sys.stderr)
check(compiled)
ptx = text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)

fingerprint = 0xCBF29CE484222325  # FNV-1a; a test holds the PTX against the source by it
for byte in source:
    fingerprint = (fingerprint ^ byte) * 0x100000001B3 % 2**64
body = re.sub(r"[ \t]+$", "", ptx, flags=re.MULTILINE).strip()
(HERE / "network.ptx").write_text(f"// network.cu {fingerprint:016x}\n{body}\n")
