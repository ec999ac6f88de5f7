"""Compares unpack of every weight format of run.c with gguf.quants, bit for bit.

    python3 tests/parity/formats.py            check
    python3 tests/parity/formats.py --write    write tests/goldens/formats.txt

A line of the goldens is one record: the GGML type number, its name, the bytes of one or more blocks
in hexadecimal, and the numbers in them, each as the 8 hexadecimal digits of its float32 bits.
"""

import ctypes
import enum
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

import llm

GOLDENS = llm.ROOT / "tests" / "goldens" / "formats.txt"


class Newer(enum.IntEnum):
    """Types that the package does not name."""
    Q2_0 = 42


# Formats that run.c must have.
REQUIRED = [Type.F32, Type.F16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0,
            Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL, Type.IQ4_XS,
            Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ3_XXS, Type.IQ3_S,
            Type.BF16, Type.TQ1_0, Type.TQ2_0, Type.MXFP4, Type.Q1_0, Newer.Q2_0]

# Where a block keeps its float16 scales. In random bytes they could be infinite or NaN, which no
# quantizer writes.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0], Type.TQ1_0: [52], Type.TQ2_0: [64], Type.MXFP4: [],
    Type.Q1_0: [0], Newer.Q2_0: [0],
    Type.IQ2_XXS: [0], Type.IQ2_XS: [0], Type.IQ2_S: [0], Type.IQ3_XXS: [0], Type.IQ3_S: [0],
}

# The same where a scale is an exponent of one byte: all of them are numbers.
EXPONENTS = {Type.MXFP4: 0}

# Those that the package does not unpack: d and as many bits a number, which stand for these.
DIGITS = {Type.Q1_0: (128, 1, [-1, 1]), Newer.Q2_0: (64, 2, [-1, 0, 1, 2])}

SHIM = """
#define RUN_NO_MAIN
#include "run.c"

static const Format *shim_format(int type) {
    int n = (int)(sizeof formats / sizeof formats[0]);
    return type >= 0 && type < n && formats[type].name ? &formats[type] : NULL;
}
int shim_count(void) { return (int)(sizeof formats / sizeof formats[0]); }
const char *shim_name(int type) { return shim_format(type) ? shim_format(type)->name : NULL; }
int shim_block(int type) { return shim_format(type)->block; }
int shim_bytes(int type) { return shim_format(type)->bytes; }
int shim_unpack(int type, const void *row, float *y, int n) {
    if (!shim_format(type)) return -1;
    shim_format(type)->unpack(row, y, n);
    return 0;
}
void shim_halves(const float *x, uint16_t *y, int n) {
    for (int i = 0; i < n; i++) y[i] = float_f16(x[i]);
}
"""


def build():
    """formats[] is static: the shim includes run.c to reach it."""
    source = llm.folder() / "shim.c"
    source.write_text(SHIM)
    lib = ctypes.CDLL(str(llm.compile_shared([source, llm.ROOT / "tokenizer.c"],
                                             llm.folder() / "libshim.so")))
    lib.shim_name.restype = ctypes.c_char_p
    lib.shim_halves.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    lib.shim_unpack.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    return lib


def kind_of(number):
    return Newer(number) if number in list(Newer) else Type(number)


def sizes(kind):
    """(numbers, bytes) of a block."""
    if kind in DIGITS:
        block, bits, _ = DIGITS[kind]
        return block, 2 + block * bits // 8
    block, size = GGML_QUANT_SIZES[kind]
    return block, size


def reference(kind, data):
    """The float32 bits of the numbers in these blocks."""
    if kind in DIGITS:
        _, bits, values = DIGITS[kind]
        blocks = data.reshape(-1, sizes(kind)[1])
        ones = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
        digits = ones.reshape(len(blocks), -1, bits) @ (1 << np.arange(bits))
        d = blocks[:, :2].copy().view("<f2").astype(np.float32)
        return (d * np.array(values, np.float32)[digits]).view(np.uint32).reshape(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(dequantize(data, kind)).view(np.uint32).reshape(-1)


def scale_values(how, rng, count):
    """float16 scales: finite ones of all magnitudes, the largest, subnormal ones, zeros."""
    if how == "any":
        bits = rng.integers(0, 0x7c00, count)
    elif how == "largest":
        bits = rng.choice([0x7bff, 0x7bfe, 0x7800, 0x0400], count)
    elif how == "subnormal":
        bits = rng.integers(1, 0x400, count)
    else:
        bits = np.zeros(count, np.int64)
    return (bits | rng.integers(0, 2, count) << 15).astype("<u2")


def exponents(how, rng, count):
    """Bytes that are exponents, of the same sorts; 0 to 2 give subnormal numbers."""
    low, end = {"any": (0, 256), "largest": (250, 256), "subnormal": (0, 3), "zero": (0, 1)}[how]
    return rng.integers(low, end, count, dtype=np.uint8)


def random_blocks(kind, how, rng, count):
    """(count * bytes) of random blocks whose scales are of one sort."""
    size = sizes(kind)[1]
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    data[: count // 8] = 0x00  # the smallest and the largest quants
    data[count // 8 : count // 4] = 0xff
    for offset in SCALES[kind]:
        data[:, offset : offset + 2] = scale_values(how, rng, count).view(np.uint8).reshape(-1, 2)
    if kind in EXPONENTS:
        data[:, EXPONENTS[kind]] = exponents(how, rng, count)
    return data.reshape(-1)


def all_halves(kind):
    """Every 16-bit pattern; for F32 every sign and exponent with random fractions."""
    if kind == Type.F32:
        rng = np.random.default_rng(32)
        top = np.repeat(np.arange(512, dtype=np.uint32) << 23, 16)
        return (top | rng.integers(0, 1 << 23, top.size, dtype=np.uint32)).view(np.uint8)
    return np.arange(65536, dtype="<u2").view(np.uint8)


def unpack(lib, kind, data, n):
    """Our bits of n numbers, and whether nothing behind them was written."""
    guard = 8
    y = np.full(n + guard, -1234.5, np.float32)
    data = np.ascontiguousarray(data)
    lib.shim_unpack(int(kind), data.ctypes.data, y.ctypes.data, n)
    return y[:n].view(np.uint32), bool(np.all(y[n:] == -1234.5))


def same_bits(kind, ours, theirs):
    """The first index that differs, or None. Which NaN a float16 NaN becomes is not defined."""
    different = ours != theirs
    if kind == Type.F16:
        both_nan = np.isnan(ours.view(np.float32)) & np.isnan(theirs.view(np.float32))
        different &= ~both_nan
    return int(np.argmax(different)) if different.any() else None


def compare(checks, lib, kind, label, data):
    """One long row, then short rows of 1 to 7 blocks, at odd distances from each other."""
    block, size = sizes(kind)
    total = data.size // size
    theirs = reference(kind, data)
    rows = [(0, total)] + [(start, n) for n in range(1, 8) for start in (0, n, total - n)]
    for start, n in rows:
        ours, untouched = unpack(lib, kind, data[start * size : (start + n) * size], n * block)
        wanted = theirs[start * block : (start + n) * block]
        bad = same_bits(kind, ours, wanted)
        detail = "" if bad is None else (
            f", number {bad}: {ours[bad]:08x} ({ours.view(np.float32)[bad]:g}), "
            f"gguf has {wanted[bad]:08x} ({wanted.view(np.float32)[bad]:g})")
        checks.that(bad is None and untouched,
                    f"{kind.name} {label}, {n} blocks from block {start}{detail}"
                    f"{'' if untouched else ', wrote behind the end'}")


def check_format(checks, lib, kind):
    block, size = lib.shim_block(int(kind)), lib.shim_bytes(int(kind))
    if not checks.that((block, size) == sizes(kind),
                       f"{kind.name}: block {block}, bytes {size}; gguf has {sizes(kind)}"):
        return
    before = checks.passed
    if kind in (Type.F32, Type.F16, Type.BF16):
        compare(checks, lib, kind, "all values", all_halves(kind))
    else:
        rng = np.random.default_rng(int(kind))
        for how in ("any", "largest", "subnormal", "zero"):
            compare(checks, lib, kind, f"{how} scales", random_blocks(kind, how, rng, 1024))
    print(f"{kind.name:7} {checks.passed - before} rows agree bit for bit", flush=True)


def check_halves(checks, lib):
    """float_f16, which fills the KV cache, rounds like numpy: every float16, the middles
    between two, what lies just beside them, and floats of every magnitude."""
    exact = np.arange(0x7c01, dtype=np.uint16).view(np.float16).astype(np.float64)
    exact[-1] = 65536  # where the next float16 would be, if not infinity
    middles = ((exact[1:] + exact[:-1]) / 2).astype(np.float32)
    values = np.concatenate([exact.astype(np.float32), middles,
                             np.nextafter(middles, np.float32(0)),
                             np.nextafter(middles, np.float32(np.inf)),
                             all_halves(Type.F32).view(np.float32)])
    values = np.concatenate([values, -values])
    ours = np.zeros(values.size, np.uint16)
    lib.shim_halves(values.ctypes.data, ours.ctypes.data, values.size)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = values.astype(np.float16)
    both_nan = np.isnan(ours.view(np.float16)) & np.isnan(wanted)
    wrong = (ours != wanted.view(np.uint16)) & ~both_nan
    detail = "" if not wrong.any() else (
        f", first {values[wrong][0]!r}: {ours[wrong][0]:04x}, numpy has "
        f"{wanted.view(np.uint16)[wrong][0]:04x}")
    checks.that(not wrong.any(), f"float_f16: {wrong.sum()} of {values.size} differ{detail}")


def special_values(kind):
    """Zeros, ones, ends of the subnormal and normal ranges, infinities and a few between."""
    if kind == Type.F32:
        bits = [0, 0x80000000, 1, 0x807fffff, 0x00800000, 0x3f800000, 0xbf800000, 0x40490fdb,
                0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000]
        return np.array(bits, "<u4").view(np.uint8)
    if kind == Type.BF16:
        bits = [0, 0x8000, 1, 0x807f, 0x0080, 0x3f80, 0xbf80, 0x4049, 0x7f7f, 0xff7f,
                0x7f80, 0xff80]
    else:
        bits = [0, 0x8000, 1, 0x83ff, 0x0400, 0x3c00, 0xbc00, 0x4248, 0x7bff, 0xfbff,
                0x7c00, 0xfc00]
    return np.array(bits, "<u2").view(np.uint8)


def golden_records():
    """(type, bytes): for each format a block with any scales, and two with the extreme ones."""
    for kind in REQUIRED:
        if kind not in SCALES:
            yield kind, special_values(kind)
            continue
        rng = np.random.default_rng(1000 + int(kind))
        # count // 8 blocks of zeros and of ones come first: one block of 1 is all random
        yield kind, random_blocks(kind, "any", rng, 1)
        yield kind, np.concatenate([random_blocks(kind, "largest", rng, 1),
                                    random_blocks(kind, "subnormal", rng, 1)])


def write_goldens():
    lines = [f"{int(kind)} {kind.name} {data.tobytes().hex()} "
             + "".join(f"{bits:08x}" for bits in reference(kind, data))
             for kind, data in golden_records()]
    GOLDENS.parent.mkdir(parents=True, exist_ok=True)
    GOLDENS.write_text("\n".join(lines) + "\n")
    print(f"wrote {GOLDENS.relative_to(llm.ROOT)}, {GOLDENS.stat().st_size} bytes")


def check_goldens(checks):
    """The stored goldens must say what gguf says."""
    if not checks.that(GOLDENS.exists(), "tests/goldens/formats.txt is missing; use --write"):
        return
    found = set()
    for number, line in enumerate(GOLDENS.read_text().splitlines(), 1):
        kind, name, data, values = line.split(" ")
        kind, data = kind_of(int(kind)), np.frombuffer(bytes.fromhex(data), np.uint8)
        bits = np.frombuffer(bytes.fromhex(values), ">u4")
        checks.that(name == kind.name and np.array_equal(bits, reference(kind, data)),
                    f"goldens/formats.txt line {number} is not what gguf unpacks")
        found.add(kind)
    checks.that(found == set(REQUIRED), "goldens/formats.txt does not have every format")


def main():
    if sys.argv[1:] == ["--write"]:
        write_goldens()
        return 0
    if sys.argv[1:]:
        print("usage: formats.py [--write]", file=sys.stderr)
        return 2
    checks = llm.Checks()
    check_goldens(checks)
    lib = build()
    present = [number for number in range(lib.shim_count()) if lib.shim_name(number)]
    for kind in REQUIRED:
        checks.that(int(kind) in present, f"run.c has no format {kind.name}")
    for number in present:
        kind = kind_of(number)
        if kind in SCALES or kind in REQUIRED:
            check_format(checks, lib, kind)
        else:
            checks.that(False, f"no test knows where the scales of {kind.name} are")
    check_halves(checks, lib)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
