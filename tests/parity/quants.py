"""The block formats that export.py writes: their error, their bytes, and which matrix of a mix gets
which of them.

    python3 tests/parity/quants.py
    LLAMA_QUANTIZE=PATH python3 tests/parity/quants.py    compares with that program itself

llama.cpp's llama-quantize is the measure of the error, without an importance matrix. The constants
below are what the one in llama-cpp-python 0.3.36 left of the same numbers. The bundled model has
rows of 192 and 352 values, which K-quants do not divide, so its weights come in a wider model of
the same function, see widen().
"""

import dataclasses
import importlib.util
import math
import os
import random
import subprocess
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import dequantize, quantize

import llm
import models

FILE = llm.ROOT / "tests" / "models" / "stories.gguf"
PEER = os.environ.get("LLAMA_QUANTIZE")
PEER_NAMES = {"q4_k": "Q4_K_S", "q5_k": "Q5_K_S"}  # where it is not ours in capitals

# The error of a block of 256 values, relative to their root mean square, as a mean over all blocks
# of numbers(), with `llama-quantize --pure`. Ours may be MORE_ERROR times as large.
ERROR = {
    "gaussian": {"q4_0": 0.085574, "q5_0": 0.042531, "q5_1": 0.037819, "q8_0": 0.005342,
                 "q4_k": 0.071235, "q5_k": 0.036106, "q6_k": 0.017719},
    "heavy tails": {"q4_0": 0.123559, "q5_0": 0.062115, "q5_1": 0.047449, "q8_0": 0.007846,
                    "q4_k": 0.091035, "q5_k": 0.046080, "q6_k": 0.024272},
}
MORE_ERROR = 1.02

# Perplexity of held_out() with the weights of the wide model as llama-quantize leaves them, and the
# divergence (Kullback-Leibler, in nats) of its predictions from those of the f32 weights. In so few
# words the latter is the finer measure. Ours may be this many times as high.
QUALITY = {
    "q4_0": (1.42730, 0.004334), "q5_0": (1.42221, 0.001120), "q5_1": (1.42157, 0.000787),
    "q8_0": (1.41953, 0.000017), "q4_k": (1.42185, 0.002717), "q5_k": (1.42051, 0.000786),
    "q6_k": (1.41997, 0.000182), "q4_k_m": (1.42018, 0.000688), "q5_k_m": (1.42004, 0.000286),
}
MORE_PERPLEXITY, MORE_DIVERGENCE = 1.01, 1.1


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


export = load("export", llm.ROOT / "export.py")
BLOCKS = [name for name, row in export.FORMATS.items() if row.block > 1]


def encode(kind, values):
    """(rows, bytes)"""
    with np.errstate(all="ignore"):  # as write_tensor has it
        return export.FORMATS[kind].encode(values).reshape(len(values), -1)


def decode(kind, data):
    return dequantize(data, Type(export.FORMATS[kind].number))


def write(path, metadata, weights, kind):
    """weights: {name: array}. Returns the path."""
    tensors = {name: export.Tensor(w.shape, lambda rows, w=w: w.reshape(-1, w.shape[-1])[rows])
               for name, w in weights.items()}
    export.write_gguf(str(path), metadata, tensors, kind)
    return path


def read(path):
    """{name: (type, values)}"""
    return {t.name: (t.tensor_type, dequantize(t.data, t.tensor_type).reshape(t.shape[::-1]))
            for t in GGUFReader(path).tensors}


def peer(source, kind, pure=True):
    """What llama-quantize makes of a file in f32. Returns the path."""
    path = llm.folder() / f"peer-{kind}.gguf"
    command = [PEER, *["--pure"] * pure, str(source), str(path), PEER_NAMES.get(kind, kind.upper())]
    subprocess.run(command, check=True, capture_output=True)
    return path


# ---- blocks -------------------------------------------------------------------------------------

def numbers():
    """{name: (256, 1024)}, with the spread that weights have"""
    rng = np.random.default_rng(6)
    return {"gaussian": rng.standard_normal((256, 1024)).astype(np.float32) / 50,
            "heavy tails": rng.standard_t(3, (256, 1024)).astype(np.float32) / 50}


def relative_error(values, decoded):
    error, values = (decoded - values).reshape(-1, 256), values.reshape(-1, 256)
    return float(np.mean(np.sqrt(np.mean(error**2, axis=1) / np.mean(values**2, axis=1))))


def check_errors(checks):
    values = numbers()
    source = {f"blk.{i}.attn_q.weight": v for i, v in enumerate(values.values())}
    source = PEER and write(llm.folder() / "numbers.gguf", tiny_metadata("llama", 2), source, "f32")
    for kind in BLOCKS:
        found = read(peer(source, kind)) if PEER else {}
        theirs = {name: decoded for name, (_, decoded) in zip(values, found.values())}
        for name, v in values.items():
            error, limit = relative_error(v, decode(kind, encode(kind, v))), ERROR[name][kind]
            measured = relative_error(v, theirs[name]) if PEER else limit
            print(f"{kind} {name}: error {error:.6f}, llama-quantize {measured:.6f}", flush=True)
            checks.that(error < limit * MORE_ERROR, f"{kind}, {name}: error {error:.6f}, "
                                                    f"llama-quantize leaves {limit:.6f}")
            checks.that(abs(measured / limit - 1) < 1e-3, f"{kind}, {name}: llama-quantize leaves "
                                                          f"{measured:.6f}, not {limit:.6f}")


def check_bytes(checks):
    """The formats without a search are the reference's, byte for byte."""
    for kind in ("q8_0", "q4_0", "q5_0", "q5_1"):
        for name, v in numbers().items():
            v[0], v[1, ::3], v[2] = 0, 0.5, np.arange(1024) - 512  # many ties
            same = np.array_equal(encode(kind, v), quantize(v, Type(export.FORMATS[kind].number)))
            checks.that(same, f"{kind}, {name}: other bytes than gguf's")


def check_unusual(checks):
    """Blocks that leave a search little to find: how far their values may be off, as a share of the
    largest of the block, is half a step of the format and what scales of six bits cost."""
    ramp = np.linspace(-1, 1, 256, dtype=np.float32)
    alone = np.zeros(256, np.float32)
    alone[77] = -1
    rows = {"zeros": 0 * ramp, "ones": 0 * ramp + 1, "minus ones": 0 * ramp - 1, "one": alone,
            "ramp": ramp, "positive": ramp + 2, "negative": ramp - 2,
            "two": np.where(ramp > 0.9, 1, -1).astype(np.float32)}
    allowed = {"q8_0": 1 / 250, "q4_0": 1 / 7.9, "q5_0": 1 / 15.9, "q5_1": 1 / 30,
               "q4_k": 1 / 12, "q5_k": 1 / 22, "q6_k": 1 / 31}
    for kind in BLOCKS:
        largest = export.FORMATS[kind].largest
        for name, values in rows.items():
            for scale in (1, 1e-2, largest / 3):
                v = (values * np.float32(scale))[None]
                off = np.abs(decode(kind, encode(kind, v)) - v).max() / max(np.abs(v).max(), 1e-9)
                checks.that(off <= allowed[kind], f"{kind}: {name} x {scale:g}, off by {off:.3g}")
        for size in (1e-7, 1e-20, 1e-41, largest):
            v = np.stack([ramp, alone, rows["ones"]]) * np.float32(size)
            off = np.abs(decode(kind, encode(kind, v)) - v).max()
            checks.that(off <= max(size * allowed[kind], 2e-5),  # where a scale in f16 ends
                        f"{kind}: off by {off:g} at {size:g}")


# ---- mixes --------------------------------------------------------------------------------------

def tiny_metadata(arch, layers, heads=2, kv_heads=2, experts=0, dim=256, hidden=512):
    metadata = {"general.architecture": arch, "general.alignment": 32}
    keys = {"context_length": 512, "embedding_length": dim, "block_count": layers,
            "feed_forward_length": hidden, "attention.head_count": heads,
            "attention.head_count_kv": kv_heads, "attention.layer_norm_rms_epsilon": 1e-5}
    if experts:
        keys.update(expert_count=experts, expert_used_count=2)
    return dict(metadata, **{f"{arch}.{key}": value for key, value in keys.items()})


FINE_6, FINE_24 = [2, 5], [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
FINE_32 = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
FINE_80 = [*range(10), *range(12, 70, 3), *range(70, 80)]
EXPERTS = {word: (3, 2, 256) for word in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")}
SPLIT = ["attn_q", "attn_k", "attn_v", "attn_output"]


@dataclasses.dataclass
class Mix:
    """A model, and which of its matrices are not Q4_K in q4_k_m and Q5_K in q5_k_m."""
    name: str
    layers: int
    fine: list                                # layers where the words in six are Q6_K
    words: list                               # the matrices of a layer
    six: tuple = ("attn_v", "ffn_down")
    always: dict = dataclasses.field(default_factory=dict)  # {word: type} in the other layers
    heads: tuple = (2, 2)                     # and those of keys
    experts: int = 0
    columns: int = 256
    others: tuple = ("token_embd", "output")  # the last is Q6_K


def mixes():
    dense = [*SPLIT, "ffn_gate", "ffn_up", "ffn_down"]
    router = {"ffn_gate_inp": Type.F32}
    return [
        Mix("6 layers, tied", 6, FINE_6, dense, others=("token_embd",)),
        Mix("32 layers", 32, FINE_32, dense, heads=(4, 1)),
        Mix("80 layers", 80, FINE_80, dense),
        Mix("80 layers, shared keys", 80, FINE_80, dense, always={"attn_v": Type.Q5_K},
            heads=(8, 1)),
        Mix("fused", 24, FINE_24, ["attn_qkv", "attn_output", "ffn_up", "ffn_down"],
            six=("attn_qkv", "ffn_down")),
        Mix("8 experts", 32, FINE_32, [*SPLIT, "ffn_gate_inp", *EXPERTS], ("ffn_down_exps",),
            {"attn_k": Type.Q8_0, "attn_v": Type.Q8_0, "attn_output": Type.Q5_K, **router},
            (4, 1), 8),
        Mix("60 experts", 24, FINE_24, [*SPLIT, "ffn_gate_inp", "ffn_down_shexp", *EXPERTS],
            ("attn_v", "ffn_down_exps", "ffn_down_shexp"), router, experts=60),
        Mix("rows of 288", 6, FINE_6, dense, columns=288),
        Mix("rows of 80", 6, FINE_6, dense, columns=80),
    ]


def expected(mix, kind):
    """{name: type}"""
    base = {"q4_k_m": Type.Q4_K, "q5_k_m": Type.Q5_K}[kind]
    found = {f"blk.{layer}.{word}.weight":
             Type.Q6_K if layer in mix.fine and word in mix.six else mix.always.get(word, base)
             for layer in range(mix.layers) for word in mix.words}
    found |= {f"{word}.weight": Type.Q6_K if word == mix.others[-1] else base
              for word in mix.others}
    if mix.columns % 256:
        narrow = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
        found = {name: Type.F16 if mix.columns % 32 else narrow[t] for name, t in found.items()}
    exact = ["output_norm.weight", "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight",
             "blk.0.ffn_down_exps.bias"]
    return found | dict.fromkeys(exact, Type.F32)


def check_mixes(checks):
    for mix in mixes():
        metadata = tiny_metadata("llama", mix.layers, *mix.heads, mix.experts, mix.columns)
        rng = np.random.default_rng(7)
        for kind, file_type in (("q4_k_m", 15), ("q5_k_m", 17)):
            wanted = expected(mix, kind)
            shapes = {name: EXPERTS.get(name.split(".")[-2], (2, mix.columns)) for name in wanted}
            shapes["output_norm.weight"] = (mix.columns,)
            weights = {name: rng.standard_normal(shape).astype(np.float32)
                       for name, shape in shapes.items()}
            path = write(llm.folder() / "mix.gguf", metadata, weights, kind)
            fields = GGUFReader(path).fields
            checks.that(fields["general.file_type"].contents() == file_type,
                        f"{kind}: another general.file_type than {file_type}")
            files = {"export.py": path}
            if PEER:
                source = write(llm.folder() / "mix-f32.gguf", metadata, weights, "f32")
                files["llama-quantize"] = peer(source, kind, pure=False)
            for program, path in files.items():
                types = {t.name: t.tensor_type for t in GGUFReader(path).tensors}
                wrong = [f"{name} is {types.get(name, 'missing')!r}, expected {t!r}"
                         for name, t in wanted.items() if types.get(name) != t]
                checks.that(not wrong, f"{program}, {mix.name}, {kind}: {len(wrong)} matrices, "
                                       f"such as {wrong[:1]}")
    export.notes.clear()


def check_spelling(checks):
    for text, kind in (("q4_k", "q4_k"), ("Q6_K", "q6_k"), ("q4_K_m", "q4_k_m"),
                       ("Q5_K_M", "q5_k_m"), ("Q5_1", "q5_1"), ("F16", "f16")):
        before, sys.argv = sys.argv, ["export.py", "model", "--type", text]
        found = export.parse_options().type
        sys.argv = before
        checks.that(found == kind, f"--type {text} is {found}, expected {kind}")


# ---- a model ------------------------------------------------------------------------------------

def widen(paper):
    """The bundled model with rows of 256 and 512 values instead of 192 and 352, which computes the
    same: (metadata, weights).

    The norms' weights go into the matrices behind them, after which the residual stream may be
    turned by any orthogonal matrix: by one of 256 x 256, so that all its values are in use. A head
    or a neuron of the FFN may be split into two that each add half. A mean of squares over 256
    values in place of 192 is smaller, so the norms' weights and epsilon are too.
    """
    dim, more, shrink = 192, 256, 192 / 256
    turn = np.linalg.qr(np.random.default_rng(8).standard_normal((more, more)))[0][:dim]

    def split(count, extra):
        """Which of the old rows the new ones are, and how much of it they add."""
        share = np.where(np.arange(count + extra) < count - extra, 1, 0.5)
        return np.r_[np.arange(count), np.arange(count - extra, count)], share

    def split_heads(count, extra):
        heads, share = split(count, extra)
        return (heads[:, None] * 32 + np.arange(32)).reshape(-1), share.repeat(32)

    def into(name, norm):
        return w[name] * w[norm] @ turn

    w, (q, q_share), (kv, _), (ffn, ffn_share) = (
        paper.w, split_heads(6, 2), split_heads(3, 1), split(352, 160))
    wide = {"token_embd.weight": w["token_embd.weight"] @ turn}
    for i in range(6):
        attention, feed, down = (f"blk.{i}.{word}.weight" for word in
                                 ("attn_norm", "ffn_norm", "ffn_down"))
        for word, norm, order in (("attn_q", attention, q), ("attn_k", attention, kv),
                                  ("attn_v", attention, kv), ("ffn_gate", feed, ffn),
                                  ("ffn_up", feed, ffn)):
            wide[f"blk.{i}.{word}.weight"] = into(f"blk.{i}.{word}.weight", norm)[order]
        out = f"blk.{i}.attn_output.weight"
        wide[out] = turn.T @ w[out][:, q] * q_share
        wide[down] = turn.T @ w[down][:, ffn] * ffn_share
        wide[attention] = wide[feed] = np.full(more, math.sqrt(shrink))
    wide["output.weight"] = into("token_embd.weight", "output_norm.weight")
    wide["output_norm.weight"] = np.full(more, math.sqrt(shrink))
    metadata = tiny_metadata("llama", 6, 8, 4)
    metadata.update({"llama.attention.layer_norm_rms_epsilon":
                     paper.meta["attention.layer_norm_rms_epsilon"] * shrink,
                     "llama.attention.key_length": 32, "llama.attention.value_length": 32,
                     "llama.rope.dimension_count": 32, "llama.rope.freq_base": 10000.0,
                     "llama.vocab_size": 1536})
    return metadata, {name: values.astype(np.float32) for name, values in wide.items()}


def held_out(model):
    """Token ids of stories that the model was not trained on."""
    corpus = load("corpus", llm.ROOT / "tests" / "models" / "corpus.py")
    rnd = random.Random(9)
    texts = [corpus.story(rnd, held=True)["text"] for _ in range(24)]
    return [[model.info.bos, *model.encode(text, llm.BEGIN)] for text in texts]


def predictions(path, stories):
    """The logits of each story, (tokens, vocabulary)."""
    with llm.Model(path) as model, model.session(cache="f32", context=512) as session:
        for tokens in stories:
            session.rewind(0)
            yield session.eval_all(tokens)


def log_softmax(logits):
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def perplexity(stories, logits):
    chosen = [log_softmax(l)[np.arange(len(tokens) - 1), tokens[1:]]
              for tokens, l in zip(stories, logits)]
    return math.exp(-np.concatenate(chosen).mean())


def divergence(reference, logits):
    sums = []
    for r, l in zip(map(log_softmax, reference), map(log_softmax, logits)):
        sums.append((np.exp(r) * (r - l)).sum(axis=1))
    return float(np.concatenate(sums).mean())


def unpacked(path, metadata):
    """The file with its weights in f32."""
    weights = {name: values for name, (_, values) in read(path).items()}
    return write(f"{path}.f32", metadata, weights, "f32")


def check_file(checks, kind, path, stories, exact):
    """run.c reads the blocks as gguf does."""
    models.check_logits(checks, f"{kind} and the same weights in f32",
                        np.concatenate(list(predictions(path, stories))), np.concatenate(exact),
                        models.FAST_TYPICAL, models.FAST_LARGEST)
    with models.kernels("portable"):
        logits, = predictions(path, stories[:1])
    models.check_logits(checks, f"{kind} and the same weights in f32, portable", logits, exact[0],
                        models.TYPICAL["f32"], models.LARGEST["f32"])


def check_quality(checks, kind, ours, theirs):
    """Both are (perplexity, divergence); theirs is None without llama-quantize."""
    stored = QUALITY[kind]
    print(f"{kind}: perplexity {ours[0]:.5f}, divergence {ours[1]:.6f}; "
          f"llama-quantize {(theirs or stored)[0]:.5f}, {(theirs or stored)[1]:.6f}", flush=True)
    for what, mine, limit, more in zip(("perplexity", "divergence"), ours, stored,
                                       (MORE_PERPLEXITY, MORE_DIVERGENCE)):
        checks.that(mine < limit * more,
                    f"{kind}: {what} {mine:.6g}, of llama-quantize {limit:.6g}")
    checks.that(not theirs or np.allclose(theirs, stored, rtol=3e-2),
                f"{kind}: llama-quantize has {theirs}, not {stored}")


def check_model(checks):
    with llm.Model(FILE) as model:
        stories = held_out(model)
    metadata, weights = widen(models.Paper(FILE))
    source = write(llm.folder() / "f32.gguf", metadata, weights, "f32")
    original = list(predictions(source, stories))
    bundled = perplexity(stories, predictions(FILE, stories))
    wide = perplexity(stories, original)
    print(f"perplexity of the bundled model {bundled:.5f}, wide {wide:.5f}", flush=True)
    checks.that(abs(wide / bundled - 1) < 2e-3, f"perplexity {bundled:.5f} became {wide:.5f}")
    for kind in [*BLOCKS, *export.MIXES]:
        path, theirs = write(llm.folder() / f"{kind}.gguf", metadata, weights, kind), None
        exact = list(predictions(unpacked(path, metadata), stories))
        check_file(checks, kind, path, stories, exact)
        if PEER:
            file = peer(source, kind, pure=kind not in export.MIXES)
            same = all(read(path)[name][0] == t for name, (t, _) in read(file).items())
            checks.that(same, f"{kind}: llama-quantize chooses other types")
            logits = list(predictions(unpacked(file, metadata), stories))
            theirs = perplexity(stories, logits), divergence(original, logits)
        check_quality(checks, kind, (perplexity(stories, exact), divergence(original, exact)),
                      theirs)


def main():
    checks = llm.Checks()
    if not PEER:
        checks.skip("LLAMA_QUANTIZE does not name that program: constants in its place")
    check_errors(checks)
    check_bytes(checks)
    check_unusual(checks)
    check_mixes(checks)
    check_spelling(checks)
    check_model(checks)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
