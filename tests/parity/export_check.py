#!/usr/bin/env python3
"""Checks export.py against other programs: PyPI's gguf reads what it wrote and quantizes the same
numbers, torch and transformers (where they are installed) make its inputs and tell the logits.

    python3 tests/parity/export_check.py

Needs numpy and gguf. Prints "N passed, N failed, N skipped"; the exit code is 1 if any failed.
"""
import base64
import copy
import importlib.util
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLE = os.path.join(os.path.dirname(ROOT), "shared", "data", "stories260k")
RUN = os.path.join(ROOT, "run")
SPACE = "\u2581"
random = np.random.default_rng(1)
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(condition, what):
    counts["passed" if condition else "failed"] += 1
    if not condition:
        print("FAILED: " + what)


def skip(what):
    counts["skipped"] += 1
    print("skipped: " + what)


def installed(name):
    return importlib.util.find_spec(name) is not None


def load_export():
    spec = importlib.util.spec_from_file_location("export", os.path.join(ROOT, "export.py"))
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


def run(*arguments, python=(os.path.join(ROOT, "export.py"),)):
    """Returns the exit code and the lines of stderr."""
    done = subprocess.run([sys.executable, *python, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    check(done.stdout == b"", "{} writes to stdout: {}".format(arguments, done.stdout[:100]))
    return done.returncode, done.stderr.decode().splitlines()


def peak_memory(*arguments):
    """Runs an export; returns its peak in bytes, or None where /proc does not tell. What wait4 says
    is of no use: it never is less than the memory of this process."""
    wrapper = """if True:
        import atexit, runpy, sys
        def tell():
            for line in open("/proc/self/status"):
                if line.startswith("VmHWM"):
                    print(line, file=sys.stderr)
        atexit.register(tell)
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")"""
    code, lines = run(os.path.join(ROOT, "export.py"), *arguments, python=("-c", wrapper))
    check(code == 0, "{}: {} {}".format(arguments, code, lines))
    peaks = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else None


def export(source, *more):
    """Exports to a file beside the source, as f32 unless more says otherwise; returns its path, or
    None and a failed check."""
    path = source.rstrip("/") + ".out.gguf"
    code, lines = run(source, "-o", path, *(more or ("--type", "f32")))
    check(code == 0, "{} {} exits with {}: {}".format(source, more, code, lines))
    return path if code == 0 else None


def read(path):
    """Returns the metadata and the tensors (as numpy arrays, raw for blocks) of a GGUF file."""
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {t.name: (t.data, t.tensor_type, [int(n) for n in t.shape[::-1]])
               for t in reader.tensors}
    check(all(t.data_offset % 32 == 0 for t in reader.tensors), path + " is not aligned")
    return fields, tensors


def refused(path):
    """What run says against a file, "" if it takes it; None where run is not built."""
    if not os.path.exists(RUN):
        return None
    done = subprocess.run([RUN, path, "-j", "1", "-t", "0", "-i", "ab", "-n", "1"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = done.stderr.decode(errors="replace").strip()
    return "" if done.returncode == 0 or "no vocabulary" in said else said


def says(source, *words):
    """An export that must go well and print notes with all words. Returns metadata and tensors."""
    path = source + ".out.gguf"
    code, lines = run(source, "-o", path, "--type", "f32")
    text = " ".join(lines)
    check(code == 0 and all(word in text for word in words), f"{words}: {code}, {lines}")
    check(not refused(path), f"run refuses a file: {refused(path)}")
    return read(path)


def equal(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# ---- number formats ------------------------------------------------------------------------------


def check_formats(module):
    numbers = random.standard_normal((64, 96), np.float32)
    numbers[0] = 0
    numbers[1, :32] = 0
    numbers[2] = np.arange(96) - 48  # many ties in rounding
    numbers[3] = np.where(np.arange(96) % 2, 2.5, -2.5)
    numbers[4] *= np.float32(1e-30)
    numbers[5] *= np.float32(1e4)
    numbers[6] = np.float32(1e-41)   # denormals
    numbers[7, ::3] = -numbers[7, 0]
    for scale in (1, 1e-3, 300):
        for name, kind in (("f32", Type.F32), ("f16", Type.F16), ("bf16", Type.BF16),
                           ("q8_0", Type.Q8_0), ("q4_0", Type.Q4_0)):
            values = (numbers * np.float32(scale)).astype(np.float32)
            with np.errstate(all="ignore"):
                ours = module.FORMATS[name].encode(values)
                theirs = gguf.quants.quantize(values, kind)
            check(ours.tobytes() == theirs.tobytes(), "{} x {}: not as gguf".format(name, scale))
            check(module.FORMATS[name].number == kind, name + " has another number in gguf")
    halves = (np.arange(0, 1 << 16, dtype=np.uint32) << 16) + 0x8000  # exactly between two bf16
    halves = halves.view(np.float32)
    halves = halves[np.isfinite(halves) & (np.abs(halves) < 3e38)].reshape(-1, 1)
    check(equal(module.FORMATS["bf16"].encode(halves).view(np.uint8).reshape(-1),
                gguf.quants.quantize(halves, Type.BF16).reshape(-1)), "bf16 ties differ from gguf")


# ---- llama2.c ------------------------------------------------------------------------------------

STORIES = dict(dim=64, hidden=96, layers=2, heads=4, kv_heads=2, vocab=300, context=16)


def stories_shapes(s):
    kv = s["dim"] // s["heads"] * s["kv_heads"]
    return {"token_embd": (s["vocab"], s["dim"]), "attn_norm": (s["dim"],),
            "attn_q": (s["dim"], s["dim"]), "attn_k": (kv, s["dim"]), "attn_v": (kv, s["dim"]),
            "attn_output": (s["dim"], s["dim"]), "ffn_norm": (s["dim"],),
            "ffn_gate": (s["hidden"], s["dim"]), "ffn_down": (s["dim"], s["hidden"]),
            "ffn_up": (s["hidden"], s["dim"]), "output_norm": (s["dim"],),
            "output": (s["vocab"], s["dim"])}


def random_stories(s):
    weights = {}
    for kind, shape in stories_shapes(s).items():
        single = kind in ("token_embd", "output_norm", "output")
        for layer in [None] if single else range(s["layers"]):
            name = kind if single else "blk.{}.{}".format(layer, kind)
            weights[name] = random.standard_normal(shape, np.float32)
    return weights


def of_kind(weights, kind):
    return [w for name, w in weights.items() if name == kind or name.endswith("." + kind)]


def write_stories(path, version, s, weights, shared, group=32):
    """llama2.c's formats as its own exporter writes them."""
    numbers = [s[k] for k in ("dim", "hidden", "layers", "heads", "kv_heads", "vocab", "context")]
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up")
    decoded = dict(weights)
    with open(path, "wb") as file:
        def put(kind, grouped=False):
            for name, w in weights.items():
                if name == kind or name.endswith("." + kind):
                    if grouped:
                        g = w.reshape(-1, group)
                        scale = np.abs(g).max(1) / np.float32(127)
                        q = np.round(g / scale[:, None]).astype(np.int8)
                        decoded[name] = (q * scale[:, None]).astype(np.float32).reshape(w.shape)
                        file.write(q.tobytes() + scale.astype("<f4").tobytes())
                    else:
                        file.write(w.astype("<f4").tobytes())

        if version == 0:
            numbers[5] *= 1 if shared else -1
            file.write(struct.pack("<7i", *numbers))
            for kind in ("token_embd", "attn_norm", *matrices[:4], "ffn_norm", *matrices[4:],
                         "output_norm"):
                put(kind)
            file.write(bytes(s["context"] * s["dim"] // s["heads"] * 4))
        else:
            flags = struct.pack("<Bi", shared, group if version == 2 else 0)
            head = struct.pack("<Ii7i", 0x616B3432, version, *numbers) + flags
            file.write(head.ljust(256, b"\0"))
            for kind in ("attn_norm", "ffn_norm", "output_norm"):
                put(kind)
            for kind in ("token_embd", *matrices):
                put(kind, version == 2)
        if not shared:
            put("output", version == 2)
    return decoded


def stories_tokens(size):
    """(text as in GGUF, score, type) for a vocabulary like llama2.c's."""
    tokens = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    tokens += [("<0x%02X>" % b, 0, 6) for b in range(256)]
    tokens += [(SPACE + chr(97 + i % 26) + str(i), -float(i), 1) for i in range(size - len(tokens))]
    return tokens


def write_tokenizer_bin(path, tokens):
    with open(path, "wb") as file:
        file.write(struct.pack("<I", 8))
        for i, (text, score, _) in enumerate(tokens):
            text = ("\n%s\n" % text if i in (1, 2) else text.replace(SPACE, " ")).encode()
            file.write(struct.pack("<fI", score, len(text)) + text)


def check_llama2c(folder):
    s, weights, tokens = STORIES, random_stories(STORIES), stories_tokens(STORIES["vocab"])
    write_tokenizer_bin(os.path.join(folder, "tokenizer.bin"), tokens)
    for shared in (0, 1):
        files = []
        for version in (0, 1, 2):
            source = os.path.join(folder, "v{}.bin".format(version))
            decoded = write_stories(source, version, s, weights, shared)
            path = export(source)
            fields, tensors = read(path)
            want = {n + ".weight": w for n, w in decoded.items() if n != "output" or not shared}
            check(set(tensors) == set(want), "v{}: other tensors".format(version))
            check(all(equal(tensors[n][0], want[n]) for n in want), "v{}: values".format(version))
            with open(path, "rb") as file:
                files.append(file.read())
        check(files[0] == files[1], "v0 and v1 give different files")
    check(list(tensors)[:2] == ["token_embd.weight", "blk.0.attn_norm.weight"], "tensor order")
    expected = {
        "general.architecture": "llama", "general.alignment": 32, "general.file_type": 0,
        "llama.context_length": 16, "llama.embedding_length": 64, "llama.block_count": 2,
        "llama.feed_forward_length": 96, "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0, "llama.vocab_size": 300, "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [t[0] for t in tokens],
        "tokenizer.ggml.scores": [t[1] for t in tokens],
        "tokenizer.ggml.token_type": [t[2] for t in tokens], "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": True}
    for key, value in expected.items():
        check(fields.get(key) == value, "{} is {}".format(key, str(fields.get(key))[:200]))
    check(abs(fields["llama.attention.layer_norm_rms_epsilon"] - 1e-5) < 1e-10, "epsilon")

    # A group may run over the end of a row: 96 columns in groups of 64.
    decoded = write_stories(source, 2, s, weights, 0, 64)
    tensors = read(export(source))[1]
    check(all(equal(tensors[n + ".weight"][0], w) for n, w in decoded.items()), "v2, groups of 64")

    odd = dict(s, hidden=72)
    weights = random_stories(odd)
    write_stories(source, 1, odd, weights, 1)
    for name, kind in (("f16", Type.F16), ("bf16", Type.BF16), ("q8_0", Type.Q8_0),
                       ("q4_0", Type.Q4_0)):
        fields, tensors = read(export(source, "--type", name))
        for tensor, (data, found, shape) in tensors.items():
            w = weights[tensor[:-len(".weight")]]
            want = Type.F32 if w.ndim == 1 else kind
            if want in (Type.Q8_0, Type.Q4_0) and w.shape[1] % 32:
                want = Type.F16
            check(found == want and shape == list(w.shape), "{} {} {}".format(tensor, found, shape))
            check(data.tobytes() == gguf.quants.quantize(w, want).tobytes(), tensor + " in " + name)
        check(fields["general.file_type"] == {"f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2}[name],
              "file type of " + name)


def check_sample(folder):
    if not os.path.isdir(SAMPLE):
        return skip("the stories260k sample is not here")
    paths = [os.path.join(folder, "sample{}.gguf".format(v)) for v in (0, 1)]
    for version, path in enumerate(paths):
        source = os.path.join(SAMPLE, "checkpoint_v{}.bin".format(version))
        check(run(source, "-o", path)[0] == 0, "sample v{}".format(version))
    files = [open(path, "rb").read() for path in paths]
    check(files[0] == files[1], "sample: v0 and v1 give different files")
    fields, tensors = read(paths[0])
    raw = np.fromfile(os.path.join(SAMPLE, "checkpoint_v0.bin"), "<f4", 512 * 64, offset=28)
    raw = raw.astype("<f2").reshape(512, 64)
    check(equal(tensors["token_embd.weight"][0], raw), "sample values")
    check(fields["tokenizer.ggml.tokens"][13] == "<0x0A>", "sample tokens")


# ---- Hugging Face without its libraries ----------------------------------------------------------

NAMES = {"token_embd": "model.embed_tokens", "attn_norm": "input_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "output_norm": "model.norm", "output": "lm_head"}
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "vocab_size": 300, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
          "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False}


def huggingface_weights(config):
    """{Hugging Face's name: values} of random weights."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    dim, hidden = config["hidden_size"], config["intermediate_size"]
    shapes = {"attn_norm": (dim,), "attn_q": (q, dim), "attn_k": (kv, dim), "attn_v": (kv, dim),
              "attn_output": (dim, q), "ffn_norm": (dim,), "ffn_gate": (hidden, dim),
              "ffn_up": (hidden, dim), "ffn_down": (dim, hidden)}
    plain = {"token_embd": (config["vocab_size"], dim), "output_norm": (dim,),
             "output": (config["vocab_size"], dim)}
    weights = {NAMES[name] + ".weight": random.standard_normal(shape, np.float32)
               for name, shape in plain.items()}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in shapes.items():
            full = "model.layers.{}.{}.weight".format(layer, NAMES[name])
            weights[full] = random.standard_normal(shape, np.float32)
    return weights


def store(values, kind):
    """float32 as the bytes of F32, F16 or BF16, and the float32 that these mean."""
    if kind == "BF16":
        data = gguf.quants.quantize(values, Type.BF16)
        return data.tobytes(), gguf.quants.dequantize(data, Type.BF16).reshape(values.shape)
    data = values.astype({"F32": "<f4", "F16": "<f2"}[kind])
    return data.tobytes(), data.astype(np.float32)


def write_safetensors(path, weights, kind="F32", change=None):
    """change, a function, may spoil the header: it gets the dict and returns the header's bytes."""
    table, parts, offset, meant = {"__metadata__": {"format": "pt"}}, [], 0, {}
    for name, values in weights.items():
        data, meant[name] = store(values, kind)
        table[name] = {"dtype": kind, "shape": list(values.shape),
                       "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    header = change(table) if change else None
    header = header if header is not None else json.dumps(table).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + b"".join(parts))
    return meant


def write_json(folder, name, table):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(table, file)


def write_model(folder, config, weights=None, kind="F32", shards=1):
    """A Hugging Face directory. Returns the weights as stored."""
    os.makedirs(folder, exist_ok=True)
    weights = weights or huggingface_weights(config)
    write_json(folder, "config.json", config)
    if shards == 1:
        return write_safetensors(os.path.join(folder, "model.safetensors"), weights, kind)
    meant, places, names = {}, {}, list(weights)
    for i in range(shards):
        file = "model-{:05}-of-{:05}.safetensors".format(i + 1, shards)
        part = {name: weights[name] for name in names[i::shards]}
        meant.update(write_safetensors(os.path.join(folder, file), part, kind))
        places.update((name, file) for name in part)
    write_json(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return meant


def to_pairs(values, heads):
    """Row by row: element i of the halves of a head becomes 2i, i + d/2 becomes 2i + 1."""
    size, out = len(values) // heads, np.empty_like(values)
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = values[head * size + i]
            out[head * size + 2 * i + 1] = values[head * size + size // 2 + i]
    return out


def gguf_weights(config, weights, permute=True):
    """What the GGUF file must hold, by its names."""
    result = {}
    for name, values in weights.items():
        stem, kind = name.rsplit(".", 1)
        layer = stem.split(".")[2] if ".layers." in stem else None
        short = next(k for k, v in NAMES.items() if stem == v or stem.endswith("." + v))
        if permute and short in ("attn_q", "attn_k"):
            values = to_pairs(values, config["num_attention_heads" if short == "attn_q" else
                                             "num_key_value_heads"])
        result["{}{}.{}".format("blk.%s." % layer if layer else "", short, kind)] = values
    return result


def same_tensors(tensors, want):
    return set(tensors) == set(want) and all(equal(tensors[n][0], want[n]) for n in want)


def check_huggingface(folder):
    for kind, shards, head in (("F32", 1, None), ("F16", 3, 32), ("BF16", 2, 48)):
        config = dict(CONFIG, head_dim=head)
        source = os.path.join(folder, "plain" + kind)
        meant = write_model(source, config, None, kind, shards)
        fields, tensors = read(export(source))
        check(same_tensors(tensors, gguf_weights(config, meant)), "tensors from " + kind)
        check(fields["general.name"] == "plain" + kind, "name")
        check(fields.get("llama.attention.key_length") == head, "head size of " + kind)
        check(fields["llama.rope.dimension_count"] == (head or 16), "rotated size of " + kind)
        check(not any(key.startswith("tokenizer") for key in fields), "keys of no tokenizer")

    source = os.path.join(folder, "biased")
    config = dict(CONFIG, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    weights = huggingface_weights(config)
    for name in list(weights):
        if "_proj." in name:
            weights[name.replace("weight", "bias")] = random.standard_normal(
                weights[name].shape[0], np.float32)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    write_model(source, config, weights)
    del weights["lm_head.weight"], weights["model.layers.0.self_attn.rotary_emb.inv_freq"]
    check(same_tensors(read(export(source))[1], gguf_weights(config, weights)), "biases, tied")

    source = os.path.join(folder, "qwen2")
    config = dict(CONFIG, architectures=["Qwen2ForCausalLM"])
    weights = huggingface_weights(config)
    for name in list(weights):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            weights[name.replace("weight", "bias")] = random.standard_normal(
                weights[name].shape[0], np.float32)
    write_model(source, config, weights)
    fields, tensors = read(export(source))
    check(same_tensors(tensors, gguf_weights(config, weights, False)), "qwen2: tensors")
    check(fields["general.architecture"] == "qwen2" and "qwen2.rope.freq_base" in fields, "qwen2")


def check_scaling(folder):
    def keys(rope):
        source = os.path.join(folder, "scaled")
        write_model(source, dict(CONFIG, **rope), shared)
        fields, tensors = read(export(source))
        found = {k[11:]: v for k, v in fields.items() if k.startswith("llama.rope.")}
        found.pop("dimension_count")
        return found, tensors

    shared = huggingface_weights(CONFIG)
    check(keys({"rope_scaling": {"type": "linear", "factor": 2.0}})[0] ==
          {"freq_base": 10000.0, "scaling.type": "linear", "scaling.factor": 2.0}, "linear")
    check(keys({"rope_scaling": None})[0] == {"freq_base": 10000.0}, "no scaling")
    check(keys({"rope_theta": None, "rope_parameters": {
        "rope_type": "default", "rope_theta": 5e5}})[0] == {"freq_base": 5e5}, "rope_parameters")
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    want = {"freq_base": 10000.0, "scaling.type": "yarn", "scaling.factor": 4.0,
            "scaling.original_context_length": 32}
    check(keys({"rope_scaling": yarn})[0] == want, "yarn")
    found = keys({"rope_scaling": dict(yarn, attention_factor=1.5, beta_fast=16, beta_slow=2)})[0]
    factor = found.pop("scaling.attn_factor")
    check(abs(factor - 1.5 / (1 + 0.1 * math.log(4))) < 1e-6, "attn_factor")
    check(found == dict(want, **{"scaling.yarn_beta_fast": 16.0, "scaling.yarn_beta_slow": 2.0}),
          "yarn's betas: {}".format(found))
    found = keys({"rope_scaling": dict(yarn, mscale=1.0, mscale_all_dim=0.5)})[0]
    check(abs(found["scaling.attn_factor"] - 1 / (1 + 0.05 * math.log(4))) < 1e-6, "mscale")
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 32}
    found, tensors = keys({"rope_parameters": llama3})
    factors, kind, shape = tensors["rope_freqs.weight"]
    check(found == {"freq_base": 10000.0} and kind == Type.F32 and shape == [8], "llama3")
    for i, factor in enumerate(factors):
        wave = 2 * math.pi * 10000 ** (i / 8)
        smooth = (32 / wave - 1) / 3
        want = 1 if wave < 8 else 8 if wave > 32 else 1 / ((1 - smooth) / 8 + smooth)
        check(abs(factor - want) < 1e-5, "llama3 factor {}: {}, not {}".format(i, factor, want))


# ---- tokenizers ----------------------------------------------------------------------------------

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex=False):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": use_regex}


CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
PRE_TOKENIZERS = {
    "gpt-2": byte_level(True),
    "dbrx": [split(LLAMA3), byte_level()],
    "hunyuan": [split(LLAMA3.replace("{1,3}", "")), byte_level()],
    "smollm": [{"type": "Digits", "individual_digits": True}, byte_level(True)],
    "deepseek-llm": [split("[\r\n]"), split("\\s?[A-Za-z\u00b5\u00c0-\u00d6]+"),
                     split("\\s?[!-/:-~\uff01-\uff0f]+"), split("\\s+$"), split(CJK),
                     {"type": "Digits", "individual_digits": True}, byte_level()],
    "deepseek-coder": [split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(CJK),
                       {"type": "Digits", "individual_digits": True}, byte_level()],
    "deepseek-v3": [split("\\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                    split("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
                          "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
                          "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"), byte_level()],
    "bailingmoe": [split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
                         r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"), byte_level()],
    "lfm2": [split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                   r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s"), byte_level()],
    "default": [split("[a-z]+"), byte_level()],
}


def byte_bpe(pre, merges):
    """A tokenizer.json: two added tokens at the end, one of them special."""
    vocab = {c: i for i, c in enumerate("abcdefgh\u0120")}
    pairs = [("a", "b"), ("\u0120", "c"), ("ab", "\u0120c")]
    vocab.update({a + b: len(vocab) + i for i, (a, b) in enumerate(pairs)})
    n = len(vocab)
    return {
        "version": "1.0", "normalizer": None,
        "added_tokens": [{"id": n, "content": "<|im_end|>", "special": True},
                         {"id": n + 1, "content": "<think> ", "special": False},
                         {"id": n + 2, "content": "<|eom_id|>", "special": True}],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre} if isinstance(pre, list)
                         else pre,
        "post_processor": {"type": "Sequence", "processors": [byte_level(), {
            "type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}]}]},
        "decoder": byte_level(True),
        "model": {"type": "BPE", "byte_fallback": False, "vocab": vocab,
                  "merges": [list(p) for p in pairs] if merges else [" ".join(p) for p in pairs]}}


def check_byte_bpe(folder):
    source = os.path.join(folder, "bpe")
    config = dict(CONFIG, vocab_size=20, eos_token_id=3)
    weights = huggingface_weights(config)
    write_model(source, config, weights)
    write_json(source, "generation_config.json", {
        "do_sample": True, "temperature": 0.6, "top_p": 0.5, "top_k": 20, "min_p": 0.0,
        "repetition_penalty": 1.25, "eos_token_id": [5, 14, 12]})
    for i, (name, pre) in enumerate(PRE_TOKENIZERS.items()):
        write_json(source, "tokenizer.json", byte_bpe(pre, i % 2))
        fields = read(export(source))[0]
        check(fields["tokenizer.ggml.pre"] == name, "{} is taken for {}".format(
            name, fields["tokenizer.ggml.pre"]))
    write_json(source, "tokenizer_config.json", {
        "bos_token": {"content": "<|im_end|>"}, "eos_token": "<|im_end|>", "pad_token": None,
        "chat_template": [{"name": "tool_use", "template": "T"},
                          {"name": "default", "template": "D"}]})
    fields = read(export(source))[0]
    want = {
        "model": "gpt2", "merges": ["a b", "\u0120 c", "ab \u0120c"], "bos_token_id": 12,
        "tokens": list("abcdefgh\u0120") + ["ab", "\u0120c", "ab\u0120c", "<|im_end|>", "<think> ",
                                           "<|eom_id|>"] + ["[PAD%d]" % i for i in range(15, 20)],
        "token_type": [1] * 12 + [3, 4, 3] + [5] * 5, "eos_token_id": 5, "eot_token_id": 12,
        "eom_token_id": 14, "add_bos_token": True, "scores": None, "padding_token_id": None}
    for key, value in want.items():
        found = fields.get("tokenizer.ggml." + key)
        check(found == value, "bpe: {} is {}, not {}".format(key, found, value))
    check(fields["tokenizer.chat_template"] == "D", "template from a list")
    for key, value in (("temp", 0.6), ("top_p", 0.5), ("top_k", 20), ("penalty_repeat", 1.25),
                       ("min_p", 0)):
        check(abs(fields["general.sampling." + key] - value) < 1e-6, "sampling " + key)
    with open(os.path.join(source, "chat_template.jinja"), "w") as file:
        file.write("{{ \u00e9 }}\n")
    write_json(source, "tokenizer_config.json", {"add_bos_token": False, "bos_token": "a"})
    fields = read(export(source))[0]
    check(fields["tokenizer.chat_template"] == "{{ \u00e9 }}\n", "template from a file")
    check(fields["tokenizer.ggml.add_bos_token"] is False, "add_bos_token from the settings")
    write_model(source, dict(CONFIG, vocab_size=14))
    fails(source, "15 tokens", "14 rows")


def protobuf(field, value):
    def varint(n):
        return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    if isinstance(value, float):
        return varint(field << 3 | 5) + struct.pack("<f", value)
    return varint(field << 3 | 2) + varint(len(value)) + value


def check_sentencepiece(folder):
    """The same vocabulary as a SentencePiece model and as the tokenizer.json made from it."""
    source = os.path.join(folder, "spm")
    letters = [SPACE, "a", "b", "c"]
    merged = [SPACE + "a", "ab", SPACE + "ab", "abc"]
    tokens = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    tokens += [("<0x%02X>" % b, 0.0, 6) for b in range(256)]
    tokens += [(t, -float(i), 1) for i, t in enumerate(merged + letters)]
    tokens += [(SPACE + SPACE, 0.0, 4)]
    config = dict(CONFIG, vocab_size=len(tokens) + 1)
    write_model(source, config)
    model = b"".join(protobuf(1, protobuf(1, t.encode()) + protobuf(2, s) + (
        protobuf(3, k) if k != 1 else b"")) for t, s, k in tokens)
    tail = protobuf(2, protobuf(3, 2) + protobuf(4, len(tokens)))
    with open(os.path.join(source, "tokenizer.model"), "wb") as file:
        file.write(model + tail + protobuf(3, protobuf(1, b"identity") + protobuf(3, 0)))
    write_json(source, "tokenizer_config.json", {"added_tokens_decoder": {
        "0": {"content": "<unk>", "special": True},
        str(len(tokens)): {"content": "<|end|>", "special": True}}})
    fields = read(export(source))[0]
    want = [t for t, _, _ in tokens[:-1]] + ["  ", "<|end|>"]
    check(fields["tokenizer.ggml.tokens"] == want, "pieces")
    check(fields["tokenizer.ggml.token_type"] == [t[2] for t in tokens] + [3], "types of pieces")
    check(fields["tokenizer.ggml.scores"][:-1] == [t[1] for t in tokens], "scores of pieces")
    check(fields["tokenizer.ggml.add_space_prefix"] is False, "add_dummy_prefix")
    check(fields["tokenizer.ggml.add_bos_token"] is True, "add_bos of SentencePiece")

    vocab = {t: i for i, (t, _, _) in enumerate(tokens)}
    pairs = [(m[:i], m[i:]) for m in merged for i in range(1, len(m))
             if m[:i] in vocab and m[i:] in vocab]
    write_json(source, "tokenizer.json", {
        "added_tokens": [{"id": i, "content": tokens[i][0], "special": True} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
        "pre_tokenizer": None, "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>",
                                         "vocab": vocab, "merges": pairs}})
    fields = read(export(source))[0]
    scores = fields["tokenizer.ggml.scores"]
    order = sorted(merged, key=lambda text: -scores[vocab[text]])
    check(fields["tokenizer.ggml.model"] == "llama" and order == merged, "scores from merges")
    check(fields["tokenizer.ggml.token_type"][:260] == [2, 3, 3] + [6] * 256 + [1], "types")
    check(fields["tokenizer.ggml.add_space_prefix"] is True, "Prepend")
    check(fields["tokenizer.ggml.add_bos_token"] is False, "no bos: no add_bos_token")


def words_of(folder, changes):
    """A model with the words a to h, as SentencePiece or byte-level BPE, and JSON files."""
    write_model(folder, dict(CONFIG, vocab_size=20, eos_token_id=3, bos_token_id=0))
    write_json(folder, "tokenizer.json", byte_bpe(PRE_TOKENIZERS["gpt-2"], True))
    for name, table in changes.items():
        write_json(folder, name, table)


def check_ends(folder):
    source = os.path.join(folder, "ends")
    words_of(source, {})
    for ends, named, want, *words in (
            ([5, 14, 12], "a", (0, 5, 14), "<|im_end|>"), ([5, 6, 7], None, (5, 6, 7)),
            ([5, 14, 7], None, (5, 7, 14)), ([5, 12, 6, 7], None, (5, 6, 7)),
            ([5, 6, 7, 8, 99], "nobody", (5, 6, 7), "(8)", "[99]", "nobody"),
            (None, None, (3, None, None)), (4, "b", (1, 4, None))):
        words = words[1:] if words and words[0] == "<|im_end|>" else words
        write_json(source, "generation_config.json", {"eos_token_id": ends})
        write_json(source, "tokenizer_config.json", {"eos_token": named})
        fields = says(source, *words)[0]
        found = tuple(fields.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
        check(found == want, f"{ends}, {named}: {found}, not {want}")


def check_templates(folder):
    """Where a chat template may lie, from what comes first on."""
    source = os.path.join(folder, "templates")
    words_of(source, {})
    more = os.path.join(source, "additional_chat_templates")
    os.makedirs(more)

    def expect(text, *words):
        found = says(source, *words)[0].get("tokenizer.chat_template")
        check(found == text, f"template {found}, not {text}")

    expect(None)
    for name in ("tool_use", "rag"):
        with open(os.path.join(more, name + ".jinja"), "w") as file:
            file.write(name)
    expect("rag", "rag, tool_use")
    for value, text, *words in (("J", "J"), ({"a": "A", "default": "D"}, "D"),
                                ([{"name": "x", "template": "X"}], "X", "x")):
        write_json(source, "chat_template.json", {"chat_template": value})
        expect(text, *words)
    write_json(source, "tokenizer_config.json", {"chat_template": [
        {"name": "y", "template": "Y"}, {"name": "z", "template": "Z"}]})
    expect("Y", "y, z")
    with open(os.path.join(source, "chat_template.jinja"), "wb") as file:
        file.write(b"\xff")
    fails(source, "chat_template.jinja", "UTF-8")
    with open(os.path.join(source, "chat_template.jinja"), "wb") as file:
        file.write(b"first")
    expect("first")


def check_added(folder):
    """Marks that stand in added_tokens.json, what GGUF can't say of a token or of a space."""
    source = os.path.join(folder, "added")
    tokens = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    tokens += [("<0x%02X>" % b, 0.0, 6) for b in range(256)] + [(SPACE, -1.0, 1), ("a", -2.0, 1)]
    n = len(tokens)
    write_model(source, dict(CONFIG, vocab_size=n + 2, eos_token_id=2))
    with open(os.path.join(source, "tokenizer.model"), "wb") as file:
        file.write(b"".join(protobuf(1, protobuf(1, t.encode()) + protobuf(2, s) + protobuf(3, k))
                            for t, s, k in tokens) + protobuf(2, protobuf(3, 2)))
    write_json(source, "added_tokens.json", {"<|im_end|>": n, "<|im_start|>": n + 1})
    write_json(source, "special_tokens_map.json", {
        "eos_token": {"content": "<|im_end|>", "rstrip": True}})
    write_json(source, "tokenizer_config.json", {"eos_token": "</s>", "legacy": False})
    fields = says(source, "<|im_end|>", "rstrip", "tokenizer.model", "first word")[0]
    check(fields["tokenizer.ggml.tokens"][n:] == ["<|im_end|>", "<|im_start|>"], "added tokens")
    check(fields["tokenizer.ggml.token_type"][n:] == [3, 4], "types of added tokens")
    check(fields["tokenizer.ggml.eos_token_id"] == n, "eos of special_tokens_map.json")
    write_json(source, "added_tokens.json", {"<|im_end|>": 1})
    says(source, "added_tokens.json", "<|im_end|>", "<s>")
    os.unlink(os.path.join(source, "added_tokens.json"))
    write_json(source, "tokenizer_config.json", {})
    write_json(source, "tokenizer.json", {
        "added_tokens": [{"id": 1, "content": "<s>", "lstrip": True, "special": True}],
        "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"},
        "model": {"type": "BPE", "byte_fallback": True, "merges": [],
                  "vocab": {text: i for i, (text, _, _) in enumerate(tokens)}}})
    says(source, "tokenizer.json", "first word", "lstrip", "<s>")


def check_tied(folder):
    """What the config says of the output does not win over the output."""
    source, config = os.path.join(folder, "tied"), dict(CONFIG, tie_word_embeddings=True)
    weights = huggingface_weights(config)
    write_model(source, config, weights)
    check(same_tensors(says(source, "lm_head.weight", "differ")[1], gguf_weights(config, weights)),
          "an output that differs from the embedding")
    head = weights.pop("lm_head.weight")
    write_model(source, config, weights)
    check(same_tensors(says(source)[1], gguf_weights(config, weights)), "no output")
    del weights["model.embed_tokens.weight"]
    write_model(source, config, dict(weights, **{"lm_head.weight": head}))
    weights["model.embed_tokens.weight"] = head
    check(same_tensors(says(source)[1], gguf_weights(config, weights)), "the output alone")


def check_sampling(folder):
    source = os.path.join(folder, "sampling")
    words_of(source, {})
    for word, key, value, want in (
            ("top_k", "top_k", -1, 0), ("top_k", "top_k", 50.0, 50), ("top_k", "top_k", 0.5, None),
            ("top_k", "top_k", "50", None), ("top_p", "top_p", 1.5, None),
            ("top_p", "top_p", True, None), ("temperature", "temp", -1, None),
            ("temperature", "temp", 0, 0), ("min_p", "min_p", [], None),
            ("repetition_penalty", "penalty_repeat", 1e4, None)):
        write_json(source, "generation_config.json", {"do_sample": True, word: value})
        fields = says(source, *[word, "left out"] if want is None else [])[0]
        found = fields.get(f"general.sampling.{key}")
        check(found == want, f"{word} {value} becomes {found}")


# ---- torch and transformers ----------------------------------------------------------------------


def check_meta(folder):
    if not installed("torch"):
        return skip("torch is not installed: no .pth")
    import torch
    names = {"token_embd": "tok_embeddings", "output_norm": "norm", "attn_norm": "attention_norm",
             "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
             "attn_output": "attention.wo", "ffn_norm": "ffn_norm", "ffn_gate": "feed_forward.w1",
             "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2", "output": "output"}
    columns = ("token_embd", "attn_output", "ffn_down")  # split along these in Llama 2
    weights = random_stories(STORIES)
    tokens = stories_tokens(STORIES["vocab"])
    params = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5,
              "vocab_size": -1, "multiple_of": 32}
    for shards, dtype in ((1, torch.float32), (2, torch.float16), (2, torch.bfloat16)):
        source = os.path.join(folder, "meta{}{}".format(shards, str(dtype)[6:]))
        os.makedirs(source)
        write_json(source, "params.json", params)
        write_tokenizer_bin(os.path.join(source, "tokenizer.model"), tokens)
        meant = {}
        for shard in range(shards):
            state = {"rope.freqs": torch.zeros(8)}
            for name, values in weights.items():
                kind = name.split(".")[-1]
                layer = "layers.{}.".format(name.split(".")[1]) if "blk" in name else ""
                value = torch.from_numpy(values).to(dtype)
                meant[name + ".weight"] = value.float().numpy()
                if values.ndim == 2:
                    value = value.chunk(shards, int(kind in columns))[shard].clone()
                state["{}{}.weight".format(layer, names[kind])] = value
            torch.save(state, os.path.join(source, "consolidated.{:02}.pth".format(shard)))
        fields, tensors = read(export(source))
        check(same_tensors(tensors, meant), "tensors of {}".format(source))
        check(fields["llama.context_length"] == 4096, "context of Llama 2")
        check(fields["tokenizer.ggml.tokens"] == [t[0] for t in tokens], "tokens of Meta's")
    write_json(source, "params.json", dict(params, rope_theta=5e5, use_scaled_rope=True))
    fields, tensors = read(export(source))
    check("rope_freqs.weight" in tensors and fields["llama.context_length"] == 131072, "Llama 3.1")

    with open(os.path.join(source, "tiktoken.model"), "wb") as file:
        for byte in range(256):
            file.write(base64.b64encode(bytes([byte])) + b" %d\n" % byte)
    fails(source, "tiktoken", "--tokenizer", os.path.join(source, "tiktoken.model"))

    path = os.path.join(source, "consolidated.00.pth")
    state = torch.load(path)
    state["norm.weight"] = state["norm.weight"][:32].clone()
    torch.save(state, path)
    fails(source, "norm.weight is 32 and 64, expected 64")
    for value, word in ((torch.nn.Linear(2, 2), "torch.nn"), ({"a": np.ones(2)}, "numpy"),
                        ({"a": torch.ones(2, dtype=torch.int64)}, "LongStorage"),
                        ({"a": torch.ones(4, 4).t()}, "stride"), ([1, 2], "dict of tensors")):
        torch.save(value, path)
        fails(source, word)
    torch.save({"a": torch.ones(2)}, path)
    fails(source, "same tensors")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 100)
    fails(source, "zip")

    class Evil:
        def __reduce__(self):
            return os.system, ("touch " + os.path.join(folder, "evil"),)
    torch.save({"a": Evil()}, path)
    fails(source, "system")
    check(not os.path.exists(os.path.join(folder, "evil")), "a pickle ran a command")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(path, ids):
    """Logits (n, vocab) of a GGUF file of the family llama or qwen2, in plain numpy."""
    fields, tensors = read(path)
    arch = fields["general.architecture"]
    w = {name: data.astype(np.float64) for name, (data, _, _) in tensors.items()}
    heads, kv_heads = (fields[arch + ".attention.head_count" + s] for s in ("", "_kv"))
    size, base = fields[arch + ".rope.dimension_count"], fields[arch + ".rope.freq_base"]
    eps = fields[arch + ".attention.layer_norm_rms_epsilon"]
    rope = {k.split("rope.scaling.")[1]: v for k, v in fields.items() if "rope.scaling." in k}
    n, i = len(ids), np.arange(size // 2)
    frequency = base ** (-2 * i / size) / w.get("rope_freqs.weight", 1)
    amplitude, factor = 1.0, rope.get("factor", 1.0)
    if rope.get("type") == "linear":
        frequency = frequency / factor
    if rope.get("type") == "yarn":
        def corner(rotations):
            return size * math.log(rope["original_context_length"] / (rotations * 2 * math.pi)) / (
                2 * math.log(base))
        low = max(math.floor(corner(rope.get("yarn_beta_fast", 32))), 0)
        high = min(math.ceil(corner(rope.get("yarn_beta_slow", 1))), size - 1)
        mix = 1 - np.clip((i - low) / max(0.001, high - low), 0, 1)
        frequency = frequency / factor * (1 - mix) + frequency * mix
        amplitude = rope.get("attn_factor", 1.0) * (1 + 0.1 * math.log(factor))
    angle = np.arange(n)[:, None] * frequency
    cos, sin = np.cos(angle)[:, None] * amplitude, np.sin(angle)[:, None] * amplitude

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0)

    def rotate(x):
        x = x.reshape(n, -1, size)
        first, second = (slice(0, None, 2), slice(1, None, 2)) if arch == "llama" else (
            slice(0, size // 2), slice(size // 2, None))
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    x = w["token_embd.weight"][ids]
    for layer in range(fields[arch + ".block_count"]):
        b = "blk.{}.".format(layer)
        h = norm(x, w[b + "attn_norm.weight"])
        q, k = rotate(linear(h, b + "attn_q")), rotate(linear(h, b + "attn_k"))
        v = linear(h, b + "attn_v").reshape(n, kv_heads, size)
        k, v = (np.repeat(t, heads // kv_heads, 1) for t in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(size)
        scores = softmax(np.where(np.tri(n, dtype=bool), scores, -np.inf))
        x = x + linear(np.einsum("hqk,khd->qhd", scores, v).reshape(n, -1), b + "attn_output")
        h = norm(x, w[b + "ffn_norm.weight"])
        gate = linear(h, b + "ffn_gate")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, b + "ffn_up"), b + "ffn_down")
    h = norm(x, w["output_norm.weight"])
    return h @ w.get("output.weight", w["token_embd.weight"]).T


def check_logits(folder):
    if not installed("torch") or not installed("transformers"):
        return skip("transformers is not installed: no logits")
    import torch
    import transformers as hf
    torch.manual_seed(1)
    sizes = dict(vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                 initializer_range=0.2)
    long = {"rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 32}
    cases = {
        "llama": (hf.LlamaConfig, {}),
        "tied, biased": (hf.LlamaConfig, {"tie_word_embeddings": True, "attention_bias": True,
                                          "mlp_bias": True}),
        "linear": (hf.LlamaConfig, {"rope_parameters": dict(long, rope_type="linear")}),
        "yarn": (hf.LlamaConfig, {"rope_parameters": dict(long, rope_type="yarn")}),
        "yarn, attention factor": (hf.LlamaConfig, {"rope_parameters": dict(
            long, rope_type="yarn", attention_factor=1.3, beta_fast=8.0, beta_slow=2.0)}),
        "llama3": (hf.LlamaConfig, {"rope_parameters": dict(
            long, rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0)}),
        "mistral": (hf.MistralConfig, {"head_dim": 32, "sliding_window": None}),
        "qwen2": (hf.Qwen2Config, {}),
        "qwen2, yarn": (hf.Qwen2Config, {"rope_parameters": dict(long, rope_type="yarn")}),
    }
    ids = random.integers(0, 100, 48)
    for i, (name, (kind, more)) in enumerate(cases.items()):
        model = hf.AutoModelForCausalLM.from_config(kind(**sizes, **more)).eval().float()
        for parameter in model.parameters():  # norms of 1 and biases of 0 would hide mistakes
            if parameter.ndim == 1:
                parameter.data.add_(torch.randn_like(parameter) * 0.2)
        source = os.path.join(folder, "logits{}".format(i))
        model.save_pretrained(source, max_shard_size="40KB" if i % 2 else "5GB")
        with torch.no_grad():
            want = model(torch.tensor(ids)[None]).logits[0].numpy()
        found = forward(export(source), ids)
        error = np.abs(found - want).max() / np.abs(want).max()
        check(error < 1e-4, "{}: logits differ by {:.1e}".format(name, error))


def check_in_run(folder):
    """Models that were refused without need, in run: biases of Granite, odd heads of GPT-2."""
    if not installed("torch") or not installed("transformers") or not os.path.exists(RUN):
        return skip("transformers is not installed or run not built: no models in run")
    import torch
    import transformers as hf
    torch.manual_seed(1)
    sizes = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
                 max_position_embeddings=128, attention_bias=True, attention_multiplier=0.3,
                 bos_token_id=None, eos_token_id=None, pad_token_id=None)
    vocab = {chr(97 + i) if i < 26 else "x%d" % i: i for i in range(300)}
    for i, config in enumerate((
            hf.GraniteConfig(**sizes, mlp_bias=True, logits_scaling=2.0),
            hf.GraniteMoeConfig(**sizes, num_local_experts=4, num_experts_per_tok=2),
            hf.GPT2Config(vocab_size=300, n_embd=60, n_layer=2, n_head=4, n_positions=128,
                          activation_function="gelu_pytorch_tanh", initializer_range=0.2,
                          bos_token_id=None, eos_token_id=None))):
        model = hf.AutoModelForCausalLM.from_config(config).eval().float()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.add_(torch.randn_like(parameter) * 0.2)
        source = os.path.join(folder, "run{}".format(i))
        model.save_pretrained(source)
        write_json(source, "tokenizer.json", {"pre_tokenizer": byte_level(True), "model": {
            "type": "BPE", "vocab": vocab, "merges": []}})
        with torch.no_grad():
            want = torch.softmax(model(torch.arange(8)[None]).logits[0, -1], -1).topk(4)
        done = subprocess.run([RUN, export(source), "-j", "1", "-i", "abcdefgh", "-l", "4",
                               "--cache", "f32"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        found = [line.split("\t")[:2] for line in done.stdout.decode().splitlines()]
        check([int(token) for token, _ in found] == want.indices.tolist() and all(
            abs(float(share) - p) < 2e-6 for (_, share), p in zip(found, want.values.tolist())),
            f"{source}: {found}, not {want}")


def check_saved_tokenizer(folder):
    """A tokenizer that the tokenizers library trains and transformers saves with a model."""
    if not installed("torch") or not installed("transformers"):
        return skip("transformers is not installed: no saved tokenizer")
    import tokenizers
    import transformers as hf
    kit = tokenizers.Tokenizer(tokenizers.models.BPE())
    kit.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    kit.decoder = tokenizers.decoders.ByteLevel()
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    kit.train_from_iterator([text], tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    kit.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    saved = hf.PreTrainedTokenizerFast(tokenizer_object=kit, bos_token="<|begin|>",
                                       eos_token="<|end|>", chat_template="{{ messages }}")
    saved.add_tokens(["<tool>"])
    source = os.path.join(folder, "saved")
    write_model(source, dict(CONFIG, vocab_size=408))
    saved.save_pretrained(source)
    fields = {k[15:]: v for k, v in read(export(source))[0].items() if k.startswith("tokenizer.")}
    want = [text for text, _ in sorted(saved.get_vocab().items(), key=lambda item: item[1])]
    check(fields["tokens"] == want + ["[PAD%d]" % i for i in range(401, 408)], "saved tokens")
    check(fields["token_type"] == [3, 3] + [1] * 398 + [4] + [5] * 7, "saved types")
    for key, value in (("pre", "dbrx"), ("add_bos_token", True), ("bos_token_id", 0),
                       ("eos_token_id", 1)):
        check(fields[key] == value, "saved {}: {}".format(key, fields[key]))
    with open(os.path.join(source, "tokenizer.json"), encoding="utf-8") as file:
        pairs = json.load(file)["model"]["merges"]
    check(fields["merges"] == [" ".join(pair) for pair in pairs], "saved merges")


GEMMA4_MARKS = ["<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>"]
GEMMA4_PIECES = [
    "", " ", "  ", "   a", " " * 17, "\n", "\n\n", "\n\n\n", "\n" * 7, "\n" * 40, " \n ", "\t",
    "\r\n", "the", " check", "folder, source", "def run(*a):\n    return", "don't", "12345",
    "x\u00e9", "\u65e5\u672c\u8a9e", "\U0001f600", "\U0001f469\u200d\U0001f680", "\0", "\x7f",
    "\u2028", "\U0010ffff", "<0x41>", "<unk>x", "<eos>", "<bos>", "< bos>", *GEMMA4_MARKS]


def train_gemma4():
    """transformers' tokenizer with pieces of characters that were found in this file."""
    import tokenizers
    import transformers as hf
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] + ["<0x%02X>" % b for b in range(256)]
    with open(__file__, encoding="utf-8") as file:
        texts = [file.read()] + ["\n" * n + " " * n for n in range(1, 9)] * 20
    kit = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    kit.normalizer = tokenizers.normalizers.Replace(" ", SPACE)
    kit.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        for pattern in ("\n+", SPACE + "+[^" + SPACE + "]*")])
    kit.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=800, special_tokens=special, show_progress=False))
    model = json.loads(kit.to_str())["model"]
    made = hf.GemmaTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])
    made.add_tokens(GEMMA4_MARKS, special_tokens=True)
    made.add_tokens([hf.AddedToken(SPACE * n, normalized=False) for n in (2, 4)])
    return made, model


def save_gemma4(folder, made):
    import torch
    import transformers as hf
    torch.manual_seed(1)
    hf.AutoModelForCausalLM.from_config(hf.Gemma4TextConfig(
        vocab_size=len(made) + 3, vocab_size_per_layer_input=len(made) + 3, hidden_size=32,
        intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, global_head_dim=32, hidden_size_per_layer_input=0, num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"], max_position_embeddings=128,
        eos_token_id=[1, made.convert_tokens_to_ids("<turn|>")])).save_pretrained(folder)
    made.save_pretrained(folder)


def check_gemma4(folder):
    """Its pieces of characters go by merges; run and the tokenizers library make the same ids."""
    if not installed("torch") or not installed("transformers"):
        return skip("transformers is not installed: no tokenizer of Gemma 4")
    import llm
    made, model = train_gemma4()
    source = os.path.join(folder, "gemma4")
    save_gemma4(source, made)
    path = export(source)
    fields = {k[15:]: v for k, v in read(path)[0].items() if k.startswith("tokenizer.ggml.")}
    n, tokens = len(model["vocab"]), sorted(model["vocab"], key=model["vocab"].get)
    want = {
        "model": "gemma4", "pre": None, "scores": None, "bos_token_id": 2, "add_bos_token": True,
        "tokens": tokens + GEMMA4_MARKS + ["[PAD%d]" % (n + i) for i in range(5, 8)],
        "token_type": [3, 3, 3, 2, 3] + [6] * 256 + [1] * (n - 261) + [3, 3, 4, 4, 4] + [5] * 3,
        "merges": [" ".join(pair) for pair in model["merges"]], "add_space_prefix": None}
    for key, value in want.items():
        check(fields.get(key) == value, "gemma4: {} is {}".format(key, str(fields.get(key))[:300]))
    texts = GEMMA4_PIECES + ["".join(random.choice(GEMMA4_PIECES, 6)) for _ in range(500)]
    with llm.Model(path) as ours:
        for text in texts:
            found = ours.encode(text, llm.BEGIN | llm.BOS | llm.SPECIAL)
            ids = [2] + made.backend_tokenizer.encode(text, add_special_tokens=False).ids
            check(found == ids, "gemma4: {!r} is {}, not {}".format(text, found, ids))


# ---- the limits of run ----


def number(text, words):
    """What a limit in C says, if that is a number or the name of one."""
    text = text.rstrip("f")
    return words.get(text, float(text) if re.fullmatch(r"[-\d.e]+", text) else None)


def check_limits(module):
    """BOUNDS are the ranges of run.c, as its calls that read keys say them."""
    with open(os.path.join(ROOT, "run.c"), encoding="utf-8") as file:
        text = file.read()
    words = {name: int(value) << int(shift or 0) for name, value, shift in re.findall(
        r"\b(MAX_\w+) = (\d+)(?: << (\d+))?", text)}
    found = {}
    for call in re.finditer(r"(?:key_int|key_float|layer_int|most_int)\(", text):
        parts, depth = [""], 0
        for letter in text[call.end():]:
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth < 0:
                break
            parts = [*parts, ""] if letter == "," and depth == 0 else [*parts[:-1],
                                                                       parts[-1] + letter]
        name = parts[1].split("[")[0].strip()  # of the key, or of an array of keys
        if re.fullmatch(r"\w+", name):
            parts[1] = "".join(re.findall(rf"\b{name}\[\] = \{{(.*?)\}}", text, re.S))
        for key in re.findall(r'"\.?([\w.]+)"', parts[1]):
            found.setdefault(key, []).append([part.strip() for part in parts[-2:]])
    for key, (least, most) in module.BOUNDS.items():
        if key in ("vocab_size", "rope.dimension_count"):
            continue  # of the tokens; by the kind of attention
        check(key in found, f"run.c reads no {key}")
        fits = [number(low, words) == least and (
            not high[0].isdigit() if isinstance(most, str) else number(high, words) == most)
            for low, high in found.get(key, ())]
        check(any(fits), f"{key} is {found.get(key)} in run.c, not {least} to {most}")


def check_refused(folder):
    """What run does not take is not written."""
    source = os.path.join(folder, "refused")
    for changes, word in (
            ({"num_attention_heads": 2, "head_dim": 642}, "key_length"),
            ({"num_attention_heads": 258, "num_key_value_heads": 2, "head_dim": 2}, "128"),
            ({"max_position_embeddings": 2**25}, "context_length"),
            ({"rope_theta": 1.0}, "freq_base"), ({"rms_norm_eps": 2.0}, "epsilon"),
            ({"num_hidden_layers": 1025, "hidden_size": 4, "intermediate_size": 4,
              "num_attention_heads": 2, "vocab_size": 4}, "block_count"),
            ({"rope_scaling": {"type": "linear", "factor": 1e7}}, "scaling.factor")):
        write_model(source, dict(CONFIG, **changes))
        fails(source, word)
    write_model(source, dict(CONFIG, rope_scaling={
        "type": "longrope", "long_factor": [0] * 8, "short_factor": [1] * 8,
        "original_max_position_embeddings": 64}, architectures=["Phi3ForCausalLM"]))
    fails(source, "above 0")


# What must not stand in a JSON file in place of what does.
WRONG = (None, True, -1, 0, 1.5, math.inf, math.nan, 2**40, "x", "", [], {}, [None], [[]], {"a": 1},
         [-5], "\ud800")


def mutations(value):
    """Copies of a value with one part wrong or gone."""
    yield from WRONG
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(
        value, list) else ()
    for key, part in list(parts):
        for wrong in mutations(part):
            changed = copy.copy(value)
            changed[key] = wrong
            yield changed
        changed = copy.copy(value)
        del changed[key]
        yield changed


def check_mutations(folder):
    """Whatever stands in the JSON files of a folder, the error is a sentence with the file's name,
    or run takes the file that is written."""
    module, source = load_export(), os.path.join(folder, "mutated")
    path = os.path.join(folder, "mutated.gguf")
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = dict(CONFIG, vocab_size=20, eos_token_id=[3], bos_token_id=1, rope_scaling=llama3)
    mark = {"content": "<|im_end|>", "lstrip": False, "special": True}
    files = {
        "config.json": config, "tokenizer.json": byte_bpe(PRE_TOKENIZERS["smollm"], True),
        "generation_config.json": {"top_k": 5, "top_p": 0.5, "eos_token_id": [5, 14]},
        "special_tokens_map.json": {"eos_token": "a", "additional_special_tokens": [mark]},
        "added_tokens.json": {"<|im_end|>": 12, "x": 15},
        "chat_template.json": {"chat_template": {"default": "D"}},
        "tokenizer_config.json": {"bos_token": mark, "add_bos_token": True, "legacy": False,
                                  "added_tokens_decoder": {"12": mark}}}
    write_model(source, config)
    for name, table in files.items():
        write_json(source, name, table)
    tried = written = 0
    for name, table in files.items():
        for wrong in mutations(table):
            write_json(source, name, wrong)
            tried += 1
            try:
                metadata, tensors = module.read_model(source, None)
                module.check_bounds(source, metadata, tensors)
                module.write_gguf(path, metadata, tensors, "f32")
                written += 1
                why = refused(path)
                check(not why, f"{name} with {str(wrong)[:200]}: {why}")
            except module.ExportError as error:
                check(source in str(error) or "half a character" in str(error)
                      or "not known" in str(error), f"{name}: {error}")
            except Exception as error:
                check(False, f"{name} with {str(wrong)[:200]}: {type(error).__name__} {error}")
        write_json(source, name, table)
    check(written > 100 and tried > 5 * written / 2, f"{written} of {tried} were written")


# ---- what must fail ------------------------------------------------------------------------------


def fails(source, *words):
    """The export must end with 1 and one line that has all words, and leave no file. Words from the
    first that begins with a dash are options."""
    cut = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    words, options = words[:cut], words[cut:]
    folder = tempfile.mkdtemp(dir=os.path.dirname(source))
    code, lines = run(source, "-o", os.path.join(folder, "out.gguf"), *options)
    name = os.path.basename(source) + " " + " ".join(words)
    check(code == 1 and len(lines) == 1, "{}: exit code {}, {}".format(name, code, lines))
    check(all(word in " ".join(lines) for word in words), "{}: says {}".format(name, lines))
    check(os.listdir(folder) == [], "{}: leaves {}".format(name, os.listdir(folder)))
    os.rmdir(folder)


def check_damaged_llama2c(folder):
    s, weights = STORIES, random_stories(STORIES)
    source = os.path.join(folder, "bad.bin")
    tokenizer = os.path.join(folder, "tokenizer.bin")
    write_stories(source, 1, s, weights, 1)
    with open(source, "rb") as file:
        good = file.read()

    def spoil(data, *words):
        with open(source, "wb") as file:
            file.write(data)
        fails(source, *words)

    def patch(at, *values):
        data = struct.pack("<{}i".format(len(values)), *values)
        return good[:at] + data + good[at + len(data):]

    for data, words in (
            (b"", ()), (good[:20], ()), (good[:300], ()), (good[:-4], ("bytes",)),
            (good + bytes(4), ("bytes",)), (patch(4, 3), ("version 3",)),
            (patch(4, 0), ("version 0",)), (patch(8, 0), ("hidden_size is 0",)),
            (patch(12, -1), ("intermediate_size is -1",)), (patch(16, 2**31 - 1), ()),
            (patch(20, 5), ("5 heads",)),
            (patch(24, 3), ("3 key/value heads",)), (patch(28, 2**31 - 1), ()),
            (patch(32, 0), ("max_position_embeddings is 0",)),
            (good[:36] + b"\7" + good[37:], ("7",)),
            (b"PK\3\4" + bytes(5000), ("PyTorch",)), (b"\x93NUMPY" + bytes(5000), ()),
            (os.urandom(4096), ())):
        spoil(data, *words)
    write_stories(source, 2, s, weights, 1, 32)
    with open(source, "rb") as file:
        good = file.read()
    for group in (0, -64, 7, 2**31 - 1):
        spoil(good[:37] + struct.pack("<i", group) + good[41:], str(group))

    write_stories(source, 0, s, weights, 1)
    for size in (299, 301):
        write_tokenizer_bin(tokenizer, stories_tokens(size))
        fails(source, str(size), "300")
    write_tokenizer_bin(tokenizer, stories_tokens(300))
    with open(tokenizer, "rb") as file:
        data = file.read()
    for bad in (data[:-3], data[:8] + b"\xff\xff\xff\xff" + data[12:], b"", b"\0\0\0"):
        with open(tokenizer, "wb") as file:
            file.write(bad)
        fails(source, "tokenizer.bin")
    os.unlink(tokenizer)
    fails(source, "give one with")
    fails(os.path.join(folder, "nowhere.bin"), "nowhere.bin")
    write_tokenizer_bin(tokenizer, stories_tokens(300))
    weights["output_norm"][3] = np.nan
    write_stories(source, 0, s, weights, 1)
    fails(source, "output_norm.weight", "finite")
    weights["output_norm"][3] = 1
    weights["token_embd"][5, 5] = 1e6
    write_stories(source, 0, s, weights, 1)
    fails(source, "token_embd.weight", "too large")


# What export.py must not take for granted of a family.
YARN = {"type": "yarn", "factor": 8, "original_max_position_embeddings": 64}
LATENT = {"kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
STATE = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_value_head_dim": 8,
         "linear_key_head_dim": 8}
KINDS = ["sliding_attention", "full_attention"]
FAMILY_ERRORS = (
    ("LlamaForCausalLM", {"rope_scaling": {"type": "proportional"}}, "proportional"),
    ("Lfm2ForCausalLM", {"conv_bias": True}, "conv_bias"),
    ("Lfm2ForCausalLM", {"layer_types": ["conv", "mamba"]}, "layer_types"),
    ("Lfm2ForCausalLM", {"full_attn_idxs": [1], "block_multiple_of": 0}, "block_multiple_of"),
    ("Lfm2MoeForCausalLM", {"use_expert_bias": False}, "use_expert_bias"),
    ("Qwen3_5ForCausalLM", {"attn_output_gate": False}, "attn_output_gate"),
    ("Qwen3_5ForCausalLM", dict(STATE, linear_num_value_heads=3), "3 heads"),
    ("Gemma4ForCausalLM", {"hidden_activation": "gelu"}, "gelu"),
    ("Gemma4ForCausalLM", {"layer_types": KINDS, "per_layer_config": {"0": {"head_dim": 8}}},
     "per_layer_config"),
    ("Gemma4ForCausalLM", {"layer_types": KINDS, "num_kv_shared_layers": 1}, "share"),
    ("NemotronHForCausalLM", {"mlp_hidden_act": "silu"}, "silu"),
    ("NemotronHForCausalLM", {"hybrid_override_pattern": "MX"}, "X"),
    ("FalconH1ForCausalLM", dict(STATE, mamba_rms_norm=True), "before its gate"),
    ("FalconH1ForCausalLM", dict(STATE, tie_word_embeddings=True, lm_head_multiplier=2.0),
     "other multipliers"),
    ("Mamba2ForCausalLM", {"use_conv_bias": False}, "use_conv_bias"),
    ("GraniteMoeHybridForCausalLM", {"mamba_proj_bias": True}, "mamba_proj_bias"),
    ("HunYuanDenseV1ForCausalLM", {"rope_scaling": {"type": "dynamic"}}, "alpha"),
    ("Ernie4_5_MoeForCausalLM", {"moe_num_experts": 2, "moe_layer_end_index": 0}, "end_index"),
    ("ArceeForCausalLM", {"hidden_act": "silu"}, "silu"),
    ("ApertusForCausalLM", {"hidden_act": "xielu"}, "alpha_n"),
    ("LagunaForCausalLM", {"gating": False}, "gating"),
    ("LagunaForCausalLM", {"num_attention_heads_per_layer": [4]}, "per_layer"),
    ("LagunaForCausalLM", {"mlp_layer_types": ["sparse", "dense"]}, "mlp_layer_types"),
    ("AfmoeForCausalLM", {"mup_enabled": False}, "mup_enabled"),
    ("MuseGlimmerForConditionalGeneration", {"post_norm_eps": 1e-5}, "post_norm_eps"),
    ("MuseGlimmerForConditionalGeneration", {"layer_rope_theta": [0, 0]}, "layer_rope_theta"),
    ("Cohere2MoeForCausalLM", {"shared_expert_combination_strategy": "sum"}, "sum"),
    ("Cohere2MoeForCausalLM", {"first_k_dense_replace": 2,
                               "prefix_dense_sliding_window_pattern": 2}, "without window"),
    ("Dots1ForCausalLM", {"layer_types": KINDS}, "full_attention"),
    ("Glm4MoeForCausalLM", {"n_group": 2}, "n_group"),
    ("MellumForCausalLM", {"norm_topk_prob": False}, "norm_topk_prob"),
    ("HYV3ForCausalLM", {"route_norm": False}, "route_norm"),
    ("SeedOssForCausalLM", {"mlp_bias": True, "attention_bias": False, "head_dim": 16},
     "gate_proj.bias"),
    ("Qwen3ForCausalLM", {"attention_bias": True}, "attention_bias"),
    ("Qwen3ForCausalLM", {"use_sliding_window": True}, "use_sliding_window"),
    ("Qwen3ForCausalLM", {}, "q_norm"),
    ("Qwen3MoeForCausalLM", {"norm_topk_prob": False}, "norm_topk_prob"),
    ("Qwen3MoeForCausalLM", {"norm_topk_prob": True}, "num_experts"),
    ("Qwen3MoeForCausalLM", {"norm_topk_prob": True, "num_experts": 2}, "mlp.gate.weight"),
    ("Qwen2MoeForCausalLM", {"mlp_only_layers": [1]}, "mlp_only_layers"),
    ("OlmoeForCausalLM", {"clip_qkv": 8.0}, "clip_qkv"),
    ("MistralForCausalLM", {"sliding_window": -8}, "sliding_window"),
    ("GemmaForCausalLM", {"hidden_act": "silu"}, "silu"),
    ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0, "hidden_act": "gelu"}, "softcapping"),
    ("LlamaForCausalLM", {"partial_rotary_factor": 0.5}, "of 16"),
    ("LlamaForCausalLM", {"rope_scaling": dict(YARN, truncate=False)}, "truncate"),
    ("GptOssForCausalLM", {"rope_scaling": YARN, "attention_bias": True}, "truncate"),
    ("GptOssForCausalLM", {"swiglu_limit": 5.0, "attention_bias": True}, "swiglu_limit"),
    ("Phi3ForCausalLM", {"rope_scaling": {"type": "su", "long_factor": [1]}}, "long_factor"),
    ("SmolLM3ForCausalLM", {"no_rope_layers": [0, 0]}, "no_rope_layers"),
    ("DeepseekV2ForCausalLM", {"topk_method": "noaux_tc"}, "topk_method"),
    ("DeepseekV3ForCausalLM", {"scoring_func": "softmax"}, "scoring_func"),
    ("DeepseekV3ForCausalLM", LATENT, "v_head_dim"),
    ("DeepseekV3ForCausalLM", {"rope_interleave": False}, "rope_interleave"),
    ("Ministral3ForCausalLM", {"rope_parameters": {"llama_4_scaling_beta": 0.1}}, "yarn"),
    ("Ministral3ForCausalLM", {"rope_scaling": dict(YARN, mscale=1, mscale_all_dim=2)}, "mscale"),
    ("GPT2LMHeadModel", {"hidden_act": "relu"}, "relu"),
    ("Starcoder2ForCausalLM", {"use_bias": False, "hidden_act": "gelu_pytorch_tanh"}, "use_bias"),
)


def check_names(module):
    """Layers for drafts, masks, and experts whose exponents are lost."""
    def kept(arch, *names):
        config = {"num_hidden_layers": 2}
        return list(module.take_names(module.ARCHS[arch], config, dict.fromkeys(names)))
    check(kept("DeepseekV3ForCausalLM", "model.layers.1.a", "model.layers.2.a", "model.layers.22.a")
          == ["model.layers.1.a", "model.layers.22.a"], "a layer for drafts is left out, no other")
    check(kept("GPT2LMHeadModel", "h.0.attn.bias", "transformer.h.0.attn.c_attn.bias")
          == ["h.0.attn.c_attn.bias"], "a mask is left out, a bias is not")
    blocks = module.Tensor((2, 4, 1, 16), None)
    for found, word in (({"a_blocks": [blocks]}, "a_scales"),
                        ({"a_blocks": [blocks], "a_scales": [module.Tensor((2, 3, 1), None)]},
                         "2x3x1")):
        try:
            module.join_all_mxfp4("here", found)
            check(False, f"mxfp4: no error about {word}")
        except module.ExportError as error:
            check(word in str(error), f"mxfp4: says {error}")


def check_damaged_huggingface(folder):
    source = os.path.join(folder, "bad")
    file = os.path.join(source, "model.safetensors")
    weights = huggingface_weights(CONFIG)
    write_model(source, CONFIG, weights)

    def edit(name, **changes):
        def change(table):
            table[name].update(changes)
        return change

    norm, head = "model.norm.weight", "lm_head.weight"
    changes = [
        (edit(norm, dtype="F8_E4M3"), (norm, "F8_E4M3")), (edit(norm, dtype="U8"), (norm, "U8")),
        (edit(norm, dtype=3), (norm,)),
        (edit(norm, shape=[65]), (norm, "65")), (edit(norm, shape=[-64]), (norm,)),
        (edit(norm, shape=[2.0, 32]), (norm,)), (edit(norm, shape="ab"), ()),
        (edit(norm, data_offsets=[256, 0]), (norm,)),
        (edit(norm, data_offsets=[2**62, 2**62 + 256]), (norm,)),
        (edit(norm, data_offsets=[-256, 0]), (norm,)), (edit(norm, data_offsets=[0]), ()),
        (edit(norm, data_offsets=[0, 256]), ("ends at 256",)),
        (edit(head, shape=[64, 300]), (head,)),
        (lambda table: b"{" + json.dumps(table).encode(), ("JSON",)), (lambda table: b"[]", ()),
        (lambda table: b"[" * 100000, ()), (lambda table: b"\xff\xfe", ("JSON",)),
        (lambda table: json.dumps(table).encode()[:-1] + b', "%s": 1}' % norm.encode(), ("two",)),
        (lambda table: b'{"a": 1}', ())]
    for change, words in changes:
        write_safetensors(file, weights, change=change)
        fails(source, *words)
    write_safetensors(file, weights)
    with open(file, "rb") as f:
        good = f.read()
    for data in (b"", good[:7], good[:500], good[:-1], struct.pack("<Q", 0) + good[8:],
                 struct.pack("<Q", 2**63) + good[8:], struct.pack("<Q", len(good)) + good[8:]):
        with open(file, "wb") as f:
            f.write(data)
        fails(source, "model.safetensors")

    for name in (norm, "model.layers.1.mlp.up_proj.weight"):
        write_safetensors(file, {n: w for n, w in weights.items() if n != name})
        fails(source, name)
    write_safetensors(file, dict(weights, **{"model.layers.0.q_norm.weight": weights[norm]}))
    fails(source, "q_norm")
    write_safetensors(file, dict(weights, **{"evil\n\x1b[2J": weights[norm]}))
    fails(source)
    write_safetensors(file, dict(weights, **{norm: weights[norm].reshape(8, 8)}))
    fails(source, norm, "8x8", "64")
    write_safetensors(file, weights)
    for changes, word in (
            ({"architectures": ["MambaForCausalLM"]}, "Mamba"), ({"architectures": None}, ""),
            ({"hidden_size": "big"}, "hidden_size"), ({"hidden_size": None}, "hidden_size"),
            ({"hidden_size": -1}, "hidden_size"), ({"num_hidden_layers": 3}, "layers.2"),
            ({"num_hidden_layers": 1}, "layers.1"), ({"num_key_value_heads": 3}, "3"),
            ({"num_attention_heads": 5}, "5"), ({"head_dim": 15}, "15"),
            ({"head_dim": 32}, "q_proj"), ({"hidden_size": 2**31}, "hidden_size"),
            ({"hidden_act": "gelu"}, "gelu"), ({"rope_scaling": {"type": "dynamic"}}, "dynamic"),
            ({"rope_scaling": {"type": "longrope"}}, "long_factor"), ({"rope_scaling": 3}, ""),
            ({"rope_scaling": {"type": "linear"}}, "factor"), ({"rope_theta": "x"}, "rope_theta"),
            ({"rope_scaling": {"type": "llama3", "factor": 8}}, "low_freq_factor"),
            ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
            ({"vocab_size": 301}, "301"), ({"attention_bias": True}, "q_proj.bias"),
            ({"max_position_embeddings": 2**40}, "max_pos"), ({"rms_norm_eps": []}, "rms_norm")):
        write_json(source, "config.json", dict(CONFIG, **changes))
        fails(source, word)
    for arch, changes, word in FAMILY_ERRORS:
        write_json(source, "config.json", dict(CONFIG, architectures=[arch], **changes))
        fails(source, word)
    write_json(source, "config.json", [])
    fails(source, "config.json")
    with open(os.path.join(source, "config.json"), "w") as f:
        f.write("{")
    fails(source, "config.json", "JSON")
    write_json(source, "config.json", CONFIG)
    for name, table in (("tokenizer.json", {}), ("tokenizer.json", {"model": {"type": "Unigram"}}),
                        ("tokenizer.json", {"model": 1}), ("tokenizer.json", []),
                        ("generation_config.json", {"eos_token_id": "x"})):
        write_json(source, name, table)
        fails(source, name)
        os.unlink(os.path.join(source, name))
    for data in (b"\n\x05\n\x03", b"\n\x05\n", b"\n\xff\n\xff\xff", b"\n\x06\n\x01a\x17\0\0"):
        with open(os.path.join(source, "tokenizer.model"), "wb") as f:
            f.write(data)
        fails(source)
    os.unlink(os.path.join(source, "tokenizer.model"))

    for arch, changes, word in (
            ("Gemma3ForCausalLM", {"rope_parameters": {
                "full_attention": {"rope_type": "default"}, "sliding_attention": {
                    "rope_type": "linear", "factor": 8.0}}, "hidden_act": "gelu"}, "linear in"),
            ("GPT2LMHeadModel", {"hidden_act": "gelu_pytorch_tanh"}, "wte")):
        write_json(source, "config.json", dict(CONFIG, architectures=[arch], **changes))
        fails(source, word)
    write_json(source, "config.json", CONFIG)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
    for name in ("model.safetensors", "tokenizer.json", "tokenizer.model", "config.json",
                 "chat_template.jinja"):
        inner = os.path.join(folder, "pointer")
        words_of(inner, {})
        if name == "tokenizer.model":
            os.unlink(os.path.join(inner, "tokenizer.json"))
        with open(os.path.join(inner, name), "wb") as f:
            f.write(pointer)
        fails(inner, name, "git-lfs")
        os.unlink(os.path.join(inner, name))
    inner = os.path.join(folder, "others")
    words_of(inner, {})
    os.unlink(os.path.join(inner, "model.safetensors"))
    for name, word in (("pytorch_model.bin", "save_pretrained"), ("adapter_model.safetensors",
                       "merge"), ("model-00001-of-00002.safetensors", "index.json")):
        open(os.path.join(inner, name), "wb").close()
        fails(inner, name, word)
    write_model(source, CONFIG, weights, shards=3)
    os.unlink(os.path.join(source, "model-00002-of-00003.safetensors"))
    fails(source, "index.json names model-00002-of-00003.safetensors", "not there")
    write_json(source, "model.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}})
    fails(source, "..")
    write_json(source, "model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}})
    fails(source, "a")
    fails(folder, "config.json")
    fails(file, "directory")


def check_pickle(folder):
    """A few bytes must not ask for memory: places of a memo, lengths, compressed zeros."""
    path = os.path.join(folder, "consolidated.00.pth")
    for code, method in ((b"\x80\x02}r\xff\xff\xff\x3f.", 0), (b"}p536870912\n.", 0),
                         (b"\x80\x05\x96\xff\xff\xff\xff\x02\0\0\0", 0),
                         (b"N" * 100 + b".", zipfile.ZIP_DEFLATED), (b"}(K\x01", 0),
                         (b"K\x01Q.", 0)):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("x/data.pkl", code)
        wrapper = """if True:
            import resource, runpy, sys
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            sys.argv = sys.argv[1:]
            runpy.run_path(sys.argv[0], run_name="__main__")"""
        code, lines = run(os.path.join(ROOT, "export.py"), path, "-o", path + ".gguf",
                          python=("-c", wrapper))
        check(code == 1 and len(lines) == 1 and "consolidated.00.pth" in lines[0]
              and "MemoryError" not in lines[0], f"a pickle: {code} {lines}")


def check_options(folder):
    for arguments in ((), ("a", "b"), ("a", "--type", "q9_0"), ("a", "--nonsense"), ("a", "-o")):
        code, lines = run(*arguments)
        check(code == 2 and len(lines) == 1, "{}: {} {}".format(arguments, code, lines))
    source = os.path.join(folder, "default.bin")
    write_stories(source, 0, STORIES, random_stories(STORIES), 1)
    write_tokenizer_bin(os.path.join(folder, "tokenizer.bin"), stories_tokens(300))
    code, _ = run(source)
    check(code == 0 and os.path.exists(os.path.join(folder, "default.gguf")), "default name")
    code, lines = run(source, "-o", os.path.join(folder, "none", "a.gguf"))
    check(code == 1 and len(lines) == 1, "no such directory: {} {}".format(code, lines))
    code, lines = run(source, "-o", folder)
    check(code == 1 and len(lines) == 1, "output is a directory: {} {}".format(code, lines))


# ---- memory and interruption ---------------------------------------------------------------------


def check_large(folder):
    """200 MB in 10 tensors of 20 MB: peak memory must not follow the file. A signal in the middle
    must leave nothing."""
    config = dict(CONFIG, hidden_size=2048, intermediate_size=4096, num_attention_heads=16,
                  num_key_value_heads=4, num_hidden_layers=1, vocab_size=5120)
    names = huggingface_weights(dict(config, hidden_size=16, intermediate_size=16, vocab_size=16))
    shapes = {"embed_tokens": (5120, 2048), "lm_head": (5120, 2048), "q_proj": (2048, 2048),
              "k_proj": (512, 2048), "v_proj": (512, 2048), "o_proj": (2048, 2048),
              "gate_proj": (4096, 2048), "up_proj": (4096, 2048), "down_proj": (2048, 4096)}
    noise = random.standard_normal(5120 * 2048, np.float32) * np.float32(0.05)
    weights = {}
    for name in names:
        shape = shapes.get(name.split(".")[-2], (2048,))
        weights[name] = noise[:math.prod(shape)].reshape(shape)
    small, large = os.path.join(folder, "small"), os.path.join(folder, "large")
    write_model(small, CONFIG)
    write_model(large, config, weights)
    size = os.path.getsize(os.path.join(large, "model.safetensors"))
    biggest = noise.nbytes
    path = os.path.join(folder, "large.gguf")
    base = peak_memory(small, "-o", path)
    if base is None:
        skip("no /proc to tell the peak memory")
    for kind in ("f16", "q8_0", "q4_0") if base else ():
        start = time.time()
        extra = peak_memory(large, "-o", path, "--type", kind) - base
        check(extra < 2 * biggest, "{}: {} MB on top for tensors up to {} MB".format(
            kind, extra >> 20, biggest >> 20))
        print("{}: {} MB in {:.1f} s, {} MB of memory on top of {}".format(
            kind, size >> 20, time.time() - start, extra >> 20, base >> 20))
    if os.path.exists(path):
        os.unlink(path)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen([sys.executable, os.path.join(ROOT, "export.py"), large, "-o",
                                    path, "--type", "q4_0"], stderr=subprocess.PIPE,
                                   # in the background of a shell a program begins deaf to SIGINT
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        deadline = time.time() + 20
        while not any(".tmp" in name for name in os.listdir(folder)) and time.time() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate()[1].decode().splitlines()
        check(process.returncode == code and len([e for e in errors if "vocabulary" not in e]) <= 1,
              "signal {}: {} {}".format(number, process.returncode, errors))
        check(not any("large." in name for name in os.listdir(folder)), "a signal leaves a file")


def main():
    module = load_export()
    with tempfile.TemporaryDirectory() as folder:
        parts = [(check_formats, module), (check_names, module), (check_limits, module)]
        parts += [(part, folder) for part in (
            check_llama2c, check_sample, check_huggingface, check_scaling, check_byte_bpe,
            check_sentencepiece, check_ends, check_templates, check_added, check_tied,
            check_sampling, check_refused, check_mutations, check_pickle, check_meta,
            check_logits, check_in_run, check_saved_tokenizer, check_gemma4,
            check_damaged_llama2c, check_damaged_huggingface, check_options, check_large)]
        for part, *arguments in parts:
            inner = os.path.join(folder, part.__name__)
            os.makedirs(inner)
            try:
                part(*[inner if a is folder else a for a in arguments])
            except Exception as error:
                check(False, "{}: {}: {}".format(part.__name__, type(error).__name__, error))
    print("{passed} passed, {failed} failed{0}".format(
        ", {} skipped".format(counts["skipped"]) if counts["skipped"] else "", **counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
