"""Compares logits with Hugging Face transformers on tiny random models.

    python3 tests/parity/models.py [NAME...]            all cases, or those or families named
    python3 tests/parity/models.py --write [NAME...]    write the goldens of tests/goldens

Each case, see cases.py, is a model that transformers makes and saves, export.py converts and run.c
evaluates. Differences are given as shares of the range of the reference logits (largest - smallest).

run.c keeps keys and values in float16 unless it is told otherwise, which alone moves the logits by
up to a thousandth of their range. So each file is evaluated with a cache of float32 and compared
with transformers as it is, and with a cache of float16 and compared with transformers rounding keys
and values in the same way. The logits must also be near those of the model before export.py.

The exported file is also evaluated by Paper below, a forward pass in double precision written from
the papers. It stands between the two: where it agrees with transformers and run.c does not, the
file is right. And it says whether a case can fail at all: with one detail of the model changed, it
must leave the tolerance.

Paper knows llama and qwen2. Cases of other families are compared with transformers in f32, and say
what must show: settings and weights of the model of transformers are changed for that. Their files
of other formats must give the logits that the same weights give as f32.
"""

import contextlib
import copy
import json
import math
import os
import re
import subprocess
import sys
import warnings
import zlib

import numpy as np
import torch
import transformers
from gguf import GGUFReader, GGUFWriter
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from transformers import (AttentionInterface, AutoConfig, AutoModelForCausalLM,
                          AutoModelForImageTextToText)
from transformers.generation import logits_process as process
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

import llm
from cases import Case, cases, golden_cases, wrapped_texts

GOLDENS = llm.ROOT / "tests" / "goldens"

# The rows of isas[] in run.c; those that the machine lacks are left out.
KERNELS = ("portable", "avx2", "avx512", "amx", "neon")

# Differences allowed from transformers with the weights of the file, by the format of the cache: the
# root mean square of all, and the largest. A key in the middle between two float16 numbers may
# become the other one and move a few logits by a ten-thousandth; that hardly shows in the mean.
TYPICAL = {"f32": 1e-6, "f16": 2e-5}
LARGEST = {"f32": 5e-6, "f16": 5e-4}

# Fast kernels may round activations to 8 bits when the weights are of a block format.
BLOCK_TYPES = ("q8_0", "q4_0", "q4_k_m", "mxfp4")
FAST_TYPICAL = 4e-3
FAST_LARGEST = 2e-2

# Tiles of bf16 take a number for the sum of two, which leaves an error of about 2**-17.
TILES_TYPICAL = 4e-5
TILES_LARGEST = 6e-4

# The largest difference allowed from transformers with the model before export.py, by the formats
# of the file and of the cache.
FROM_ORIGINAL = {("f32", "f32"): 2e-4, ("f16", "f32"): 5e-3, ("f32", "f16"): 5e-3,
                 ("f16", "f16"): 5e-3}

# How far the score of an expert must be ahead of those that are not chosen.
LEAD = 2e-3

# transformers computes in float32, Paper in float64
PAPER_TOLERANCE = 2e-5

# The stored goldens from the same computed again: another processor may round a key or value
# differently.
GOLDEN_TOLERANCE = 1e-4

# A changed detail must move the logits at least this far.
NOTICED = 1e-2


# ---- making them --------------------------------------------------------------------------------

def randomize(model, case, seed):
    """Weights that keep the residual stream near 1 and have attention choose. With larger ones the
    last bit of a key grows into the fourth digit of a logit, with smaller ones rope hardly counts.
    """
    rng = torch.Generator().manual_seed(seed)
    config = model.config.get_text_config()
    kind = config.model_type
    turned = kind == "gpt_oss"  # experts that are columns of their matrices
    gemma = re.match("gemma", kind)  # the embedding is scaled
    one_more = re.match("gemma(2|3_text)?$|qwen3_5|muse", kind)  # norms add 1 to their weights
    gpt2 = kind == "gpt2"  # matrices have a row for each input
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=rng)
            if re.search(r"norm|ln_", name) and not name.endswith("bias"):
                alone = re.search(r"linear_attn|language_model\.norm", name)
                p.copy_((0 if one_more and not alone else 1) + 0.3 * noise)
                if kind == "gemma4_text" and "q_norm" in name:  # scores are not scaled
                    p.mul_(2 / math.sqrt(len(p)))
            elif re.search(r"\.((per_expert_)?scale|D)$", name):
                p.copy_(1 + 0.3 * noise)
            elif name.endswith("router.proj.weight"):  # which is given a vector of length 1
                p.copy_(2 * noise)
            elif name.endswith("A_log"):
                p.copy_(noise - 2)  # half of a state is there after some five tokens
            elif name.endswith(("e_score_correction_bias", "expert_bias")):
                p.copy_(0.2 * noise / (p.shape[-1] if "statics" in name else 1))
            elif name.endswith("bias") or "act_fn" in name:
                p.copy_(0.5 * noise)
            elif re.search(r"embed_tokens|embeddings|wte|wpe", name):
                soft = not case.paper and getattr(model.config, "tie_word_embeddings", False)
                p.copy_(noise / math.sqrt(p.shape[1]) if gemma else noise * (0.3 if soft else 1.0))
            elif name.endswith("sinks"):
                p.copy_(noise)
            else:
                gain = 2.0 if re.search(r"q_proj|q_b_proj|\.(gate|router)\.weight", name) else 1.0
                inputs = p.shape[0 if gpt2 else 1 if p.dim() == 2 or turned else -1]
                p.copy_(noise * gain / math.sqrt(inputs))
        for name, p in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                p.copy_(0.2 * torch.randn(p.shape, generator=rng))
            elif name.endswith("layer_scalar"):
                p.copy_(1 + 0.2 * torch.randn(p.shape, generator=rng))


def model_class(config):
    """Some texts have no class of their own."""
    alone = type(config) in AutoModelForCausalLM._model_mapping.keys()
    return AutoModelForCausalLM if alone else AutoModelForImageTextToText


def router_scores(module, states, bias=None):
    """(positions, experts) What a router of transformers chooses by, or what is in the same order.
    A sigmoid changes by a quarter at most of what its argument changes. Some routers have the bias
    of the choice, others are called with it."""
    weight = module.gate.weight if hasattr(module, "gate") else module.weight
    logits = torch.nn.functional.linear(states, weight, getattr(module, "bias", None))
    if hasattr(module, "moe_statics"):
        return 4 * (logits.softmax(-1) + module.moe_statics.e_score_correction_bias)
    bias = getattr(module, "e_score_correction_bias", bias)
    return logits if bias is None else 4 * (logits.sigmoid() + bias)


def lead(scores, chosen):
    """How far the last of those chosen is ahead of the next, at each position."""
    if scores.shape[1] <= chosen:
        return torch.full(scores.shape[:1], math.inf)
    scores = scores.sort(-1, descending=True).values
    return scores[:, chosen - 1] - scores[:, chosen]


def leads(model, tokens):
    """(positions) The smallest lead of a chosen expert, or group of experts, in any layer. Where it
    is next to nothing, the order of a sum decides."""
    smallest = torch.full((len(tokens),), math.inf)

    def watch(module, arguments, output):
        nonlocal smallest
        states, *bias = arguments
        if hasattr(module, "proj"):  # Gemma 4
            smallest = torch.minimum(smallest, lead(output[0].log(), module.config.top_k_experts))
            return
        scores = router_scores(module, states.reshape(len(tokens), -1), *bias)
        if getattr(module, "topk_group", None) and getattr(module, "topk_method", "") != "greedy":
            groups = scores.reshape(len(scores), module.num_group, -1)
            best = groups.topk(2).values.sum(-1) if hasattr(module, "e_score_correction_bias") \
                else groups.max(-1).values
            smallest = torch.minimum(smallest, lead(best, module.topk_group))
            out = best < best.topk(module.topk_group).values[:, -1:]
            scores = groups.masked_fill(out[..., None], -math.inf).flatten(1)
        smallest = torch.minimum(smallest, lead(scores, module.top_k))

    hooks = [module.register_forward_hook(watch) for module in model.modules()
             if type(module).__name__.endswith("Router")]
    transformers_logits(model, tokens)
    for hook in hooks:
        hook.remove()
    return smallest


def spell_as_before(path, type_key, kind_of_config):
    """Rewrites config.json the way most published models have it: rope_theta and rope_scaling
    instead of rope_parameters, torch_dtype, and no keys that follow from others."""
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    if "full_attention" in parameters:
        if config["model_type"] == "gemma3_text":
            config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    config["rope_theta"] = parameters.pop("rope_theta")
    for key in ("partial_rotary_factor", "original_max_position_embeddings"):
        if key in parameters and config["model_type"] == "phi3":
            config[key] = parameters.pop(key)
    kind = parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {type_key: kind, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    follows = {"head_dim": config["hidden_size"] // config["num_attention_heads"],
               "num_key_value_heads": config["num_attention_heads"]}
    for key, value in follows.items():
        if config.get(key) == value and getattr(kind_of_config, key, None) is None:
            del config[key]
    path.write_text(json.dumps(config, indent=2))


def draw_packed(model, seed):
    """Experts of random bits as gpt-oss publishes them; transformers says which numbers they are.
    Returns {name in the file: tensor}."""
    rng, packed = torch.Generator().manual_seed(seed), {}
    for name, p in model.named_parameters():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, outputs = p.shape
            blocks = torch.randint(256, (experts, outputs, inputs // 32, 16), generator=rng)
            scales = torch.randint(121, 124, blocks.shape[:-1], generator=rng)
            blocks, scales = blocks.to(torch.uint8), scales.to(torch.uint8)
            with torch.no_grad():
                p.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
            packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    return packed


def write_packed(folder, packed):
    """Puts the packed experts in place of the others."""
    file, config = folder / "model.safetensors", folder / "config.json"
    kept = {name: t for name, t in load_file(file).items() if f"{name}_blocks" not in packed}
    save_file(kept | packed, file, metadata={"format": "pt"})
    settings = dict(json.loads(config.read_text()), quantization_config={"quant_method": "mxfp4"})
    config.write_text(json.dumps(settings))


def save(case, folder):
    """A directory as on the hub, and the model that transformers reads from it, in float32."""
    kind = model_class(case.config)
    model = kind.from_config(case.config).eval()
    for seed in range(zlib.crc32(case.name.encode()), 2**33):
        randomize(model, case, seed)
        packed = draw_packed(model, seed) if case.packed else {}
        ahead = leads(model.to(case.dtype).float(), some_tokens(case))
        if ahead.min() > LEAD and ahead[:case.steady].min() > case.steady_lead:
            break
    model.to(case.dtype).save_pretrained(folder, max_shard_size=case.shard)
    if packed:
        write_packed(folder, packed)
        return model.float()
    if case.old_config:
        spell_as_before(folder / "config.json", case.old_config, type(case.config))
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def half_cache(module, query, key, value, mask, **more):
    """Attention of transformers with keys and values rounded to float16."""
    return eager_attention_forward(module, query, key.half().float(), value.half().float(), mask,
                                   **more)


AttentionInterface.register("half_cache", half_cache)
AttentionMaskInterface.register("half_cache", eager_mask)


def transformers_logits(model, tokens, attention="eager"):
    """(positions, vocab_size)"""
    model.set_attn_implementation(attention)
    model.set_experts_implementation("eager")  # the others want rows of whole 16 bytes
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()


def export(folder, kind, output):
    command = [sys.executable, str(llm.ROOT / "export.py"), str(folder), "--type", kind,
               "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"export.py --type {kind}: exit status {result.returncode}: "
                           f"{(result.stderr or result.stdout).strip()[-500:]}")


def export_fused(arch, model, output):
    """GLM or Phi-3 as llama (rotates neighbours) or qwen2 (rotates halves), in float32. GLM rotates
    neighbours by itself, so its rows keep their order."""
    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    partial = config.rope_parameters["partial_rotary_factor"]
    state = {name: p.detach().numpy() for name, p in model.named_parameters()}
    out = GGUFWriter(output, arch)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head_dim)
    out.add_value_length(head_dim)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_rope_dimension_count(int(head_dim * partial))
    out.add_vocab_size(config.vocab_size)

    def add(name, tensor):
        out.add_tensor(name, np.ascontiguousarray(tensor, np.float32))

    add("token_embd.weight", state["model.embed_tokens.weight"])
    add("output_norm.weight", state["model.norm.weight"])
    add("output.weight", state["lm_head.weight"])
    for i in range(config.num_hidden_layers):
        old, new = f"model.layers.{i}.", f"blk.{i}."
        add(new + "attn_norm.weight", state[old + "input_layernorm.weight"])
        add(new + "ffn_norm.weight", state[old + "post_attention_layernorm.weight"])
        if old + "self_attn.qkv_proj.weight" in state:
            ends = [heads * head_dim, (heads + kv_heads) * head_dim]
            qkv = np.split(state[old + "self_attn.qkv_proj.weight"], ends)
            for letter, w in zip("qkv", qkv):
                add(new + f"attn_{letter}.weight", w)
                add(new + f"attn_{letter}.bias", np.zeros(len(w), np.float32))
        else:
            for letter in "qkv":
                for part in ("weight", "bias"):
                    source = f"self_attn.{letter}_proj.{part}"
                    add(new + f"attn_{letter}.{part}", state[old + source])
        add(new + "attn_output.weight", state[old + "self_attn.o_proj.weight"])
        gate, up = np.split(state[old + "mlp.gate_up_proj.weight"], 2)
        add(new + "ffn_gate.weight", gate)
        add(new + "ffn_up.weight", up)
        add(new + "ffn_down.weight", state[old + "mlp.down_proj.weight"])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---- the second reference -----------------------------------------------------------------------

class Paper:
    """A GGUF file of the llama or qwen2 family and its forward pass in double precision.

    "Attention Is All You Need", RMSNorm (arXiv 1910.07467), GLU variants (2002.05202), rotary
    embedding (2104.09864), grouped heads (2305.13245), YaRN (2309.00071); names of keys and
    tensors from the GGUF specification.
    """

    def __init__(self, path):
        reader = GGUFReader(path)
        meta = {key: f.contents() for key, f in reader.fields.items()}
        self.arch = meta["general.architecture"]
        prefix = self.arch + "."
        self.meta = {k[len(prefix):]: v for k, v in meta.items() if k.startswith(prefix)}
        self.w = {}
        for t in reader.tensors:
            values = np.array(dequantize(t.data, t.tensor_type), np.float64)
            self.w[t.name] = values.reshape([int(n) for n in reversed(t.shape)])
        self.heads = self.meta["attention.head_count"]
        self.kv_heads = self.meta.get("attention.head_count_kv", self.heads)
        dim = self.meta["embedding_length"]
        self.head_dim = self.meta.get("attention.key_length", dim // self.heads)
        self.neighbours = self.arch == "llama"  # else element i goes with i + n_rot / 2
        self.cosine = 1.0
        self.interleave_kv = False

    def frequencies(self):
        """(n_rot / 2) angles of one position, and the factor of cosine and sine."""
        meta = self.meta
        n = meta.get("rope.dimension_count", self.head_dim)
        base = meta.get("rope.freq_base", 10000.0)
        f = base ** (-np.arange(0, n, 2) / n)
        if "rope_freqs.weight" in self.w:
            f = f / self.w["rope_freqs.weight"]
        kind, factor = meta.get("rope.scaling.type", "none"), meta.get("rope.scaling.factor", 1.0)
        if kind == "linear":
            return f / factor, 1.0
        if kind != "yarn":
            return f, 1.0
        original = meta["rope.scaling.original_context_length"]

        def turns(key, default):  # the dimension that turns this often in the original context
            often = meta.get("rope.scaling." + key, default)
            return n * math.log(original / (2 * math.pi * often)) / (2 * math.log(base))

        low = max(math.floor(turns("yarn_beta_fast", 32.0)), 0)
        high = min(math.ceil(turns("yarn_beta_slow", 1.0)), n - 1)
        ramp = np.clip((np.arange(n // 2) - low) / max(high - low, 0.001), 0, 1)
        cosine = meta.get("rope.scaling.attn_factor", 1.0) * (1 + 0.1 * math.log(factor))
        return f * (1 - ramp) + f / factor * ramp, cosine

    def rotate(self, x):
        """x (positions, heads, head_dim)"""
        f, scale = self.frequencies()
        half = len(f)
        angle = np.arange(len(x))[:, None, None] * f
        cos, sin = np.cos(angle) * scale * self.cosine, np.sin(angle) * scale * self.cosine
        first, second = ((slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if self.neighbours
                         else (slice(0, half), slice(half, 2 * half)))
        a, b, x = x[..., first], x[..., second], x.copy()
        x[..., first], x[..., second] = a * cos - b * sin, b * cos + a * sin
        return x

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0.0)

    def norm(self, name, x):
        eps = self.meta["attention.layer_norm_rms_epsilon"]
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * self.w[name + ".weight"]

    def attention(self, i, x):
        n = len(x)
        q = self.linear(f"blk.{i}.attn_q", x).reshape(n, self.heads, self.head_dim)
        k = self.linear(f"blk.{i}.attn_k", x).reshape(n, self.kv_heads, self.head_dim)
        v = self.linear(f"blk.{i}.attn_v", x).reshape(n, self.kv_heads, self.head_dim)
        q, k = self.rotate(q), self.rotate(k)
        group = np.arange(self.heads)
        group = group % self.kv_heads if self.interleave_kv else group * self.kv_heads // self.heads
        scores = np.einsum("ihd,jhd->hij", q, k[:, group]) / math.sqrt(self.head_dim)
        scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", p, v[:, group]).reshape(n, -1)
        return self.linear(f"blk.{i}.attn_output", mixed)

    def logits(self, tokens):
        """(positions, vocab_size)"""
        x = self.w["token_embd.weight"][tokens]
        for i in range(self.meta["block_count"]):
            x = x + self.attention(i, self.norm(f"blk.{i}.attn_norm", x))
            h = self.norm(f"blk.{i}.ffn_norm", x)
            gate = self.linear(f"blk.{i}.ffn_gate", h)
            h = gate / (1 + np.exp(-gate)) * self.linear(f"blk.{i}.ffn_up", h)
            x = x + self.linear(f"blk.{i}.ffn_down", h)
        x = self.norm("output_norm", x)
        return self.linear("output" if "output.weight" in self.w else "token_embd", x)


def scale_meta(key, factor):
    def change(paper):
        paper.meta[key] *= factor
    return change


def change_meta(key, value):
    return lambda paper: paper.meta.update({key: value})


def no_scaling(paper):
    paper.w.pop("rope_freqs.weight", None)
    paper.meta["rope.scaling.type"] = "none"


def no_biases(paper):
    for name, w in paper.w.items():
        if name.endswith(".bias"):
            w[:] = 0


def no_norm_weights(paper):
    for name, w in paper.w.items():
        if name.endswith("norm.weight"):
            w[:] = 1


def swap_gate(paper):
    for i in range(paper.meta["block_count"]):
        gate, up = f"blk.{i}.ffn_gate.weight", f"blk.{i}.ffn_up.weight"
        paper.w[gate], paper.w[up] = paper.w[up], paper.w[gate]


def setter(name, value):
    return lambda paper: setattr(paper, name, value)


# What an engine may get wrong. Each case must see the common ones and those it names.
CHANGES = {
    "rope base": scale_meta("rope.freq_base", 1.1),
    "rotation": lambda paper: setattr(paper, "neighbours", not paper.neighbours),
    "norm weights": no_norm_weights,
    "gate and up": swap_gate,
    "eps": scale_meta("attention.layer_norm_rms_epsilon", 0.5),
    "kv heads": setter("interleave_kv", True),
    "scaling": no_scaling,
    "yarn cosine": setter("cosine", 1 / (1 + 0.1 * math.log(4))),
    "yarn fast": change_meta("rope.scaling.yarn_beta_fast", 1e4),
    "yarn slow": change_meta("rope.scaling.yarn_beta_slow", 0.2),
    "whole heads": lambda paper: paper.meta.pop("rope.dimension_count"),
    "biases": no_biases,
}
COMMON = ["rope base", "rotation", "norm weights", "gate and up"]


# ---- checking -----------------------------------------------------------------------------------

def distance(ours, reference):
    """The largest difference as a share of the range of the reference; NaN counts as infinite."""
    worst = float(np.max(np.abs(ours - reference)) / (reference.max() - reference.min()))
    return math.inf if math.isnan(worst) else worst


def root_mean_square(ours, reference):
    error = float(np.sqrt(np.mean((ours - reference) ** 2)) / (reference.max() - reference.min()))
    return math.inf if math.isnan(error) else error


def some_tokens(case):
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    vocab = case.config.get_text_config().vocab_size
    return [int(t) for t in rng.integers(0, vocab, case.positions)]


def take_weights(model, path):
    """Gives the model of transformers the weights that are in the file, as rounding left them.

    llama files have the rows of q and k in an order where neighbours rotate together: row 2i of a
    head is row i of transformers, row 2i + 1 is row i + head_dim / 2.
    """
    paper = Paper(path)
    names = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
    layer = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    for i in range(paper.meta["block_count"]):
        names |= {f"blk.{i}.{ours}": f"model.layers.{i}.{theirs}" for ours, theirs in layer.items()}
    state = dict(model.named_parameters())
    for full, w in paper.w.items():
        if full == "rope_freqs.weight":
            continue
        name, part = full.rsplit(".", 1)
        if paper.arch == "llama" and name.endswith(("attn_q", "attn_k")):
            heads = paper.heads if name.endswith("q") else paper.kv_heads
            w = w.reshape(heads, -1, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
        with torch.no_grad():
            state[f"{names[name]}.{part}"].copy_(torch.from_numpy(w))


def other_rotations(config):
    """Texts of at most that many tokens have other rotations than longer ones; 0: all have the same."""
    rotations = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return rotations.get("original_max_position_embeddings", 0) if (
        rotations.get("rope_type") == "longrope") else 0


def three_ways(model, tokens, cache, border=0):
    """(label, first, logits): all at once, one by one, in growing pieces. Steps and pieces see
    shorter texts, so those of a longer one than border count from its first position on only that
    has the same rotations."""
    context = min(len(tokens) + 30, model.info.context)
    first = border if len(tokens) > border else 0
    with model.session(context=context, cache=cache) as session:
        yield "at once", 0, session.eval_all(tokens)
    with model.session(context=context, cache=cache) as session:
        yield "steps", first, np.stack([session.eval([t]) for t in tokens])
    with model.session(context=context, cache=cache) as session:
        pieces, start, size = [], 0, 1
        while start < len(tokens):
            pieces.append(session.eval_all(tokens[start : start + size]))
            start, size = start + size, size % 50 * 2 + 1
        yield "pieces", first, np.concatenate(pieces)


def machine_kernels(path):
    """The rows of isas[] that this machine has, or what RUN_CPU names; path is any model."""
    if os.environ.get("RUN_CPU"):
        return [os.environ["RUN_CPU"]]
    found = []
    for name in KERNELS:
        try:
            with kernels(name), llm.Model(path) as model:
                if model.info.kernels.decode() == name:
                    found.append(name)
        except llm.Error as e:
            if "no such kernels" not in str(e):
                raise
    return found


@contextlib.contextmanager
def kernels(name):
    """Within it, models that are opened use these kernels."""
    before = os.environ.get("RUN_CPU")
    os.environ["RUN_CPU"] = name
    try:
        yield
    finally:
        os.environ.pop("RUN_CPU")
        if before is not None:
            os.environ["RUN_CPU"] = before


def check_logits(checks, label, logits, reference, typical, largest):
    mean, most = root_mean_square(logits, reference), distance(logits, reference)
    at = int(np.argmax(np.max(np.abs(logits - reference), axis=1)))
    checks.that(mean < typical and most < largest,
                f"{label}: differs by {mean:.2g} of the range, allowed {typical:g}; most by "
                f"{most:.2g}, allowed {largest:g}, at position {at}")
    return most


def check_file(checks, label, path, tokens, references, original=None, kind="f32", room=1.0,
               border=0):
    """Evaluates the file with every row of kernels and both formats of the cache. references holds
    the logits to compare with by that format, original those of the model before export.py.
    Returns {(kernels, cache): largest difference from the reference}."""
    try:
        names = machine_kernels(path)
        checks.that(names, f"{label}: no kernels")
    except llm.Error as e:
        checks.that(False, f"{label}: {e}")
        return {}
    report = {}
    for name in names:
        for cache, reference in references.items():
            typical, largest = TYPICAL[cache], LARGEST[cache]
            if kind in BLOCK_TYPES and name != "portable":
                typical, largest = FAST_TYPICAL, FAST_LARGEST
            elif name == "amx":
                typical, largest = TILES_TYPICAL, TILES_LARGEST
            typical, largest = room * typical, room * largest
            with kernels(name), llm.Model(path) as model:
                ways = list(three_ways(model, tokens, cache, border))
            for way, first, logits in ways:
                where = f"{label}, {name}, {cache} cache, {way}"
                logits, wanted = logits[first:], reference[first:]
                most = check_logits(checks, where, logits, wanted, typical, largest)
                report[name, cache] = max(report.get((name, cache), 0.0), most)
                limit = FROM_ORIGINAL.get((kind, cache))
                if original is not None and limit:
                    check_logits(checks, f"{where}, from the original", logits,
                                 original[first:], limit, limit)
    return report


def check_changes(checks, case, path, tokens, reference):
    least = math.inf
    for name in COMMON + case.notice:
        paper = Paper(path)
        CHANGES[name](paper)
        d = distance(paper.logits(tokens), reference)
        checks.that(d > NOTICED, f"{case.name} would not notice a wrong '{name}' (moves {d:.2g})")
        least = min(least, d)
    return least


def check_paper(checks, case, path, tokens, reference):
    """The second reference agrees with the first, and every change would show."""
    d = distance(Paper(path).logits(tokens), reference)
    checks.that(d < PAPER_TOLERANCE, f"{case.name}: double precision from the file differs by "
                                     f"{d:.2g} of the range from transformers")
    least = check_changes(checks, case, path, tokens, reference)
    print(f"{case.name:15} double precision {d:.1e}, least change {least:.1e}", flush=True)


def check_case(checks, case):
    if not case.paper:
        return check_family(checks, case)
    folder = llm.folder() / case.name
    model = save(case, folder)
    tokens = some_tokens(case)
    reference = transformers_logits(model, tokens)
    table = {}
    for kind in case.types:
        path = llm.folder() / f"{case.name}-{kind}.gguf"
        label = f"{case.name} {kind}"
        if case.export:
            export_fused(case.export, model, path)
        else:
            try:
                export(folder, kind, path)
            except RuntimeError as e:
                checks.that(False, f"{label}: {e}")
                continue
            take_weights(model, path)
        if kind == "f32":
            check_paper(checks, case, path, tokens, reference)
        close = {"f32": transformers_logits(model, tokens),
                 "f16": transformers_logits(model, tokens, "half_cache")}
        report = check_file(checks, label, path, tokens, close, reference, kind)
        for (name, cache), worst in report.items():
            table.setdefault(f"{name}, {cache} cache", []).append(f"{kind} {worst:.1e}")
    for name, columns in table.items():
        print(f"    {name:20} " + "  ".join(columns), flush=True)


def altered(model, what, value):
    """The model with another value of a setting, or with one value for all weights of a name."""
    config = copy.deepcopy(model.config)
    if not what.startswith("/"):
        setattr(config.get_text_config(), what, value)
    other = model_class(config).from_config(config).eval()
    other.load_state_dict(model.state_dict())
    found = [p for name, p in [*other.named_parameters(), *other.named_buffers()]
             if what.startswith("/") and re.search(what[1:], name)]
    for p in found:
        p.fill_(value)
    assert found or not what.startswith("/"), what
    return other


def unpack(path, output):
    """The same file with all numbers as float32."""
    reader = GGUFReader(path)
    out = GGUFWriter(output, reader.fields["general.architecture"].contents())
    for entry in reader.fields.values():
        if not entry.name.startswith("GGUF.") and entry.name != "general.architecture":
            out.add_key_value(entry.name, entry.contents(), entry.types[0],
                              entry.types[-1] if len(entry.types) > 1 else None)
    for t in reader.tensors:
        values = np.array(dequantize(t.data, t.tensor_type), np.float32)
        out.add_tensor(t.name, values.reshape([int(n) for n in reversed(t.shape)]))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def evaluate(path, tokens):
    """Logits by the portable kernels, with a cache of float32."""
    with kernels("portable"), llm.Model(path) as model:
        with model.session(context=len(tokens) + 1, cache="f32") as session:
            return session.eval_all(tokens).astype(float)


def check_half_cache(checks, label, path, tokens, reference, room, border):
    """Keys and values in float16, which is what sessions have if nothing else is said."""
    limit = room * FROM_ORIGINAL["f32", "f16"]
    with llm.Model(path) as model:
        for way, first, logits in three_ways(model, tokens, "f16", border):
            check_logits(checks, f"{label}, f16 cache, {way}", logits[first:],
                         reference[first:len(tokens)], limit, limit)


def check_family(checks, case):
    """A case that Paper does not know."""
    folder, tokens = llm.folder() / case.name, some_tokens(case)
    model = save(case, folder)
    reference, border = transformers_logits(model, tokens), other_rotations(model.config)
    for what, value in case.alter.items():
        d = distance(transformers_logits(altered(model, what, value), tokens), reference)
        checks.that(d > NOTICED, f"{case.name} would not notice another {what} (moves {d:.2g})")
    line = []
    for kind in case.types:
        label, path = f"{case.name} {kind}", llm.folder() / f"{case.name}-{kind}.gguf"
        rounded = "mxfp4" if case.packed else kind
        plain = tokens[:case.steady if rounded in BLOCK_TYPES else None]
        try:
            export(folder, kind, path)
            if kind != "f32":
                unpack(path, f"{path}.unpacked")
                reference = evaluate(f"{path}.unpacked", plain)
        except (RuntimeError, llm.Error) as e:
            checks.that(False, f"{label}: {e}")
            continue
        report = check_file(checks, label, path, plain, {"f32": reference[:len(plain)]},
                            kind=rounded, room=case.room, border=border)
        if kind == "f32":
            check_half_cache(checks, label, path, tokens[:case.steady], reference,
                             case.room, border)
        if kind == "f32" and border and len(tokens) > border:
            short = tokens[:border]
            check_file(checks, f"{label}, a short text in a long session", path, short,
                       {"f32": transformers_logits(model, short)})
        line += [f"{kind} {name} {worst:.1e}" for (name, _), worst in report.items()]
    print(f"{case.name:15} " + "  ".join(line), flush=True)


# ---- sessions -----------------------------------------------------------------------------------

def fails(checks, label, call, *words):
    """The call must fail with a sentence that has these words in it."""
    try:
        call()
    except llm.Error as e:
        missing = [w for w in words if str(w) not in str(e)]
        checks.that(not missing, f"{label}: the error '{e}' lacks {missing}")
    else:
        checks.that(False, f"{label}: no error")


def check_sessions(checks):
    """What a session remembers: rewind, fork, several side by side, and calls that fail."""
    case = next(c for c in cases() if c.name == "biases")
    folder, path = llm.folder() / "sessions", llm.folder() / "sessions.gguf"
    hugging_face = save(case, folder)
    export(folder, "f32", path)
    vocab = case.config.vocab_size
    rng = np.random.default_rng(5)
    tokens = [int(t) for t in rng.integers(0, vocab, 40)]
    with llm.Model(path) as model:
        check_info(checks, model.info, case.config, hugging_face.num_parameters())
        with model.session(context=48) as session:
            checks.that(session.position == 0 and session.context == 48, "sessions: a new session")
            first = session.eval_all(tokens)
            checks.that(session.position == 40, "sessions: position after 40 tokens")
            checks.that(np.array_equal(session.logits(), first[-1]), "sessions: llm_logits")
            checks.that(session.sample() == int(first[-1].argmax()), "sessions: greedy sample")

            session.rewind(0)
            checks.that(np.array_equal(session.eval_all(tokens), first),
                        "sessions: rewind to 0, the same tokens, other logits")
            session.rewind(10)
            checks.that(session.position == 10, "sessions: position after rewind")
            other = session.eval_all(tokens[::-1][:5])
            session.rewind(10)
            d = distance(session.eval_all(tokens[10:]), first[10:])
            checks.that(d < LARGEST["f16"], f"sessions: rewind to 10 differs by {d:.2g}")
            checks.that(distance(other, first[10:15]) > NOTICED,
                        "sessions: other tokens, same logits")

            check_fork(checks, session, tokens, first)
            check_limits(checks, session, tokens, vocab)
        check_many(checks, model, vocab)
        check_sampling(checks, model, tokens)
    print("sessions", flush=True)


def check_info(checks, info, config, parameters):
    found = (info.arch, info.format.lower(), info.context, info.vocab_size, info.dim,
             info.hidden_dim, info.n_layers, info.n_heads, info.n_kv_heads, info.head_dim,
             info.has_weights, info.n_params, info.sampling.temperature)
    wanted = (b"llama", b"f32", config.max_position_embeddings, config.vocab_size,
              config.hidden_size, config.intermediate_size, config.num_hidden_layers,
              config.num_attention_heads, config.num_key_value_heads, config.head_dim,
              1, parameters, 1.0)
    checks.that(found == wanted, f"llm_info: {found}, expected {wanted}")


def check_fork(checks, session, tokens, first):
    session.rewind(20)
    with session.fork() as fork:
        checks.that(fork.position == 20 and fork.context == session.context, "fork: position")
        session.eval(tokens[::-1][:10])  # must not show in the fork
        d = distance(fork.eval_all(tokens[20:]), first[20:])
        checks.that(d < LARGEST["f16"], f"fork: the copy differs by {d:.2g}")
        session.rewind(20)
        d = distance(session.eval_all(tokens[20:]), first[20:])
        checks.that(d < LARGEST["f16"], f"fork: the original differs by {d:.2g}")
        checks.that(session.sample() == fork.sample(), "fork: other greedy token")


def check_limits(checks, session, tokens, vocab):
    """A call that fails leaves the session as it was."""
    session.rewind(20)
    fails(checks, "too many tokens", lambda: session.eval([3] * 29), 48)
    fails(checks, "token beyond the vocabulary", lambda: session.eval([1, vocab]), vocab)
    fails(checks, "negative token", lambda: session.eval([-1]), -1)
    fails(checks, "no tokens", lambda: session.eval([]))
    fails(checks, "rewind forwards", lambda: session.rewind(21), 21)
    fails(checks, "rewind before the start", lambda: session.rewind(-1), -1)
    checks.that(session.position == 20, "limits: a failed call moved the position")
    wanted = session.eval(tokens[20:21])
    session.rewind(20)
    checks.that(np.array_equal(session.eval(tokens[20:21]), wanted),
                "limits: the same token, other logits")


def check_many(checks, model, vocab):
    """Four sessions of different lengths through one pass must be what each is alone."""
    rng = np.random.default_rng(6)
    pasts = [[int(t) for t in rng.integers(0, vocab, n)] for n in (1, 7, 16, 30)]
    steps = rng.integers(0, vocab, (12, 4))
    together = [model.session(context=48) for _ in pasts]
    alone = [model.session(context=48) for _ in pasts]
    for past, a, b in zip(pasts, together, alone):
        a.eval(past)
        b.eval(past)
    worst = 0.0
    for step in steps:
        llm.eval_many(together, step)
        for token, a, b in zip(step, together, alone):
            worst = max(worst, distance(a.logits(), b.eval([token]).astype(float)))
    checks.that(worst < LARGEST["f16"], f"eval_many: differs by {worst:.2g}")
    checks.that([s.position for s in together] == [s.position for s in alone],
                "eval_many: position")
    fails(checks, "eval_many: a session twice",
          lambda: llm.eval_many([together[0], together[0]], [1, 2]))
    fails(checks, "eval_many: token beyond the vocabulary",
          lambda: llm.eval_many(together, [1, 2, vocab, 3]), vocab)
    checks.that([s.position for s in together] == [s.position for s in alone],
                "eval_many: a failed call moved a position")
    for session in together + alone:
        session.free()


def likelihoods(logits, past, p):
    """The probabilities from which transformers would draw."""
    ids, scores = torch.tensor([past]), torch.tensor(logits)[None]
    steps = [process.RepetitionPenaltyLogitsProcessor(p.repeat_penalty or 1.0),
             process.TemperatureLogitsWarper(p.temperature)]
    steps += [process.TopKLogitsWarper(p.top_k)] if p.top_k else []
    steps += [process.TopPLogitsWarper(p.top_p)] if p.top_p else []
    steps += [process.MinPLogitsWarper(p.min_p)] if p.min_p else []
    for step in steps:
        scores = step(ids, scores)
    return torch.softmax(scores[0].double(), dim=-1).numpy()


def check_sampling(checks, model, tokens):
    """Draws must come from the distribution that transformers makes of the same settings."""
    draws = 20000
    settings = [dict(temperature=1.0), dict(temperature=0.5), dict(temperature=2.0, top_k=5),
                dict(temperature=1.0, top_p=0.6), dict(temperature=1.5, min_p=0.3),
                dict(temperature=2.0, repeat_penalty=4.0),  # hot: tokens below zero are drawn too
                dict(temperature=1.2, top_k=20, top_p=0.8, min_p=0.03, repeat_penalty=1.2)]
    with model.session(context=48, seed=11) as session:
        logits = session.eval(tokens)
        for setting in settings:
            sampling = llm.Sampling(**setting)
            wanted = likelihoods(logits, tokens, sampling)
            found = np.bincount([session.sample(sampling) for _ in range(draws)],
                                minlength=len(wanted)) / draws
            # half the sum of differences; chance alone gives about 0.4 sqrt(kept / draws)
            d = float(np.abs(found - wanted).sum() / 2)
            limit = 0.55 * math.sqrt(np.count_nonzero(wanted) / draws)
            checks.that(d < limit, f"sampling {setting}: {d:.3f} from transformers' distribution, "
                                   f"expected below {limit:.3f}")
            outside = np.flatnonzero((found > 0) & (wanted == 0))
            checks.that(not len(outside), f"sampling {setting}: drew tokens {outside}")


# ---- models that see ----------------------------------------------------------------------------

def check_wrapped(checks):
    """The model of text in one of images and text gives the same file as by itself."""
    vision = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_hidden_layers=1,
                  image_size=28, patch_size=14)
    for name, (text, eyes) in wrapped_texts().items():
        model = AutoModelForCausalLM.from_config(text)
        randomize(model, Case(name, text, paper=False), 1)
        whole = AutoModelForImageTextToText.from_config(AutoConfig.for_model(
            name, text_config=text.to_dict(), image_token_index=1,
            vision_config=AutoConfig.for_model(eyes, **vision).to_dict()))
        whole.model.language_model.load_state_dict(model.model.state_dict())
        files = []
        for kind, saved in (("alone", model), ("whole", whole)):
            folder = llm.folder() / kind / name
            saved.save_pretrained(folder)
            files.append(llm.folder() / f"{name}-{kind}.gguf")
            export(folder, "f32", files[-1])
        checks.that(files[0].read_bytes() == files[1].read_bytes(),
                    f"{name}: another file than that of the model of text alone")
    print("wrapped", flush=True)


# ---- goldens ------------------------------------------------------------------------------------

def golden_reference(case, folder):
    tokens = some_tokens(case)
    return tokens, transformers_logits(save(case, folder), tokens)


def write_goldens(names):
    """NAME.gguf, and NAME.txt with the lines `tokens T0 T1 ...`, `range R` (largest - smallest
    logit of all positions) and, for some positions, `logits POSITION V0 V1 ...`: what transformers
    computes."""
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for case in golden_cases():
        if names and case.name not in names:
            continue
        folder = llm.folder() / f"golden-{case.name}"
        tokens, reference = golden_reference(case, folder)
        lines = ["tokens " + " ".join(map(str, tokens)),
                 f"range {reference.max() - reference.min():.9g}"]
        for position in (0, 1, 2, 15, 16, 31, len(tokens) - 1):
            values = " ".join(f"{v:.9g}" for v in reference[position])
            lines.append(f"logits {position} {values}")
        text, file = GOLDENS / f"{case.name}.txt", GOLDENS / f"{case.name}.gguf"
        text.write_text("\n".join(lines) + "\n")
        export(folder, "f16", file)
        for path in (text, file):
            print(f"wrote {path.relative_to(llm.ROOT)}, {path.stat().st_size} bytes")


def check_goldens(checks):
    """The stored logits must be those of transformers today, and ours from the stored file."""
    for case in golden_cases():
        label = f"golden {case.name}"
        text, file = GOLDENS / f"{case.name}.txt", GOLDENS / f"{case.name}.gguf"
        if not checks.that(text.exists() and file.exists(), f"{label} is missing; use --write"):
            continue
        tokens, reference = golden_reference(case, llm.folder() / f"golden-{case.name}")
        lines = [line.split(" ") for line in text.read_text().splitlines()]
        scale = float(lines[1][1])
        checks.that(lines[0] == ["tokens", *map(str, tokens)] and len(lines) > 5,
                    f"{label}: other tokens, or too few positions")
        for word, position, *values in lines[2:]:
            stored = np.array([float(v) for v in values])
            d = float(np.max(np.abs(stored - reference[int(position)]))) / scale
            checks.that(word == "logits" and d < GOLDEN_TOLERANCE,
                        f"{label}: position {position} differs by {d:.2g} from transformers")
        if case.paper:
            check_changes(checks, case, file, tokens, reference)
        report = check_file(checks, label, file, tokens, {"f32": reference}, room=case.room,
                            border=other_rotations(case.config))
        line = "  ".join(f"{name} {worst:.1e}" for (name, _), worst in report.items())
        print(f"{label}  {line}", flush=True)


def prepare():
    """What every script that runs models of transformers begins with: no remarks, no gradients."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_grad_enabled(False)


def main():
    prepare()
    names = sys.argv[1:]
    if names[:1] == ["--write"]:
        write_goldens(names[1:])
        return 0
    known = {case.name: lambda checks, case=case: check_case(checks, case) for case in cases()}
    known |= {"sessions": check_sessions, "wrapped": check_wrapped,
              "goldens": check_goldens}
    families = {}
    for case in cases():
        families.setdefault(case.family, []).append(case.name)
    unknown = [name for name in names if name not in known and name not in families]
    if unknown:
        print(f"models.py: no case or family {unknown[0]}; there are {' '.join(families)} and "
              f"{' '.join(known)}", file=sys.stderr)
        return 2
    checks = llm.Checks()
    for name in names or known:
        for chosen in families.get(name, [name]):
            try:
                known[chosen](checks)
            except llm.Error as e:
                checks.that(False, f"{chosen}: {e}")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
