#!/usr/bin/env python3
"""Make the GGUF file that run reads from a model in another form. Needs numpy, nothing else.

    python3 export.py INPUT [--tokenizer FILE] [--type TYPE] [-o OUT.gguf]

INPUT is one of
    FILE.bin    a llama2.c checkpoint, version 0, 1 or 2, with tokenizer.bin beside it
    DIRECTORY   a Hugging Face model: config.json, *.safetensors, tokenizer.json or .model
    DIRECTORY   Meta's files: params.json, consolidated.*.pth, tokenizer.model (or one .pth)

Each of the three readers gives the same two things: the metadata, a dict of GGUF keys, and the
tensors, a dict of Tensor by GGUF name. A Tensor is not the numbers but the way to read them, so
write_gguf can pass the weights through memory a few rows at a time.
"""
import argparse
import collections
import io
import itertools
import json
import math
import os
import pickle
import pickletools
import re
import signal
import struct
import sys
import zipfile

import numpy as np


class ExportError(Exception):
    """One sentence for the user: what was found and what was expected."""


def require(condition, message):
    if not condition:
        raise ExportError(message)


notes = []  # for stderr once the file is written, so that a failure is one line


def say(text):
    """One line on stderr, whatever the names in a file contain, in place of a progress bar."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    print(("\r\033[K" if sys.stderr.isatty() else "") + "export.py: " + text, file=sys.stderr)


# ---- number formats ------------------------------------------------------------------------------
# Each encoder takes float32 (rows, columns) and returns an array with the bytes of these rows. The
# blocks of 32 equal ggml's reference quantization bit for bit, so every step and its order count.


def encode_bf16(values):
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def inverse(scale):
    """1 / scale, and 0 for the scale of a block of zeros."""
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def join_parts(*parts):
    """The bytes of blocks from those of their parts, each (blocks, n); floats become f16."""
    parts = [part.astype("<f2") if part.dtype == np.float32 else part for part in parts]
    return np.concatenate([part.view(np.uint8) for part in parts], axis=1)


def nibbles(quants, run):
    """The low four bits: of each 2 * run numbers the first half low, the second half high."""
    pairs = (quants & np.uint8(15)).reshape(len(quants), -1, 2, run)
    return (pairs[:, :, 0] | pairs[:, :, 1] << np.uint8(4)).reshape(len(quants), -1)


def fifth_bits(quants):
    """Packed along the second axis: of (blocks, 32) to 4 bytes each, of (blocks, 8, 32) to 32."""
    return np.packbits(quants >> np.uint8(4), axis=1, bitorder="little").reshape(len(quants), -1)


def encode_q8_0(values):
    """Blocks of 32: the scale as f16, then 32 int8."""
    blocks = values.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * inverse(scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    whole += np.floor(2 * (size - whole))  # halves go away from zero; np.round has them go to even
    return join_parts(scale, (np.sign(scaled) * whole).astype(np.int8))


def furthest(values, axis):
    """The value that is furthest from zero, with its sign."""
    places = np.expand_dims(np.abs(values).argmax(axis), axis)
    return np.take_along_axis(values, places, axis)


def encode_centred(values, half):
    """q4_0 and q5_0. Blocks of 32, (q - half) * scale: the scale as f16, the fifth bits if there
    are any, 16 bytes with the low bits of values 0..15 low and of 16..31 high."""
    blocks = values.reshape(-1, 32)
    scale = furthest(blocks, 1) / np.float32(-half)
    quants = np.trunc(blocks * inverse(scale) + np.float32(half + 0.5))
    quants = quants.astype(np.uint8).clip(0, 2 * half - 1)
    return join_parts(scale, *[fifth_bits(quants)] * (half > 8), nibbles(quants, 16))


def encode_q5_1(values):
    """Blocks of 32, q * scale + least: both as f16, then as q5_0."""
    blocks = values.reshape(-1, 32)
    least = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - least) / np.float32(31)
    quants = np.trunc((blocks - least) * inverse(scale) + np.float32(0.5)).astype(np.uint8)
    return join_parts(scale, least, fifth_bits(quants), nibbles(quants, 16))


# K-quants: super-blocks of 256 in parts of 32 or 16, whose scales are small integers themselves.
# Rounding to the grid that the largest value suggests is not best: as llama.cpp does, each search
# below tries grids somewhat finer and coarser, fits the scale to each rounding by least squares,
# where larger values weigh more, and keeps the fit that leaves the least error. Parts are columns
# here, which numpy adds up fastest.
STRETCH = np.arange(-10, 11, dtype=np.float32) / 10


def fit_lines(parts, top):
    """Returns scale and minus (n,), the best for parts (length, n) ~ q * scale - minus, where q is
    0 to top and minus not negative. Grids start at the best minus so far. A fit explains
    scale * sum(w q x) - minus * sum(w x) of sum(w x x): the most explained is the least error."""
    weight = np.sqrt(np.mean(parts * parts, axis=0)) + np.abs(parts)
    weighed, most = weight * parts, parts.max(axis=0)
    sum_w, sum_x = weight.sum(axis=0), weighed.sum(axis=0)
    best, best_scale = np.zeros_like(most), np.zeros_like(most)
    best_minus = -np.minimum(parts.min(axis=0), 0)
    for stretch in STRETCH:
        step = (top + stretch) * inverse(most + best_minus)
        quants = np.rint((parts + best_minus) * step).clip(0, top)
        product = weight * quants
        sum_q, sum_qx = product.sum(axis=0), (weighed * quants).sum(axis=0)
        sum_qq = (product * quants).sum(axis=0)
        spread = sum_w * sum_qq - sum_q * sum_q
        minus = (sum_q * sum_qx - sum_qq * sum_x) / spread
        minus = np.where((spread > 1e-5 * sum_w * sum_qq) & (minus > 0), minus, 0)
        scale = (sum_qx + minus * sum_q) / sum_qq
        explained = scale * sum_qx - minus * sum_x
        better = explained > best  # which is false for NaN too
        for kept, found in ((best, explained), (best_scale, scale), (best_minus, minus)):
            np.copyto(kept, found, where=better)
    return best_scale, best_minus


def fit_scales(parts):
    """Returns scale (n,), the best for parts (length, n) ~ q * scale, where q is -32 to 31."""
    weighed, step = parts * parts, inverse(furthest(parts, 0)[0])
    best, best_scale = np.zeros_like(step), np.zeros_like(step)
    for stretch in STRETCH:
        quants = np.rint(parts * (step * -(32 + stretch))).clip(-32, 31)
        product = weighed * quants
        sum_qx = (product * parts).sum(axis=0)
        scale = sum_qx / (product * quants).sum(axis=0)
        better = scale * sum_qx > best
        np.copyto(best, scale * sum_qx, where=better)
        np.copyto(best_scale, scale, where=better)
    return best_scale


def as_columns(blocks, length):
    return np.ascontiguousarray(blocks.reshape(-1, length).T)


def whole_scales(scales, least, most):
    """Integers for the scales (blocks, n) of parts and their unit (blocks, 1), as it is after
    rounding to f16. The scale furthest from zero becomes the larger of the limits."""
    unit = (furthest(scales, 1) / np.float32(least or most)).astype("<f2").astype(np.float32)
    return np.rint(scales * inverse(unit)).clip(least, most), unit


def encode_lines(values, top):
    """q4_k and q5_k: 8 x 32, q * scale * s - minus * m: scale and minus as f16, 8 s and 8 m of six
    bits, the fifth bits if there are any, the low bits of 32 values low and of the next 32 high."""
    blocks = values.reshape(-1, 8, 32)
    fits = [part.reshape(-1, 8) for part in fit_lines(as_columns(blocks, 32), top)]
    (s, scale), (m, minus) = (whole_scales(fit, 0, 63) for fit in fits)
    quants = (blocks + (m * minus)[..., None]) * inverse(s * scale)[..., None]
    quants = np.rint(quants).clip(0, top).astype(np.uint8)
    s, m = s.astype(np.uint8), m.astype(np.uint8)
    six = [np.where(np.arange(8) < 4, part, part >> 4 << 6) for part in (s, m)]
    six = [part[:, :4] | part[:, 4:] for part in six] + [s[:, 4:] & 15 | m[:, 4:] << 4]
    return join_parts(scale, minus, *six, *[fifth_bits(quants)] * (top > 15), nibbles(quants, 32))


def encode_q6_k(values):
    """16 x 16, (q - 32) * scale * s: the low bits of 64 values low and of the next 64 high, the
    upper two of 32 values in bits 0 and 1, of the next 32 in 2 and 3..., 16 int8 s, scale as f16.
    """
    blocks = values.reshape(-1, 16, 16)
    s, scale = whole_scales(fit_scales(as_columns(blocks, 16)).reshape(-1, 16), -128, 127)
    quants = np.rint(blocks * inverse(s * scale)[..., None]).clip(-32, 31) + 32
    quants = quants.astype(np.uint8).reshape(-1, 2, 4, 32)
    upper = np.bitwise_or.reduce(quants >> 4 << np.arange(0, 8, 2, np.uint8)[:, None], axis=2)
    return join_parts(nibbles(quants, 64), upper.reshape(-1, 64), s.astype(np.int8), scale)


# To add one: an encoder above and a row here.
#   largest   what a weight may be without overflow, be it in its scale
#   fallback  the format for matrices whose rows the blocks do not fill
Format = collections.namedtuple("Format", "number file_type block bytes largest encode fallback",
                                defaults=["f16"])
FORMATS = {
    "f32": Format(0, 0, 1, 4, 3.4028234e38, lambda values: values.astype("<f4", copy=False)),
    "f16": Format(1, 1, 1, 2, 65504.0, lambda values: values.astype("<f2")),
    "bf16": Format(30, 32, 1, 2, 3.3895313e38, encode_bf16),
    "q8_0": Format(8, 7, 32, 34, 65504.0 * 127, encode_q8_0),
    "q4_0": Format(2, 2, 32, 18, 65504.0 * 8, lambda values: encode_centred(values, 8)),
    "q5_0": Format(6, 8, 32, 22, 65504.0 * 16, lambda values: encode_centred(values, 16)),
    "q5_1": Format(7, 9, 32, 24, 65504.0, encode_q5_1),
    "q4_k": Format(12, 14, 256, 144, 65504.0 * 32, lambda values: encode_lines(values, 15), "q5_0"),
    "q5_k": Format(13, 16, 256, 176, 65504.0 * 32, lambda values: encode_lines(values, 31), "q5_1"),
    "q6_k": Format(14, 18, 256, 210, 65504.0 * 32, encode_q6_k, "q8_0"),
}
# Most matrices of a mix have one format; the rest is up to mixed_format. To add one: a row here.
Mix = collections.namedtuple("Mix", "file_type most")
MIXES = {"q4_k_m": Mix(15, "q4_k"), "q5_k_m": Mix(17, "q5_k")}
TYPES = dict(FORMATS, **MIXES)
EXACT = ("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "ssm_conv1d.weight",
         "shortconv.conv.weight")  # f32 in all types
VALUES = ("attn_v", "attn_qkv", "attn_kv_b")  # weights that have attention's values in them


def mixed_format(name, wanted, metadata, tensors):
    """The name in FORMATS for a matrix of a mix. As llama-quantize chooses, the output is finer,
    and so are, in the first and last eighth of the layers and in every third between, the values
    of attention and the way down."""
    layer, word = re.fullmatch(r"(?:blk\.(\d+)\.)?(.*)\.weight", name).groups()
    layers, experts, heads, kv_heads = (
        metadata.get(f"{metadata['general.architecture']}.{key}", 0) for key in
        ("block_count", "expert_count", "attention.head_count", "attention.head_count_kv"))
    if word == "output" or word == "token_embd" and "output.weight" not in tensors:
        return "q6_k"
    if experts == 8 and word in VALUES + ("attn_k", "attn_output"):  # small beside the experts
        return "q5_k" if word == "attn_output" else "q8_0"
    if word in VALUES or word.startswith("ffn_down"):
        inner = int(layer) - layers // 8
        if inner < 0 or int(layer) >= 7 * layers // 8 or inner % 3 == 2:
            return "q6_k"
    if word in VALUES and layers == 80 and heads != kv_heads:  # 70B, where they are small too
        return "q5_k"
    return MIXES[wanted].most


# ---- tensors -------------------------------------------------------------------------------------

# What files store, and the numpy type to read it with; bf16 is widened by hand.
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1", "BOOL": "u1"}


class Tensor:
    """A matrix (rows, columns), a vector (columns,) or a stack of matrices that lies in a file.
    read(index) gives the rows that a slice or a rising array of numbers picks, as float32
    (n, columns). A vector is one row, the rows of a stack are counted through. packed is a Format
    if what is read are its blocks, as bytes."""

    def __init__(self, shape, read, packed=None):
        self.shape, self.read, self.packed = tuple(shape), read, packed
        self.rows, self.columns = math.prod(self.shape[:-1]), (self.shape or (1,))[-1]


def show(shape):
    return "x".join(map(str, shape)) or "a single number"


def map_file(path, offset, stored, shape):
    """Part of a file as an array, for one slice: what was read counts as memory of this process for
    as long as the mapping lives."""
    return np.asarray(np.memmap(path, STORED[stored], "r", offset, shape))


def tensor_in_file(path, offset, stored, shape):
    def read(index):
        values = map_file(path, offset, stored, (tensor.rows, tensor.columns))[index]
        if stored == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return np.array(values, np.uint8 if stored == "U8" else np.float32)
    tensor = Tensor(shape, read)
    return tensor


def tensor_in_groups(path, offset, group, shape):
    """llama2.c's int8: the values of a matrix, then a float32 scale per group of them. Groups run
    on from one row to the next, so they need not divide a row. index is a slice."""
    def read(index):
        first, last = index.start * shape[1], index.stop * shape[1]
        values = map_file(path, offset, "I8", (count,))[first:last]
        scales = map_file(path, offset + count, "F32", (count // group,))
        scales = scales[first // group:-(-last // group)].repeat(group)
        return (values * scales[first % group:][:len(values)]).reshape(-1, shape[1])
    count = math.prod(shape)
    return Tensor(shape, read)


# How a weight becomes one of the shape that GGUF wants, for the column "change" of ARCHS: functions
# of the tensor, that shape and the sizes.


def halves_to_pairs(tensor, shape, sizes):
    """Hugging Face rotates (i, i + d/2) in each head, GGUF's llama (2i, 2i+1): reorder the rows, or
    the elements of a bias, so that both mean the same."""
    order = np.arange(shape[0]).reshape(shape[0] // sizes["head_dim"], 2, -1)
    order = order.swapaxes(1, 2).reshape(-1)
    if len(shape) == 1:
        return Tensor(shape, lambda index: tensor.read(index)[:, order])
    return Tensor(shape, lambda index: tensor.read(order[index]))


def one_more(tensor, shape, sizes):
    """Gemma multiplies by 1 + weight in its norms, GGUF by the weight."""
    return Tensor(shape, lambda index: tensor.read(index) + np.float32(1))


def turned(tensor, shape, sizes):
    """The rows of each matrix become columns."""
    def read(index):
        wanted = np.arange(math.prod(shape[:-1]))[index]
        matrices = wanted // shape[-2]
        return np.concatenate([
            tensor.read(slice(matrix * shape[-1], (matrix + 1) * shape[-1]))[
                :, wanted[matrices == matrix] % shape[-2]].T for matrix in np.unique(matrices)])
    return Tensor(shape, read)


def upright(tensor, shape, sizes):
    """turned, which blocks are already."""
    if tensor.packed:
        return Tensor(shape, tensor.read, tensor.packed)
    return turned(tensor, shape, sizes)


def rows_of(part):
    """Returns a change that takes a part, a slice, of the rows of each matrix."""
    def change(tensor, shape, sizes):
        order = np.arange(tensor.rows).reshape(math.prod(shape[:-2]), -1)
        order = order[:, part(shape)].reshape(-1)
        return Tensor(shape, lambda index: tensor.read(order[index]), tensor.packed)
    return change


def columns_from(start):
    """Returns a change that takes every other column."""
    return lambda tensor, shape, sizes: Tensor(
        shape, lambda index: tensor.read(index)[:, start::2])


def then(first, second, factor=1):
    """Two changes in turn, the first to a shape of so many times the rows."""
    def change(tensor, shape, sizes):
        middle = shape if factor == 1 else (*shape[:-2], shape[-2] * factor, shape[-1])
        return second(first(tensor, middle, sizes), shape, sizes)
    return change


def reshaped(tensor, shape, sizes):
    """The same rows, counted otherwise."""
    return Tensor(shape, tensor.read)


first_rows = rows_of(lambda shape: slice(0, shape[-2]))
last_rows = rows_of(lambda shape: slice(-shape[-2], None))
even_rows = rows_of(lambda shape: slice(0, None, 2))
odd_rows = rows_of(lambda shape: slice(1, None, 2))


def minus_exp(tensor, shape, sizes):
    """How fast a state decays is stored as a logarithm."""
    return Tensor(shape, lambda index: -np.exp(tensor.read(index)))


def folded(tensor, shape, sizes):
    """A vector as a matrix."""
    return Tensor(shape, lambda index: tensor.read(slice(0, 1)).reshape(shape)[index])


def times(word):
    """Returns a change that multiplies by a number, or each row by its own."""
    def change(tensor, shape, sizes):
        factor = np.broadcast_to(np.float32(sizes["times"][word]), shape[:1])
        return Tensor(shape, lambda index: tensor.read(index) * factor[index, None])
    return change


def turned_values(tensor, shape, sizes):
    """Several heads of values share one of keys. Hugging Face has those that do side by side, GGUF
    puts the first of each key before the second of each: the last rows of a matrix, or all, or the
    elements of a vector."""
    rows = shape[0] if shape[0] != sizes["ssm_conv"] else sizes["inner"]
    values = np.arange(rows).reshape(sizes["groups"], sizes["ssm_heads"] // sizes["groups"], -1)
    order = np.arange(shape[0])
    order[-rows:] = order[-rows:][values.swapaxes(0, 1).reshape(-1)]
    if len(shape) == 1:
        return Tensor(shape, lambda index: tensor.read(index)[:, order])
    return Tensor(shape, lambda index: tensor.read(order[index]))


def turned_value_columns(tensor, shape, sizes):
    """The same for what takes the values."""
    order = np.arange(shape[1]).reshape(sizes["groups"], sizes["ssm_heads"] // sizes["groups"], -1)
    order = order.swapaxes(0, 1).reshape(-1)
    return Tensor(shape, lambda index: tensor.read(index)[:, order])


def key_part(tensor, shape, sizes):
    """What makes keys comes first in each head, and is multiplied from the other side."""
    heads, rank, plain = shape
    return turned(first_rows(tensor, (heads, plain, rank), sizes), shape, sizes)


def in_turn(tensors, shape):
    """The rows of tensors one after the other. index is a slice."""
    starts = np.cumsum([0] + [tensor.rows for tensor in tensors])

    def read(index):
        return np.concatenate([
            tensor.read(slice(max(index.start - first, 0), min(index.stop - first, tensor.rows)))
            for tensor, first in zip(tensors, starts)
            if index.start < first + tensor.rows and index.stop > first])
    return Tensor(shape, read)


def join_shards(name, shards, shape):
    """The matrix of this shape that the shards make up side by side, along whichever axis fits.
    Shards of the whole shape are copies."""
    shapes = [shard.shape for shard in shards]
    if set(shapes) == {shape}:
        return shards[0]
    if len(shape) == 2 and all(len(s) == 2 for s in shapes):
        rows, columns = zip(*shapes)
        if set(columns) == {shape[1]} and sum(rows) == shape[0]:
            return in_turn(shards, shape)
        if set(rows) == {shape[0]} and sum(columns) == shape[1]:
            return Tensor(shape, lambda i: np.concatenate([s.read(i) for s in shards], axis=1))
    raise ExportError(f"{name} is {' and '.join(map(show, shapes))}, expected {show(shape)}")


# ---- the GGUF file -------------------------------------------------------------------------------

ALIGNMENT = 32
SLICE = 1 << 17  # values to have in memory at once; caches hold what the encoders make of them


def pad(size):
    return -size % ALIGNMENT


# What run.c takes of the keys that are written here: from, to, as in its sections 1 and 4. A word
# is another key. Those of the family are without its name.
WIDTH, HEAD, POSITIONS, TOKENS, TAPS = 1 << 20, 640, 1 << 24, 1 << 24, 16
BOUNDS = {
    "block_count": (1, 1024), "context_length": (1, POSITIONS), "embedding_length": (1, WIDTH),
    "feed_forward_length": (1, WIDTH), "vocab_size": (1, TOKENS),
    "attention.head_count": (1, 1024), "attention.head_count_kv": (1, "attention.head_count"),
    "attention.key_length": (1, HEAD), "attention.value_length": (1, HEAD),
    "attention.kv_lora_rank": (1, HEAD), "attention.q_lora_rank": (0, WIDTH),
    "attention.layer_norm_epsilon": (0, 1), "attention.layer_norm_rms_epsilon": (0, 1),
    "attention.scale": (1e-6, 1e6), "attn_logit_softcapping": (0, 1e6),
    "final_logit_softcapping": (0, 1e6), "embedding_scale": (-1e6, 1e6),
    "residual_scale": (-1e6, 1e6), "logit_scale": (1e-6, 1e6),
    "attention.sliding_window": (0, POSITIONS), "attention.temperature_scale": (0, 1e3),
    "expert_count": (0, 1024), "expert_used_count": (1, "expert_count"),
    "expert_weights_scale": (0, 1e6), "leading_dense_block_count": (0, "block_count"),
    "expert_group_count": (0, "expert_count"),
    "expert_group_used_count": (0, "expert_group_count"),
    "rope.freq_base": (1.001, 1e12), "rope.freq_base_swa": (1.001, 1e12),
    "rope.dimension_count": (2, "attention.key_length"),
    "rope.scaling.factor": (1e-3, 1e6), "rope.scaling.attn_factor": (1e-3, 1e3),
    "rope.scaling.original_context_length": (1, POSITIONS),
    "rope.scaling.yarn_beta_fast": (1e-3, 1e6), "rope.scaling.yarn_beta_slow": (1e-3, 1e6),
    "rope.scaling.yarn_log_multiplier": (0, 1e3),
    "attention.key_length_swa": (1, HEAD), "attention.value_length_swa": (1, HEAD),
    "attention.shared_kv_layers": (0, "block_count"), "full_attention_interval": (0, 1024),
    "shortconv.l_cache": (2, TAPS), "ssm.conv_kernel": (2, TAPS), "ssm.inner_size": (1, WIDTH),
    "ssm.state_size": (1, HEAD), "ssm.group_count": (1, 1024), "ssm.time_step_rank": (1, 1024),
    "general.sampling.temp": (0, 1e6), "general.sampling.top_p": (0, 1),
    "general.sampling.top_k": (-1, TOKENS), "general.sampling.min_p": (0, 1),
    "general.sampling.penalty_repeat": (0, 1e3),
}

NONE = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")  # where 0


def check_bounds(source, metadata, tensors):
    """What run.c would refuse must not be written. source is for messages."""
    arch = metadata["general.architecture"]
    facts = {key.removeprefix(f"{arch}."): value for key, value in metadata.items()}
    heads, kv_heads, dim, experts, groups = (np.max(facts.get(key, 0)) for key in (
        "attention.head_count", "attention.head_count_kv", "embedding_length", "expert_count",
        "expert_group_count"))
    size = facts.setdefault("attention.key_length", dim // max(heads, 1))
    for key, (least, most) in BOUNDS.items():
        most = np.max(facts.get(most, 0)) if isinstance(most, str) else most
        values = np.atleast_1d(facts.get(key, least))
        least = 0 if key in NONE else least
        require(least <= values.min() and values.max() <= most or key not in facts,
                f"{source}: {key} is {facts.get(key)}, which run can't take: {least} to {most}")
    require(heads <= 128 * kv_heads, f"{source}: {heads} heads share {kv_heads} key/value heads, "
            "which run can't take: at most 128 each")
    for width in (heads * size, *(heads * facts.get(f"attention.{word}_length_mla", 0)
                                  for word in ("key", "value")),
                  *(tensor.shape[-2] for name, tensor in tensors.items() if ".ffn_up_" in name)):
        require(width <= WIDTH, f"{source}: a width of {width}, which run can't take: at most "
                f"{WIDTH}")
    require(not groups or experts % groups == 0 and facts["expert_used_count"] <= experts // groups
            * facts.get("expert_group_used_count", groups), f"{source}: {experts} experts in "
            f"{groups} groups don't give {facts.get('expert_used_count')}")
    for kind in ("bos", "eos", "eot", "eom", "unknown"):
        token = facts.get(f"tokenizer.ggml.{kind}_token_id", 0)
        require(token < facts["vocab_size"],
                f"{source}: the {kind} token is {token} of {facts['vocab_size']}")


def pack_string(text):
    try:
        data = text.encode("utf-8")
    except ValueError:  # which JSON can say, but UTF-8 can't
        raise ExportError(f"the text {text[:40]!r} has half a character")
    return struct.pack("<Q", len(data)) + data


def pack_value(value):
    """A value of the metadata, with GGUF's number for its type in front."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + pack_string(value)
    if isinstance(value, np.ndarray):
        kind = {"int32": 5, "float32": 6, "bool": 7}[value.dtype.name]
        return struct.pack("<IIQ", 9, kind, len(value)) + value.tobytes()
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(pack_string, value))


def choose_formats(metadata, tensors, wanted):
    """{name: Format}. Vectors, biases and EXACT weights are f32; blocks have to fill whole rows."""
    formats, odd = {}, {}
    for name, tensor in tensors.items():
        if tensor.packed:
            formats[name] = tensor.packed
            continue
        exact = len(tensor.shape) < 2 or not name.endswith(".weight") or name.endswith(EXACT)
        plan = ("f32" if exact else wanted if wanted in FORMATS else
                mixed_format(name, wanted, metadata, tensors))
        chosen = plan
        while tensor.columns % FORMATS[chosen].block:
            chosen = FORMATS[chosen].fallback
        formats[name] = FORMATS[chosen]
        if chosen != plan:
            odd.setdefault((chosen, plan), []).append(name)
    for (chosen, plan), names in odd.items():
        notes.append(f"{len(names)} matrices, such as {names[0]}, have rows that are no multiple "
                     f"of {FORMATS[plan].block}: these are {chosen}, not {plan}")
    return formats


def header(metadata, tensors, formats):
    """Everything before the data: keys and values, then name, shape, type and offset per tensor."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    parts += [pack_string(key) + pack_value(value) for key, value in metadata.items()]
    offset = 0
    for name, tensor in tensors.items():
        shape, form = tensor.shape[::-1], formats[name]  # GGUF has the fastest dimension first
        parts.append(pack_string(name) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, form.number, offset))
        size = tensor.rows * tensor.columns // form.block * form.bytes
        offset += size + pad(size)
    data = b"".join(parts)
    return data + bytes(pad(len(data)))


def write_tensor(file, name, tensor, form):
    """Convert and write a slice of rows at a time."""
    step = max(1, SLICE // tensor.columns)
    for row in range(0, tensor.rows, step):
        values = tensor.read(slice(row, min(row + step, tensor.rows)))
        require(np.abs(values).max() <= form.largest,  # which is false for NaN too
                f"{name} has a value that is not finite or too large for this --type")
        with np.errstate(all="ignore"):  # the scale of denormals has no finite inverse
            file.write(np.ascontiguousarray(form.encode(values)).data)
    file.write(bytes(pad(file.tell())))


def show_progress(done, total):
    if sys.stderr.isatty():
        print(f"\r[{'#' * (40 * done // total):<40}]", end="", file=sys.stderr, flush=True)


def write_gguf(path, metadata, tensors, wanted):
    """Write to a temporary name and rename, so that nobody ever finds half a file at path."""
    require(not os.path.isdir(path), f"{path} is a directory, expected a file name")
    metadata = dict(metadata, **{"general.file_type": TYPES[wanted].file_type})
    formats = choose_formats(metadata, tensors, wanted)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(header(metadata, tensors, formats))
            for done, (name, tensor) in enumerate(tensors.items(), 1):
                write_tensor(file, name, tensor, formats[name])
                show_progress(done, len(tensors))
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


# ---- vocabularies --------------------------------------------------------------------------------

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # also SentencePiece's
SPACE = "\u2581"  # what SentencePiece writes for a space


def unique(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("an object has two values for a name")
    return dict(pairs)


# Forms of JSON: a type, or alternatives in a tuple; [form of each], {"*": form of each},
# {name: form}, where a name with "!" must be there. null is as good as absence. number() sees to
# the numbers that are read by it.
IDS = (int, [int])
FLAGS = ("lstrip", "rstrip", "single_word")
ADDED = {"content!": str, **dict.fromkeys(("special", "normalized", *FLAGS), bool)}
MARK = (str, ADDED)
TEMPLATES = {"chat_template": (str, [{"name!": str, "template!": str}], {"*": str})}
SETTINGS = {
    **TEMPLATES, "added_tokens_decoder": {"*": ADDED}, "additional_special_tokens": [MARK],
    **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), MARK),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "legacy"), bool)}
STEP = {
    "type!": str, "pattern": {"*": str}, "single": [dict], "prepend_scheme": str,
    **dict.fromkeys(("use_regex", "individual_digits", "add_prefix_space"), bool)}
STEP.update(dict.fromkeys(("pretokenizers", "normalizers", "processors"), [STEP]))
TOKENIZER = {
    "model!": {"type": str, "byte_fallback": bool}, "added_tokens": [{"id!": int, **ADDED}],
    **dict.fromkeys(("pre_tokenizer", "normalizer", "post_processor"), STEP)}
BPE = {"vocab!": {"*": int}, "merges!": [(str, [str])], "unk_token": str, "ignore_merges": bool}
ROPE = {
    **dict.fromkeys(("type", "rope_type"), str), "truncate": bool, "long_factor": [float],
    "short_factor": [float], **dict.fromkeys(("mscale", "mscale_all_dim", "rope_theta"), float)}
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
CONFIG = {
    "architectures": [str], "text_config": dict, "quantization_config": dict,
    "rope_scaling": {**ROPE, "full_attention": ROPE, "sliding_attention": ROPE},
    **dict.fromkeys(("layer_types", "mlp_layer_types", "layers_block_type"), [str]),
    **dict.fromkeys(("num_attention_heads_per_layer", "full_attn_idxs"), [int]),
    **dict.fromkeys(("mlp_multipliers", "ssm_multipliers", "layer_rope_theta"), [float]),
    "per_layer_config": {"*": dict}, "hybrid_override_pattern": str,
    "sliding_window_pattern": (int, str), "hidden_size": int,
    "intermediate_size": int, **dict.fromkeys(SPECIAL_IDS, IDS),
    **dict.fromkeys((
        "attention_bias", "mlp_bias", "qkv_bias", "use_qkv_bias", "use_qk_norm", "qk_layernorm",
        "use_parallel_residual", "norm_topk_prob", "tie_word_embeddings"), bool)}
CONFIG["rope_parameters"] = CONFIG["rope_scaling"]
PARAMS = {
    "norm_eps": float, "rope_theta": float, "use_scaled_rope": bool, "rope_scaling_factor": float,
    "rope_high_freq_factor": float}
KINDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number",
         list: "a list", dict: "an object"}


def misfit(value, form):
    """None if the value has this form, else where it has not, what is there, what was expected."""
    forms = form if isinstance(form, tuple) else (form,)
    kinds = [each if isinstance(each, type) else type(each) for each in forms]
    for form, kind in zip(forms, kinds):
        if type(value) is kind or kind is float and type(value) is int:
            break
    else:
        return "", value, " or ".join(KINDS[kind] for kind in kinds)
    inner = ()
    if isinstance(form, list):
        inner = ((f"[{i}]", item, form[0]) for i, item in enumerate(value))
    elif isinstance(form, dict) and "*" in form:
        inner = ((f".{key}", item, form["*"]) for key, item in value.items())
    elif isinstance(form, dict):
        inner = ((f".{key.rstrip('!')}", value.get(key.rstrip("!")), each) for key, each in
                 form.items() if key[-1] == "!" or value.get(key) is not None)
    for where, item, each in inner:
        found = misfit(item, each)
        if found:
            return where + found[0], *found[1:]
    return None


def conform(source, table, form):
    """Returns the table if it has this form."""
    found = misfit(table, form)
    if found:
        where, value, expected = found[0].strip(".") or "all", *found[1:]
        raise ExportError(f"{source} lacks {where}" if value is None else
                          f"{source}: {where} is {json.dumps(value)[:40]}, expected {expected}")
    return table


def refuse_stranger(path, data):
    """What lies there instead of a file when a download went wrong, by its first bytes."""
    require(not data.startswith(b"version https://git-lfs"), f"{path} is a git-lfs pointer, not "
            "the file itself: fetch that with `git lfs pull`")
    require(not data.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")),
            f"{path} is a web page: the download went wrong")


def read_text(path):
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except ValueError as error:
        raise ExportError(f"{path} is not UTF-8: {error}")
    refuse_stranger(path, text.encode())
    return text


def read_json(path, data=None, missing=None, form=dict):
    """The object in a JSON file, or in data from it; missing for a file that is not there."""
    if data is None and missing is not None and not os.path.exists(path):
        return missing
    try:
        if data is None:
            with open(path, "rb") as file:
                data = file.read()
        refuse_stranger(path, data)
        table = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not JSON: {error}")
    return conform(path, table, form)


# Special tokens of Gemma 4 that published files don't hide, as calls of tools are read by them.
SHOWN = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
         "<tool_response|>", '<|"|>')


class Vocabulary:
    """What a tokenizer file says. The ids of its tokens may have gaps."""

    def __init__(self, source, model):
        self.source, self.model = source, model  # "llama": SentencePiece; "gpt2": byte-level BPE;
                                                 # "gemma4": BPE of characters
        self.tokens = {}                         # id: (text, score, type)
        self.settings = {}                       # the rest of tokenizer.ggml.*
        self.flagged = []                        # texts of those with FLAGS
        self.shown = SHOWN if model == "gemma4" else ()

    def add(self, token, text, special, flags={}):
        """A token that is found in text as it stands, before anything is merged."""
        if any(map(flags.get, FLAGS)):
            self.flagged.append(text)
        if text in self.shown:
            special = False
        elif self.model == "gemma4" and SPACE in text and not special \
                and not flags.get("normalized") and token in self.tokens:
            return  # text has plain spaces when it is looked for, so only merges make it
        if self.tokens.get(token, (text, 0, NORMAL))[2] != UNKNOWN:
            plain = text if special or self.model == "gpt2" else text.replace(SPACE, " ")
            self.tokens[token] = plain, -1000.0, CONTROL if special else USER_DEFINED

    def keys(self, rows):
        """The metadata. The embedding may have more rows than there are tokens, not fewer."""
        size = max(self.tokens, default=-1) + 1
        require(min(self.tokens, default=0) >= 0,
                f"{self.source} has a token with the id {min(self.tokens, default=0)}")
        require(0 < size <= rows, f"{self.source} has {size} tokens, the embedding has {rows} rows")
        unused = {i: (f"[PAD{i}]", -10000.0, UNUSED) for i in range(rows)}
        texts, scores, types = zip(*(self.tokens.get(i, unused[i]) for i in range(rows)))
        values = {"model": self.model, "tokens": texts, "token_type": np.array(types, "<i4")}
        if self.model == "llama":
            values["scores"] = np.array(scores, "<f4")
        values.update(self.settings)
        return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


def piece_type(text, unknown):
    if text == unknown:
        return UNKNOWN
    return BYTE if re.fullmatch("<0x[0-9A-F]{2}>", text) else NORMAL


def read_tokenizer_bin(path, data):
    """llama2.c's own: u32 longest, then per token f32 score, u32 length and the text, in which
    SentencePiece's spaces are plain ones and <s> and </s> have newlines round them."""
    vocabulary, at = Vocabulary(path, "llama"), 4
    while at < len(data):
        token = len(vocabulary.tokens)
        score, length = struct.unpack_from("<fI", data.ljust(at + 8), at)
        text, at = data[at + 8:at + 8 + length], at + 8 + length
        require(at <= len(data),
                f"{path} is cut short, or no tokenizer: token {token} ends at {at} of {len(data)}")
        text = text.decode("utf-8")
        vocabulary.tokens[token] = (
            (text.strip("\n"), score, CONTROL) if token in (1, 2) else
            (text.replace(" ", SPACE), score, piece_type(text, "<unk>")))
    vocabulary.settings = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
                           "add_bos_token": True, "add_space_prefix": True}
    return vocabulary


def protobuf(data):
    """Yields (field, value) of a message: an int, or the bytes of any longer value."""
    def varint():
        nonlocal at
        value = shift = 0
        while shift == 0 or data[at - 1] > 127 and shift < 64:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
        return value

    at = 0
    while at < len(data):
        field, kind = divmod(varint(), 8)
        if kind == 0:
            yield field, varint()
        else:
            size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            require(at + size <= len(data), "a tokenizer.model is cut short")
            at += size
            yield field, data[at - size:at]


def read_sentencepiece(path, data):
    """The numbers of the fields are those of sentencepiece_model.proto."""
    vocabulary, specs = Vocabulary(path, "llama"), {2: {}, 3: {}}  # trainer and normalizer
    for field, value in protobuf(data):
        if field == 1:
            piece = dict(protobuf(value))
            text, kind = piece[1].decode("utf-8"), piece.get(3, NORMAL)
            require(NORMAL <= kind <= BYTE, f"{path}: token {len(vocabulary.tokens)} is of type "
                    f"{kind}")
            text = text.replace(SPACE, " ") if kind == USER_DEFINED else text
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            vocabulary.tokens[len(vocabulary.tokens)] = text, score, kind
        elif field in specs:
            specs[field] = dict(protobuf(value))
    trainer, normalizer = specs.values()
    require(trainer.get(3, 1) == 2, f"{path} is SentencePiece of another type than BPE")
    ids = {"unknown_token_id": trainer.get(40, 0), "bos_token_id": trainer.get(41, 1),
           "eos_token_id": trainer.get(42, 2)}
    vocabulary.settings = {key: token for key, token in ids.items() if token in vocabulary.tokens}
    vocabulary.settings.update(add_bos_token=True, add_space_prefix=bool(normalizer.get(3, 1)))
    return vocabulary


# The rules by which tokenizer.json splits text into words, by GGUF's name for them. To add one: the
# flag ignore_merges and the normalizer's type where rules differ in them, then a text that is found
# in each step, in order; Punctuation, Numbers, Digits (each one alone) and ByteLevel (which splits
# like GPT-2) are steps without a text.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
PRE_TOKENIZERS = {
    "gpt-2": ["ByteLevel"],
    "gpt-neox": ["NFC", "ByteLevel"],
    "smollm": ["Digits", "ByteLevel"],
    "command-r": ["NFC", "Digits", "ByteLevel"],
    "exaone": ["NFKC", "Digits", "ByteLevel"],
    "falcon": ["Punctuation", "ByteLevel", "Numbers", "[0-9][0-9][0-9]"],
    "llama-bpe": ["ignore_merges", WORDS % "{1,3}"],
    "dbrx": [WORDS % "{1,3}"],
    "qwen2": ["NFC", WORDS % ""],
    "hunyuan": [WORDS % ""],
    "qwen35": ["NFC", r"?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"],
    "seed-coder": [r"?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}" + "\r\n]+"],
    "gpt-4o": [r"\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"],
    "tekken": [r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"],
    "deepseek-llm": ["[\r\n]", "[A-Za-z\u00b5", "[!-/:-~", r"\s+$", "\u4e00-\u9fa5", "Digits"],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "\u4e00-\u9fa5", "Digits"],
    "deepseek-v3": [r"\p{N}{1,3}", "\u4e00-\u9fa5", r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"],
    "minicpm5": ["ignore_merges", r"\p{N}{1,3}", WORDS % "+"],
    "laguna": [r"(?:\r?\n)+(?!\r?\n)", WORDS % ""],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
                   r"| ?[^\s\p{L}\p{N}]++[\r\n]*"],
    "lfm2": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
             r"| ?[^\s\p{L}\p{N}]+[\r\n]*"],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)",
                 r"\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"],
    "afmoe": [r"\p{Nd}{1,510}", r"\A\p{Nd}{1,2}", r"\A\p{Nd}{3}", r"[\u0E00-\u0E7F]+",
              r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"],
}


def steps(node):
    """The steps of a part of tokenizer.json as a flat list, be they nested, one or none."""
    for key in ("pretokenizers", "normalizers", "processors"):
        if key in (node or {}):
            return [step for inner in node[key] for step in steps(inner)]
    return [node] if node else []


def name_pre_tokenizer(path, table):
    """The name of the rule in a tokenizer.json. One that differs only in what comes before the
    splitting is better than none."""
    rules = []
    for step in steps(table.get("pre_tokenizer")):
        if step["type"] == "Split":
            rules += step["pattern"].values()
        elif step["type"] != "ByteLevel" or step.get("use_regex", True):
            rules.append(step["type"] if step.get("individual_digits", True) else "Numbers")
    normalizers = [step["type"] for step in steps(table.get("normalizer"))]
    flags = ["ignore_merges"] if table["model"].get("ignore_merges") else []
    for before in (flags + normalizers, normalizers, flags, [], ["NFC"]):
        for name, texts in PRE_TOKENIZERS.items():
            if len(texts) == len(before + rules) and all(
                    text in rule for text, rule in zip(texts, before + rules)):
                if normalizers != [text for text in texts if text in ("NFC", "NFKC")]:
                    notes.append(f"{path} normalizes text by {normalizers or 'nothing'}, the rule "
                                 f"{name} doesn't: some texts may become other tokens")
                return name
    notes.append(f"{path} splits words by rules without a known name: tokenizer.ggml.pre is "
                 "\"default\", and some texts may become other tokens")
    return "default"


FIRST = ("%s puts a space in front of the first word only, a GGUF file of SentencePiece also "
         "behind each special token: there, texts may become other tokens")


def take_scores(path, vocabulary, table, pairs):
    """SentencePiece's way. Merges come in the order of the scores of what they make, and only the
    order counts."""
    splitters = steps(table.get("pre_tokenizer"))
    ranks = {left + right: -float(i) for i, (left, right) in reversed([*enumerate(pairs)])}
    for token, (text, _, kind) in vocabulary.tokens.items():
        vocabulary.tokens[token] = text, ranks.get(text, -float(len(pairs))), kind
    vocabulary.settings["add_space_prefix"] = any(
        step["type"] == "Prepend" or step["type"] == "Metaspace" and
        step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True)
        for step in steps(table.get("normalizer")) + splitters)
    if any(step.get("prepend_scheme") == "first" for step in splitters):
        notes.append(FIRST % path)


def take_merges(vocabulary, pairs, space):
    """In GGUF a space stands between the parts only."""
    vocabulary.settings["merges"] = [
        f"{left} {right}" for left, right in
        ((part.replace(" ", space) for part in pair) for pair in pairs)]


def read_tokenizer_json(path, data, characters="llama"):
    """Hugging Face's tokenizer.json, if it is byte-level BPE or has pieces of characters, which
    become a vocabulary of the kind that characters says."""
    table = read_json(path, data, form=TOKENIZER)
    model, splitters = table["model"], steps(table.get("pre_tokenizer"))
    byte_level = any(step["type"] == "ByteLevel" for step in splitters)
    require(model.get("type", "BPE") == "BPE" and (byte_level or model.get("byte_fallback")),
            f"{path} is of type {model.get('type')}, expected BPE down to bytes")
    conform(path, model, BPE)
    vocabulary = Vocabulary(path, "gpt2" if byte_level else characters)
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    odd = next((pair for pair in pairs if len(pair) != 2), None)
    require(odd is None, f"{path}: a merge of {odd}, expected two parts")
    unknown = model.get("unk_token")
    vocabulary.tokens = {
        token: (text, 0.0, NORMAL if byte_level else piece_type(text, unknown))
        for text, token in model["vocab"].items()}
    if byte_level:
        vocabulary.settings["pre"] = name_pre_tokenizer(path, table)
    if vocabulary.model == "llama":
        take_scores(path, vocabulary, table, pairs)
    else:
        take_merges(vocabulary, pairs, "\u0120" if byte_level else SPACE)
    for token in table.get("added_tokens") or []:
        vocabulary.add(token["id"], token["content"], token.get("special"), token)
    vocabulary.settings["add_bos_token"] = vocabulary.model == "gemma4" or any(
        step["type"] == "TemplateProcessing" and "SpecialToken" in (step.get("single") or [{}])[0]
        for step in steps(table.get("post_processor")))
    return vocabulary


def read_vocabulary(path, characters="llama"):
    """Any of the tokenizer files above; which one it is shows in the first bytes. characters is
    the kind of a tokenizer.json that has pieces of them."""
    with open(path, "rb") as file:
        data = file.read()
    refuse_stranger(path, data)
    reader = read_tokenizer_bin
    if data[3:4] == b"\0":  # the number in front of llama2.c's, which is far below 2^24
        pass
    elif data.lstrip()[:1] == b"{":
        return named_errors(path, read_tokenizer_json, path, data, characters)
    elif data[:1] == b"\n" and data[2:3] == b"\n":  # field 1, some length, field 1: a first piece
        reader = read_sentencepiece
    require(not re.match(rb"[A-Za-z0-9+/]+=* \d+\n", data), f"{path} is a list for tiktoken: give "
            "the tokenizer.json of the same model at Hugging Face with --tokenizer FILE")
    return named_errors(path, reader, path, data)


def named_errors(path, read, *arguments):
    """What read returns; an error of its own kind names the file."""
    try:
        return read(*arguments)
    except (ExportError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"{path} is damaged: {type(error).__name__} {error}")


def chat_template(folder, settings):
    """The template's text or None. In newer directories it is a file of its own, else a setting:
    a text, or several by name. Models that see have it apart."""
    path, more = (os.path.join(folder, name) for name in (
        "chat_template.jinja", "additional_chat_templates"))
    if os.path.exists(path):
        return read_text(path)
    found = settings.get("chat_template")
    for name in ("chat_template.json", "processor_config.json"):
        found = found or read_json(os.path.join(folder, name), missing={},
                                   form=TEMPLATES).get("chat_template")
    if not found and os.path.isdir(more):
        found = [{"name": name.removesuffix(".jinja"), "template": read_text(f"{more}/{name}")}
                 for name in sorted(os.listdir(more)) if name.endswith(".jinja")]
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}
    if not isinstance(found, dict) or not found:
        return found
    if "default" not in found:
        notes.append(f"of the chat templates {', '.join(found)} none is the default: the first is "
                     "taken")
    return found.get("default", next(iter(found.values())))


# Tokens by whose names run.c knows that they end a text.
ENDS = set("<|endoftext|> <|im_end|> <|eot_id|> <|eom_id|> <|end|> <|end_of_text|> <|return|> "
           "<|call|> <|END_OF_TURN_TOKEN|> <end_of_turn> <|endofturn|> <turn|> <|tool_response> "
           "<\uff5cend\u2581of\u2581sentence\uff5c>".split())


def end_tokens(vocabulary, ends):
    """The first is eos. Two more have a place in GGUF; names that are known do without."""
    texts = {end: vocabulary.tokens[end][0] for end in ends}
    found = {"eos": ends[0]} if ends else {}
    for end in sorted(ends[1:], key=lambda end: texts[end] in ENDS):
        places = ("eom", "eot") if texts[end] == "<|eom_id|>" else ("eot", "eom")
        place = next((place for place in places if place not in found), None)
        if place:
            found[place] = end
        elif texts[end] not in ENDS:
            notes.append(f"a GGUF file has three end tokens: {texts[end]} ({end}) is left out, and "
                         "texts don't end there")
    return found


def special_tokens(vocabulary, settings, config):
    """Adds ids and flags to the vocabulary: tokenizer_config.json says texts, config.json and
    generation_config.json say numbers."""
    ids = {text: token for token, (text, _, _) in vocabulary.tokens.items()}

    def named(kind):
        entry = settings.get(f"{kind}_token")
        text = entry["content"] if isinstance(entry, dict) else entry
        if text and text not in ids and kind in ("bos", "eos"):
            notes.append(f"{kind}_token is {text}, which is no token of the vocabulary")
        return ids.get(text)

    ends, own = config.get("eos_token_id"), named("eos")
    ends = ends if isinstance(ends, list) else [ends]
    ends = ends if own in ends else [own, *ends]
    lost = [end for end in ends if end is not None and end >= 0 and end not in vocabulary.tokens]
    if lost:
        notes.append(f"eos_token_id has {lost}, which is no token of the vocabulary")
    ends = [end for end in dict.fromkeys(ends) if end in vocabulary.tokens]
    found = end_tokens(vocabulary, ends)
    for key, kind in (("bos", "bos"), ("unknown", "unk"), ("padding", "pad")):
        token = named(kind) if f"{kind}_token" in settings else config.get(f"{kind}_token_id")
        found[key] = token[0] if isinstance(token, list) and token else token
    vocabulary.settings.update((f"{key}_token_id", token) for key, token in found.items()
                               if isinstance(token, int) and token in vocabulary.tokens)
    for key in ("add_bos_token", "add_eos_token"):
        if isinstance(settings.get(key), bool):
            vocabulary.settings[key] = settings[key]
    vocabulary.settings["add_bos_token"] &= "bos_token_id" in vocabulary.settings


def added_tokens(vocabulary, folder, settings):
    """Adds what stands beside the tokenizer file: in tokenizer_config.json, or, in older folders,
    in added_tokens.json, where special_tokens_map.json says which are special."""
    path = os.path.join(folder, "added_tokens.json")
    added = read_json(path, missing={}, form={"*": int})
    marks = [settings.get(f"{kind}_token") for kind in ("bos", "eos", "unk", "pad")]
    marks += settings.get("additional_special_tokens") or []
    special = [mark["content"] if isinstance(mark, dict) else mark for mark in marks]
    vocabulary.flagged += [mark["content"] for mark in marks
                           if isinstance(mark, dict) and any(map(mark.get, FLAGS))]
    for text, token in added.items():
        if token not in vocabulary.tokens:
            vocabulary.add(token, text, text in special)
        elif vocabulary.tokens[token][0] not in (text, text.replace(SPACE, " ")):
            notes.append(f"{path}: {text} has the id {token} of {vocabulary.tokens[token][0]}: it "
                         "is left out")
    for token, entry in (settings.get("added_tokens_decoder") or {}).items():
        require(token.isdecimal(), f"{folder}/tokenizer_config.json: added_tokens_decoder has an "
                f"id {token}")
        vocabulary.add(int(token), entry["content"], entry.get("special"), entry)
    if vocabulary.flagged:
        texts = list(dict.fromkeys(vocabulary.flagged))
        notes.append(f"{len(texts)} tokens, such as {texts[0]}, have {', '.join(FLAGS[:2])} or "
                     f"{FLAGS[2]}, which GGUF has no place for: texts with spaces or words beside "
                     "them may become other tokens")


def read_settings(folder):
    path = os.path.join(folder, "tokenizer_config.json")
    settings = read_json(path, missing={}, form=SETTINGS)
    marks = read_json(os.path.join(folder, "special_tokens_map.json"), missing={}, form=SETTINGS)
    return dict(marks, **settings) if "added_tokens_decoder" in settings else {**settings, **marks}


def vocabulary_keys(candidates, rows, config, characters="llama"):
    """The metadata of the first tokenizer file that exists and of the settings beside it."""
    path = next(filter(os.path.exists, candidates), None)
    if path is None:
        notes.append(f"there is no {candidates[0]}: the GGUF file has no vocabulary")
        return {}
    folder = os.path.dirname(path)
    vocabulary, settings = read_vocabulary(path, characters), read_settings(folder)
    added_tokens(vocabulary, folder, settings)
    special_tokens(vocabulary, settings, config)
    if path.endswith(".model") and settings.get("legacy") is False:
        notes.append(FIRST % path)
    keys = vocabulary.keys(rows)
    template = chat_template(folder, settings)
    return dict(keys, **{"tokenizer.chat_template": template}) if template else keys


# ---- families of models --------------------------------------------------------------------------

# The shape of each weight by GGUF name, without "blk.N." and ".weight"; the words are sizes, see
# read_sizes. A bias has as many values as its weight has rows.
SHAPES = {
    "token_embd": ("vocab", "dim"), "token_embd_norm": ("dim",), "attn_norm": ("dim",),
    "attn_q": ("q_dim", "dim"), "attn_k": ("kv_dim", "dim"), "attn_v": ("kv_dim", "dim"),
    "attn_output": ("dim", "q_dim"), "ffn_norm": ("dim",), "ffn_gate": ("hidden", "dim"),
    "ffn_up": ("hidden", "dim"), "ffn_down": ("dim", "hidden"), "output_norm": ("dim",),
    "output": ("vocab", "dim"),
    "attn_q_norm": ("head_dim",), "attn_k_norm": ("head_dim",), "attn_qkv": ("qkv_dim", "dim"),
    "post_attention_norm": ("dim",), "post_ffw_norm": ("dim",), "position_embd": ("context", "dim"),
    "attn_sinks": ("heads",), "ffn_gate_inp": ("experts", "dim"), "exp_probs_b": ("experts",),
    "ffn_gate_exps": ("experts", "expert_hidden", "dim"),
    "ffn_up_exps": ("experts", "expert_hidden", "dim"),
    "ffn_down_exps": ("experts", "dim", "expert_hidden"), "ffn_gate_inp_shexp": ("dim",),
    "ffn_gate_shexp": ("shared_hidden", "dim"), "ffn_up_shexp": ("shared_hidden", "dim"),
    "ffn_down_shexp": ("dim", "shared_hidden"),
    "attn_q_a": ("q_rank", "dim"), "attn_q_a_norm": ("q_rank",),
    "attn_q_b": ("heads*qk_dim", "q_rank"), "attn_kv_a_mqa": ("latent", "dim"),
    "attn_kv_a_norm": ("kv_rank",), "attn_k_b": ("heads", "kv_rank", "plain"),
    "attn_v_b": ("heads", "value", "kv_rank"),
    "shortconv.in_proj": ("3*conv", "dim"), "shortconv.conv": ("conv", "kernel"),
    "shortconv.out_proj": ("dim", "conv"), "attn_gate": ("q_dim", "dim"),
    "ssm_in": ("ssm_in", "dim"), "ssm_conv1d": ("ssm_conv", "kernel"),
    "ssm_alpha": ("ssm_heads", "dim"), "ssm_beta": ("ssm_heads", "dim"), "ssm_dt": ("ssm_heads",),
    "ssm_a": ("ssm_heads", "1"), "ssm_d": ("ssm_heads", "1"), "ssm_norm": ("groups", "group_inner"),
    "ssm_out": ("dim", "inner"), "per_layer_token_embd": ("vocab", "layers*per_layer"),
    "per_layer_model_proj": ("layers*per_layer", "dim"), "per_layer_proj_norm": ("per_layer",),
    "inp_gate": ("per_layer", "dim"), "proj": ("dim", "per_layer"), "post_norm": ("per_layer_dim",),
    "layer_output_scale": ("1",), "ffn_gate_inp.scale": ("router",), "pre_ffw_norm_2": ("router",),
    "post_ffw_norm_1": ("router",), "post_ffw_norm_2": ("router",),
    "ffn_down_exps.scale": ("experts",), "ffn_gate_up_exps": ("experts", "2*expert_hidden", "dim"),
    "ffn_latent_down": ("latent_dim", "dim"), "ffn_latent_up": ("dim", "latent_dim"),
}
# What the names of these end with instead of ".weight".
ENDINGS = {"exp_probs_b": ".bias", "ssm_dt": ".bias",
           **dict.fromkeys(("ssm_a", "ssm_d", "ffn_gate_inp.scale", "ffn_down_exps.scale"), "")}
# Sizes that only some families have, and their names in config.json.
MORE_SIZES = {
    "experts": "num_experts", "expert_hidden": "moe_intermediate_size",
    "shared_hidden": "shared_expert_intermediate_size", "shared": "n_shared_experts",
    "plain": "qk_nope_head_dim", "rope": "qk_rope_head_dim", "value": "v_head_dim",
    "q_rank": "q_lora_rank", "kv_rank": "kv_lora_rank", "kernel": "conv_kernel",
    "ssm_heads": "ssm_heads", "ssm_head_dim": "ssm_head_dim", "groups": "ssm_groups",
    "state": "ssm_state_size", "latent_dim": "moe_latent_size",
    "per_layer": "hidden_size_per_layer_input",
}
# Settings that some families have, by GGUF's key for them: the name in config.json and the kind.
KEYS = {
    "attention.sliding_window": ("sliding_window", int),
    "attention.scale": ("attention_multiplier", float),
    "attn_logit_softcapping": ("attn_logit_softcapping", float),
    "final_logit_softcapping": ("final_logit_softcapping", float),
    "embedding_scale": ("embedding_multiplier", float),
    "residual_scale": ("residual_multiplier", float),
    "logit_scale": ("logit_scale", float),
    "use_parallel_residual": ("use_parallel_residual", bool),
    "expert_count": ("num_experts", int),
    "expert_used_count": ("num_experts_per_tok", int),
    "expert_feed_forward_length": ("moe_intermediate_size", int),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", int),
    "expert_shared_count": ("n_shared_experts", int),
    "expert_weights_scale": ("routed_scaling_factor", float),
    "expert_weights_norm": ("norm_topk_prob", bool),
    "leading_dense_block_count": ("first_k_dense_replace", int),
    "interleave_moe_layer_step": ("moe_layer_interval", int),
    "full_attention_interval": ("full_attention_interval", int),
    "shortconv.l_cache": ("conv_kernel", int), "ssm.conv_kernel": ("conv_kernel", int),
    "ssm.state_size": ("ssm_state_size", int), "ssm.group_count": ("ssm_groups", int),
    "ssm.time_step_rank": ("ssm_heads", int), "moe_latent_size": ("moe_latent_size", int),
}
EXPERT_KEYS = [key for key in KEYS if key.startswith("expert_")]
# What config.json calls otherwise in some families.
ALIASES = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings", "n_inner": "intermediate_size",
    "activation_function": "hidden_act", "layer_norm_epsilon": "layer_norm_eps",
    "norm_epsilon": "layer_norm_eps", "logits_scaling": "logit_scale",
    "num_local_experts": "num_experts", "n_routed_experts": "num_experts",
    "shared_intermediate_size": "shared_expert_intermediate_size",
    "norm_eps": "rms_norm_eps", "conv_L_cache": "conv_kernel",
    "tie_embedding": "tie_word_embeddings", "num_dense_layers": "first_k_dense_replace",
    "linear_conv_kernel_dim": "conv_kernel", "linear_num_value_heads": "ssm_heads",
    "linear_value_head_dim": "ssm_head_dim", "linear_num_key_heads": "ssm_groups",
    "linear_key_head_dim": "ssm_state_size", "top_k_experts": "num_experts_per_tok",
    "mamba_d_conv": "conv_kernel", "mamba_n_heads": "ssm_heads", "mamba_num_heads": "ssm_heads",
    "mamba_d_head": "ssm_head_dim", "mamba_head_dim": "ssm_head_dim", "n_groups": "ssm_groups",
    "mamba_n_groups": "ssm_groups", "mamba_d_state": "ssm_state_size",
    "mamba_conv_bias": "use_conv_bias", "layers_block_type": "layer_types",
    "moe_shared_expert_intermediate_size": "shared_expert_intermediate_size",
    "moe_k": "num_experts_per_tok", "moe_num_experts": "num_experts",
    "moe_num_shared_experts": "n_shared_experts", "num_shared_experts": "n_shared_experts",
    "moe_layer_start_index": "first_k_dense_replace", "route_scale": "routed_scaling_factor",
    "router_scaling_factor": "routed_scaling_factor", "output_multiplier": "logit_scale",
    "moe_routed_scaling_factor": "routed_scaling_factor",
    "global_attn_every_n_layers": "sliding_window_pattern",
}
HUGGINGFACE_NAMES = {
    "token_embd": "model.embed_tokens",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
    "output_norm": "model.norm",
    "output": "lm_head",
}
META_NAMES = {
    "token_embd": "tok_embeddings",
    "blk.{}.attn_norm": "layers.{}.attention_norm",
    "blk.{}.attn_q": "layers.{}.attention.wq",
    "blk.{}.attn_k": "layers.{}.attention.wk",
    "blk.{}.attn_v": "layers.{}.attention.wv",
    "blk.{}.attn_output": "layers.{}.attention.wo",
    "blk.{}.ffn_norm": "layers.{}.ffn_norm",
    "blk.{}.ffn_gate": "layers.{}.feed_forward.w1",
    "blk.{}.ffn_up": "layers.{}.feed_forward.w3",
    "blk.{}.ffn_down": "layers.{}.feed_forward.w2",
    "output_norm": "norm",
    "output": "output",
}
GPT2_NAMES = {
    "token_embd": "wte", "position_embd": "wpe", "blk.{}.attn_norm": "h.{}.ln_1",
    "blk.{}.attn_qkv": "h.{}.attn.c_attn", "blk.{}.attn_output": "h.{}.attn.c_proj",
    "blk.{}.ffn_norm": "h.{}.ln_2", "blk.{}.ffn_up": "h.{}.mlp.c_fc",
    "blk.{}.ffn_down": "h.{}.mlp.c_proj", "output_norm": "ln_f", "output": "lm_head",
}
LFM2_NAMES = {
    "token_embd": "model.embed_tokens", "token_embd_norm": "model.embedding_norm",
    "output": "lm_head", **{f"blk.{{}}.{word}": f"model.layers.{{}}.{name}" for word, name in {
        "attn_norm": "operator_norm", "ffn_norm": "ffn_norm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.out_proj", "attn_q_norm": "self_attn.q_layernorm",
        "attn_k_norm": "self_attn.k_layernorm", "shortconv.in_proj": "conv.in_proj",
        "shortconv.conv": "conv.conv", "shortconv.out_proj": "conv.out_proj",
        "ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2",
    }.items()}}
LFM2_EXPERTS = {
    "ffn_gate_inp": "feed_forward.gate", "exp_probs_b": "feed_forward.expert_bias",
    "ffn_gate_exps": "feed_forward.experts.{}.w1", "ffn_up_exps": "feed_forward.experts.{}.w3",
    "ffn_down_exps": "feed_forward.experts.{}.w2"}
LFM2MOE_NAMES = dict(LFM2_NAMES, **{f"blk.{{}}.{word}": f"model.layers.{{}}.{name}"
                                    for word, name in LFM2_EXPERTS.items()})
QKV, FFN = ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up", "ffn_down")
LAYER_NORMS = ("attn_norm", "ffn_norm", "output_norm")


def names(without=(), **more):
    """HUGGINGFACE_NAMES less some words, with more weights of each layer or other names for them.
    A name with {} has the number of an expert there, or of a head."""
    kept = {stem: name for stem, name in HUGGINGFACE_NAMES.items()
            if stem.split(".")[-1] not in without}
    return dict(kept, **{f"blk.{{}}.{word}": f"model.layers.{{}}.{name}"
                         for word, name in more.items()})


HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
POST_NORMS = {"post_attention_norm": "post_attention_layernorm",
              "post_ffw_norm": "post_feedforward_layernorm"}
EXPERTS = {"ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.{}.gate_proj",
           "ffn_up_exps": "mlp.experts.{}.up_proj", "ffn_down_exps": "mlp.experts.{}.down_proj"}


def shared_expert(source):
    return {f"ffn_{word}_shexp": f"mlp.{source}.{word}_proj" for word in ("gate", "up", "down")}


GEMMA2_NAMES = names(**POST_NORMS, ffn_norm="pre_feedforward_layernorm")
GEMMA3_NAMES = names(**POST_NORMS, ffn_norm="pre_feedforward_layernorm", **HEAD_NORMS)
PER_LAYER = {"inp_gate": "per_layer_input_gate", "proj": "per_layer_projection",
             "post_norm": "post_per_layer_input_norm"}
GEMMA4_EXPERTS = {
    "ffn_gate_inp": "router.proj", "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps": "experts.gate_up_proj", "ffn_down_exps": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2"}
GEMMA4_NAMES = dict(
    names(**POST_NORMS, ffn_norm="pre_feedforward_layernorm", **HEAD_NORMS, **PER_LAYER,
          **GEMMA4_EXPERTS, layer_output_scale="layer_scalar"),
    per_layer_token_embd="model.embed_tokens_per_layer", per_layer_proj_norm=
    "model.per_layer_projection_norm", per_layer_model_proj="model.per_layer_model_projection")
OLMO2_NAMES = names(("attn_norm", "ffn_norm"), **HEAD_NORMS, **POST_NORMS)
PHI3_NAMES = names(QKV + FFN[:2], attn_qkv="self_attn.qkv_proj", ffn_up="mlp.gate_up_proj")
MIXTRAL_NAMES = names(
    FFN, ffn_gate_inp="block_sparse_moe.gate", ffn_gate_exps="block_sparse_moe.experts.{}.w1",
    ffn_down_exps="block_sparse_moe.experts.{}.w2", ffn_up_exps="block_sparse_moe.experts.{}.w3")
QWEN2MOE_NAMES = names(FFN, **EXPERTS, **shared_expert("shared_expert"),
                       ffn_gate_inp_shexp="mlp.shared_expert_gate")
GPT_OSS_NAMES = names(
    FFN + ("ffn_norm",), attn_sinks="self_attn.sinks", ffn_gate_inp="mlp.router",
    post_attention_norm="post_attention_layernorm", ffn_gate_exps="mlp.experts.gate_up_proj",
    ffn_up_exps="mlp.experts.gate_up_proj", ffn_down_exps="mlp.experts.down_proj")
GLM4_NAMES = names(
    FFN[:2], ffn_up="mlp.gate_up_proj", post_attention_norm="post_self_attn_layernorm",
    post_ffw_norm="post_mlp_layernorm")


def mamba(where):
    return {"ssm_in": f"{where}.in_proj", "ssm_conv1d": f"{where}.conv1d", "ssm_dt": f"{where}.dt",
            "ssm_a": f"{where}.A_log", "ssm_d": f"{where}.D", "ssm_norm": f"{where}.norm",
            "ssm_out": f"{where}.out_proj"}


def backbone_names(**words):
    return {"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f",
            "output": "lm_head", "blk.{}.attn_norm": "backbone.layers.{}.norm",
            **{f"blk.{{}}.{word}": f"backbone.layers.{{}}.{name}" for word, name in words.items()}}


MAMBA2_NAMES = backbone_names(**mamba("mixer"))
NEMOTRON_NAMES = backbone_names(
    **mamba("mixer"), attn_q="mixer.q_proj", attn_k="mixer.k_proj", attn_v="mixer.v_proj",
    attn_output="mixer.o_proj", ffn_up="mixer.up_proj", ffn_down="mixer.down_proj",
    ffn_gate_inp="mixer.gate", exp_probs_b="mixer.gate.e_score_correction",
    ffn_up_exps="mixer.experts.{}.up_proj", ffn_down_exps="mixer.experts.{}.down_proj",
    ffn_up_shexp="mixer.shared_experts.up_proj", ffn_down_shexp="mixer.shared_experts.down_proj",
    ffn_latent_down="mixer.fc1_latent_proj", ffn_latent_up="mixer.fc2_latent_proj")
DELTA = {
    "attn_qkv": "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z",
    "ssm_alpha": "linear_attn.in_proj_a", "ssm_beta": "linear_attn.in_proj_b",
    "ssm_dt": "linear_attn.dt", "ssm_a": "linear_attn.A_log", "ssm_norm": "linear_attn.norm",
    "ssm_conv1d": "linear_attn.conv1d", "ssm_out": "linear_attn.out_proj"}
QWEN35_NAMES = names(("ffn_norm",), **DELTA, **HEAD_NORMS,
                     post_attention_norm="post_attention_layernorm")
QWEN35MOE_NAMES = dict(QWEN2MOE_NAMES, **QWEN35_NAMES)
for unused in ("ffn_norm", *FFN):
    QWEN35MOE_NAMES.pop(f"blk.{{}}.{unused}")


def granite_names(config):
    experts, shared = "block_sparse_moe.input_linear", "shared_mlp.input_linear"
    shared = {"ffn_gate_shexp": shared, "ffn_up_shexp": shared,
              "ffn_down_shexp": "shared_mlp.output_linear"}
    return names(FFN, ffn_gate_inp="block_sparse_moe.router.layer", ffn_gate_exps=experts,
                 ffn_up_exps=experts, ffn_down_exps="block_sparse_moe.output_linear",
                 **shared if config.get("shared_expert_intermediate_size") else {})


SHARED_EXPERTS = shared_expert("shared_experts")
BIASED_EXPERTS = dict(EXPERTS, exp_probs_b="mlp.gate.e_score_correction", **SHARED_EXPERTS)
HUNYUAN_NAMES = names(attn_q_norm="self_attn.query_layernorm",
                      attn_k_norm="self_attn.key_layernorm")
ERNIE_NAMES = names(**dict(BIASED_EXPERTS, exp_probs_b="mlp.moe_statics.e_score_correction"))
MUSE_NAMES = names(**POST_NORMS, ffn_norm="pre_feedforward_layernorm",
                   attn_gate="self_attn.gate_proj")
LAGUNA_NAMES = names(**HEAD_NORMS, **EXPERTS, **shared_expert("shared_expert"),
                     attn_gate="self_attn.g_proj", exp_probs_b="mlp.experts.e_score_correction")
AFMOE_NAMES = names(
    **HEAD_NORMS, **dict(BIASED_EXPERTS, ffn_gate_inp="mlp.router.gate",
                         exp_probs_b="mlp.expert_bias"), attn_gate="self_attn.gate_proj",
    post_attention_norm="post_attention_layernorm", ffn_norm="pre_mlp_layernorm",
    post_ffw_norm="post_mlp_layernorm")
APERTUS_NAMES = names(("ffn_gate",), **HEAD_NORMS, attn_norm="attention_layernorm",
                      ffn_norm="feedforward_layernorm")
HY_NAMES = names(**HEAD_NORMS, **dict(EXPERTS, ffn_gate_inp="mlp.router.gate"),
                 **shared_expert("shared_mlp"), exp_probs_b="mlp.expert_bias")
AS_FFN_NORM = {"post_attention_norm": "post_attention_layernorm"}  # which is not where it stands


def glm4moe_names(config):
    return names(("ffn_norm",), **BIASED_EXPERTS, **AS_FFN_NORM,
                 **HEAD_NORMS if config.get("use_qk_norm") else {})


def cohere2moe_names(config):
    return names(("ffn_norm",), **EXPERTS,
                 **SHARED_EXPERTS if config.get("n_shared_experts") else {})


def hybrid_names(config):
    """As granite_names, where what is called shared is all there is without experts, and attention
    may be."""
    stateful = mamba("mamba") if config.get("ssm_heads") else {}
    if config.get("num_experts"):
        return dict(granite_names(config), **names(FFN, **stateful))
    both = "shared_mlp.input_linear"
    return names(**stateful, ffn_gate=both, ffn_up=both, ffn_down="shared_mlp.output_linear")


def falcon_names(config):
    state = mamba("mamba")
    if not config.get("mamba_rms_norm"):
        del state["ssm_norm"]
    return dict(names(**state, ffn_norm="pre_ff_layernorm", ffn_gate="feed_forward.gate_proj",
                      ffn_up="feed_forward.up_proj", ffn_down="feed_forward.down_proj"),
                output_norm="model.final_layernorm")


def deepseek_names(config):
    """Keys and values of all heads come from one short vector; queries may, too."""
    query = {"attn_q": "self_attn.q_proj"} if config.get("q_lora_rank") is None else {
        "attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_q_b": "self_attn.q_b_proj"}
    choice = {"exp_probs_b": "mlp.gate.e_score_correction"}
    return names(QKV, **query, attn_kv_a_mqa="self_attn.kv_a_proj_with_mqa",
                 attn_kv_a_norm="self_attn.kv_a_layernorm", attn_k_b="self_attn.kv_b_proj",
                 attn_v_b="self_attn.kv_b_proj", **EXPERTS, **shared_expert("shared_experts"),
                 **choice if config["scoring_func"] == "sigmoid" else {})


def stablelm_names(config):
    norms = {f"attn_{letter}_norm": f"self_attn.{letter}_layernorm.norms.{{}}" for letter in "qk"}
    return names(("ffn_norm",) if config.get("use_parallel_residual") else (),
                 **norms if config.get("qk_layernorm") else {})


def cohere_names(config):
    return names(("ffn_norm",), **HEAD_NORMS if config.get("use_qk_norm") else {})


# For the column "arch" of ARCHS, where the class does not say it: functions of the config.


def granite_arch(config):
    if config.get("ssm_heads"):
        return "granitehybrid"
    return "granitemoe" if config.get("num_experts") else "granite"


def nemotron_arch(config):
    return "nemotron_h_moe" if "moe" in config["layer_types"] else "nemotron_h"


# For the column "settle" of ARCHS: functions of a name for messages and the config, which return
# settings that follow from others.


def lfm2_settings(source, config):
    """How wide the feed-forward network is was decided by code, and once called otherwise."""
    hidden = number(source, config, "block_ff_dim", config.get("intermediate_size"))
    if config["block_auto_adjust_ff_dim"]:
        step = number(source, config, "block_multiple_of", 256)
        hidden = int(2 * hidden / 3)
        if config.get("block_ffn_dim_multiplier", 1.0) is not None:
            hidden = int(number(source, config, "block_ffn_dim_multiplier", 1.0, float, 0) * hidden)
            hidden = -(-hidden // step) * step
    attention = config.get("full_attn_idxs") or range(config.get("num_hidden_layers") or 0)
    return {"intermediate_size": hidden, "layer_types": config.get("layer_types") or [
        "full_attention" if layer in attention else "conv"
        for layer in range(number(source, config, "num_hidden_layers"))]}


def full_at_each(period, other, layers):
    """Kinds of layers of which the last one of each period sees all, and the others are of another
    kind."""
    return [other if (layer + 1) % period else "full_attention" for layer in range(layers)]


def linear_in_fourths(source, config):
    """Layers are linear attention but for each fourth, or as often as another setting says."""
    period = number(source, config, "full_attention_interval", 4)
    return {"full_attention_interval": period, "layer_types": config.get("layer_types") or
            full_at_each(period, "linear_attention", number(source, config, "num_hidden_layers"))}


KINDS_OF_LAYERS = {
    "mamba": "linear_attention", "M": "linear_attention", "attention": "full_attention",
    "*": "full_attention", "E": "moe", "-": "mlp"}


def layer_kinds_today(source, config):
    """Older files have other names for kinds of layers, or letters in a row."""
    kinds = config.get("hybrid_override_pattern") or config.get("layer_types") or []
    return {"layer_types": [KINDS_OF_LAYERS.get(kind, kind) for kind in kinds],
            "num_hidden_layers": config.get("num_hidden_layers") or len(kinds)}


def hybrid_settings(source, config):
    """A model of attention only is one of another family in GGUF."""
    settings = layer_kinds_today(source, config)
    if "linear_attention" not in settings["layer_types"]:
        settings.update(dict.fromkeys(("ssm_heads", "ssm_groups", "ssm_state_size", "conv_kernel")))
    if not config.get("num_experts"):
        settings["intermediate_size"] = config.get("shared_expert_intermediate_size")
    return settings


def hunyuan_settings(source, config):
    """For longer texts all is turned more slowly, by another theta."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if (rope.get("rope_type") or rope.get("type")) != "dynamic":
        return {}
    require(rope.get("alpha"), f"{source}: rope of type dynamic without alpha is not known")
    theta = number(source, dict(config, **rope), "rope_theta", 10000.0, float)
    size = number(source, config, "head_dim", (config.get("hidden_size") or 0)
                  // number(source, config, "num_attention_heads"), least=4)
    theta *= number(source, rope, "alpha", kind=float, least=0) ** (size / (size - 2))
    return {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}


def dense_then_sparse(source, config):
    """Which layers have experts is listed, but these are the last ones."""
    kinds = config.get("mlp_layer_types")
    if not kinds:
        return {}
    dense = kinds.count("dense")
    require(kinds == ["dense"] * dense + ["sparse"] * (len(kinds) - dense)
            and len(kinds) == config.get("num_hidden_layers"),
            f"{source}: mlp_layer_types are not some dense and then all sparse")
    return {"first_k_dense_replace": dense}


def cohere2moe_settings(source, config):
    """Only leading layers have another size of feed-forward network than experts, and only they
    rotate without a window."""
    settings = dense_then_sparse(source, config) or {
        "first_k_dense_replace": number(source, config, "first_k_dense_replace", 0, least=0)}
    dense, layers = settings["first_k_dense_replace"], number(source, config, "num_hidden_layers")
    first, later = (number(source, config, key, period) for key, period in (
        ("prefix_dense_sliding_window_pattern", 1), ("sliding_window_pattern", 4)))
    kinds = config.get("layer_types") or (
        full_at_each(first, "sliding_attention", dense)
        + full_at_each(later, "sliding_attention", layers - dense))
    require(first == 1 or "full_attention" not in kinds[:dense],
            f"{source}: dense layers without window and rope are not known")
    epsilon = None if config.get("rms_norm_eps") else config.get("layer_norm_eps", 1e-5)
    hidden = config.get("intermediate_size")
    return dict(settings, layer_types=kinds, layer_norm_eps=epsilon, moe_intermediate_size=hidden,
                intermediate_size=config.get("prefix_dense_intermediate_size") or hidden)


def muse_settings(source, config):
    """Every fourth layer has no window, counted from the last one."""
    layers = number(source, config, "num_hidden_layers")
    return {"layer_types": config.get("layer_types") or [
        "sliding_attention" if (layers - 1 - layer) % 4 else "full_attention"
        for layer in range(layers)]}


def mamba2_settings(source, config):
    """It has no attention, and as long a context as wanted."""
    return {"ssm_heads": config.get("num_heads"), "ssm_head_dim": config.get("head_dim"),
            "ssm_state_size": config.get("state_size"), "num_attention_heads": 1, "head_dim": None,
            "num_key_value_heads": 1, "intermediate_size": 0, "max_position_embeddings": 1 << 20}


def gemma4_settings(source, config):
    """Layers without a window have other heads than those with one, and in GGUF they come first.
    Newer files say so layer by layer."""
    kinds = config.get("layer_types") or full_at_each(
        6, "sliding_attention", number(source, config, "num_hidden_layers"))
    special = config.get("per_layer_config") or {}
    of_full = [special.get(str(layer), special.get(f"{layer:02}"))
               for layer, kind in enumerate(kinds) if kind == "full_attention"]
    require(not special or of_full and of_full[0] and len(special) == len(of_full)
            == of_full.count(of_full[0]) and of_full[0].keys() <= {
                "head_dim", "num_key_value_heads"},
            f"{source}: per_layer_config has others than all layers of full_attention, or other "
            "settings than head_dim and num_key_value_heads")
    full = {"head_dim": config.get("global_head_dim", 512)}
    if config.get("attention_k_eq_v") and config.get("num_global_key_value_heads"):
        full["num_key_value_heads"] = config["num_global_key_value_heads"]
    full = dict({key: config.get(key) for key in ("head_dim", "num_key_value_heads")},
                **of_full[0] if special else full)
    return {"layer_types": kinds, "window_head_dim": config.get("head_dim"),
            "window_kv_heads": config.get("num_key_value_heads"), **full,
            **({} if config.get("enable_moe_block") else {"num_experts": None})}


def gemma4_ignored(config):
    """What layers don't use that have keys and values of earlier ones."""
    layers, shared = config["num_hidden_layers"], config.get("num_kv_shared_layers") or 0
    late = "|".join(map(str, range(layers - shared, layers))) or "none"
    return rf"layers\.({late})\.self_attn\.(k_proj|v_proj|k_norm)\."


# For the column "also" of ARCHS: functions of a name for messages, the config and the sizes, which
# return metadata.


def sliding_windows(period, listed=False, needed=True):
    """Returns such a function for the window and the layers that have it, which are those that the
    config says or else all but every so many. GGUF has them listed where they are others than that,
    or always."""
    def keys(source, config, sizes):
        usual = [(layer + 1) % period != 0 for layer in range(sizes["layers"])]
        pattern, kinds = config.get("sliding_window_pattern") or period, config.get("layer_types")
        if isinstance(pattern, int):
            pattern = "L" * (min(pattern, sizes["layers"] + 1) - 1) + "G"
        layers = [kind == "sliding_attention" for kind in kinds] if kinds else [
            pattern[layer % len(pattern)] == "L" for layer in range(sizes["layers"])]
        if config.get("sliding_window") is None and not needed:
            return {}
        require(len(layers) == sizes["layers"],
                f"{source}: {len(layers)} layer_types for {sizes['layers']} layers")
        window = {"attention.sliding_window": number(source, config, "sliding_window")}
        if listed or layers != usual:
            window["attention.sliding_window_pattern"] = np.array(layers)
        return window
    return keys


def gemma_scale(source, config, sizes):
    """Scores are divided by the root of the size of a head where no key says anything else."""
    scalar = number(source, config, "query_pre_attn_scalar", sizes["head_dim"], float)
    return {} if scalar == sizes["head_dim"] else {"attention.scale": scalar ** -0.5}


def no_rope_in_fourths(source, config, sizes):
    usual = [int((layer + 1) % 4 != 0) for layer in range(sizes["layers"])]
    require(config.get("no_rope_layers") in (None, [], usual),
            f"{source}: no_rope_layers are others than each fourth")
    return {}


def latent_keys(source, config, sizes):
    """Attention as llama.cpp has it: one key/value head as wide as the short vector, from which
    each head makes its own."""
    keys = {"head_count_kv": 1, "kv_lora_rank": sizes["kv_rank"], "value_length": sizes["kv_rank"],
            "key_length": sizes["latent"], "key_length_mla": sizes["qk_dim"],
            "value_length_mla": sizes["value"]}
    if "q_rank" in sizes:
        keys["q_lora_rank"] = sizes["q_rank"]
    return {f"attention.{key}": value for key, value in keys.items()}


def expert_choice(source, config, sizes):
    """By which scores experts are chosen, and from the best of how many groups."""
    keys = {"expert_gating_func": {"softmax": 1, "sigmoid": 2}[config["scoring_func"]]}
    if config["topk_method"] != "greedy" and config.get("n_group"):
        keys.update(expert_group_count=number(source, config, "n_group"),
                    expert_group_used_count=number(source, config, "topk_group"))
    return keys


def hybrid_keys(source, config, sizes):
    """The key by which llama.cpp knows whether it has to rotate."""
    if "ssm_heads" not in sizes:
        require(config.get("position_embedding_type") == "rope",
                f"{source}: attention only without rope is not known of this family")
        return {}
    return {"ssm.inner_size": sizes["inner"], "rope.scaling.finetuned":
            config.get("position_embedding_type") == "rope"}


def no_attention(source, config, sizes):
    return {"attention.head_count": 0, "attention.head_count_kv": None, "feed_forward_length": 0}


def nemotron_keys(source, config, sizes):
    """llama.cpp wants the epsilon under the name for LayerNorm, too."""
    return {"attention.layer_norm_epsilon": number(source, config, "rms_norm_eps", 1e-5, float, 0)}


def gemma4_keys(source, config, sizes):
    """What the two kinds of layers have, and what is shared."""
    heads = number(source, config, "window_head_dim")
    keys = {f"attention.{word}_length_swa": heads for word in ("key", "value")}
    keys.update({"rope.dimension_count_swa": heads, "embedding_length_per_layer_input":
                 sizes["per_layer"], "attention.shared_kv_layers": sizes["shared_layers"],
                 "final_logit_softcapping": number(  # which is 30 where no key is
                     source, config, "final_logit_softcapping", 0.0, float, 0)})
    return keys


def shared_width(source, config, sizes):
    return {"expert_shared_feed_forward_length": sizes.get("shared", 0) * sizes["expert_hidden"]}


def by_sigmoid_or_softmax(source, config, sizes):
    """A softmax of the scores of those chosen is one of all that is made to add up to 1."""
    softmax = config.get("expert_selection_fn") == "softmax"
    return {"expert_gating_func": 1 if softmax else 2,
            "expert_weights_norm": softmax or bool(config.get("norm_topk_prob"))}


def recurrent_layers(source, config, sizes):
    return {"attention.recurrent_layers": np.array([own["q_dim"] == 0 for own in sizes["own"]])}


def rope_sections(source, config, sizes):
    """Places in images turn some of these pairs; in text all turn alike."""
    sections = (config.get("rope_parameters") or {}).get("mrope_section") or [11, 11, 10]
    require(len(sections) in (3, 4) and all(type(n) is int for n in sections),
            f"{source}: mrope_section is {json.dumps(sections)[:40]}, expected three numbers")
    return {"rope.dimension_sections": np.array([*sections, 0][:4], np.int32)}


def inner_size(source, config, sizes):
    return {"ssm.inner_size": sizes["inner"]}


def sigmoid_choice(source, config, sizes):
    return {"expert_gating_func": 2}


def query_growth(source, config, sizes):
    """Queries grow with the logarithm of how many contexts of the first training came before."""
    rope = config.get("rope_parameters") or {}
    if rope.get("llama_4_scaling_beta") is None:
        return {}
    require((rope.get("rope_type") or rope.get("type")) == "yarn",
            f"{source}: llama_4_scaling_beta without rope of type yarn is not known")
    return {"attention.temperature_scale": number(
        source, rope, "llama_4_scaling_beta", kind=float, least=0)}


# For the column "layers": functions of the same, which return a list of the sizes that each layer
# has of its own, if any. A weight is not in the layers where its shape has a 0.


def leading_dense(source, config, sizes):
    """Experts begin behind so many layers, and only they are in these, or in every so many."""
    dense = number(source, config, "first_k_dense_replace", 0, least=0)
    period = number(source, config, "moe_layer_interval", 1)
    return [{"experts": 0, "shared": 0, "shared_hidden": 0}
            if layer < dense or (layer + 1) % period else {"hidden": 0}
            for layer in range(sizes["layers"])]


def head_counts(source, config, sizes):
    """Layers may have other numbers of heads, and a gate for each head or for each of its numbers.
    """
    heads = config.get("num_attention_heads_per_layer") or [sizes["heads"]] * sizes["layers"]
    require(len(heads) == sizes["layers"] and all(n > 0 and n % sizes["kv_heads"] == 0
                                                  for n in heads),
            f"{source}: num_attention_heads_per_layer does not go with {sizes['layers']} layers of "
            f"{sizes['kv_heads']} key/value heads")
    each = 1 if config.get("gating") in (True, "per-head") else sizes["head_dim"]
    return [{"heads": n, "q_dim": n * sizes["head_dim"], "gate_dim": n * each} for n in heads]


def layer_kinds(source, config, sizes, known):
    """layer_types, which must be there and among those known."""
    kinds = config.get("layer_types")
    require(kinds and len(kinds) == sizes["layers"] and set(kinds) <= set(known),
            f"{source}: layer_types {json.dumps(kinds)[:80]}, expected {sizes['layers']} of "
            f"{', '.join(known)}")
    return kinds


def all_full(source, config, sizes):
    """Layers may have a window in principle, but none has."""
    kinds = config.get("layer_types") or []
    require(set(kinds) <= {"full_attention"}, f"{source}: layer_types are others than "
            "full_attention")
    return []


def last_layer_routed(source, config, sizes):
    last = config.get("moe_layer_end_index")
    require(last in (None, -1, sizes["layers"] - 1),
            f"{source}: moe_layer_end_index is {last}, expected that of the last layer")
    return []


def muse_layers(source, config, sizes):
    """Layers with a window rotate, all by one theta, and those without do not."""
    theta = (config.get("rope_parameters") or config).get("rope_theta", 10000.0)
    wanted = [theta if kind == "sliding_attention" else 0 for kind in config["layer_types"]]
    require(config.get("layer_rope_theta") in (None, wanted),
            f"{source}: layer_rope_theta is not {theta} in layers with a window and 0 in others")
    return []


NO_ATTENTION = {"q_dim": 0, "kv_dim": 0, "head_dim": 0, "kv_heads": 0}


def convolutions(source, config, sizes):
    """Layers mix neighbours either by attention or by a short convolution."""
    kinds = layer_kinds(source, config, sizes, ("conv", "full_attention"))
    return [dict(NO_ATTENTION, conv=sizes["dim"]) if kind == "conv" else {"conv": 0}
            for kind in kinds]


NO_STATE = dict.fromkeys(("inner", "ssm_conv", "ssm_in", "ssm_heads", "ssm_head_dim", "groups"), 0)


def states(source, config, sizes):
    """Layers have either attention or a state of what was."""
    kinds = layer_kinds(source, config, sizes, ("linear_attention", "full_attention"))
    return [NO_ATTENTION if kind == "linear_attention" else dict(NO_STATE, q_dim=sizes["q_dim"])
            for kind in kinds]


def gemma4_layers(source, config, sizes):
    """The last ones take keys and values from earlier ones, those without a window may take their
    values from the keys, and there may be experts beside the feed-forward network."""
    kinds = layer_kinds(source, config, sizes, ("sliding_attention", "full_attention"))
    shared = number(source, config, "num_kv_shared_layers", 0, least=0)
    require(shared < sizes["layers"] and set(kinds[sizes["layers"] - shared:]) <= set(
        kinds[:sizes["layers"] - shared]),
            f"{source}: {shared} layers share keys and values that no earlier one has")
    sizes.update(shared_layers=shared, per_layer=sizes.get("per_layer", 0))
    routed, wide = "experts" in sizes, config.get("use_double_wide_mlp")
    layers = []
    for layer, kind in enumerate(kinds):
        head_dim, kv_heads = sizes["head_dim"], sizes["kv_heads"]
        if kind == "sliding_attention":
            head_dim, kv_heads = (number(source, config, f"window_{word}")
                                  for word in ("head_dim", "kv_heads"))
        late = layer >= sizes["layers"] - shared
        keys = 0 if late else kv_heads * head_dim
        layers.append({
            "kv_heads": kv_heads, "head_dim": head_dim, "q_dim": sizes["heads"] * head_dim,
            "kv_dim": keys, "key_norm": head_dim if keys else 0,
            "v_dim": 0 if kind == "full_attention" and config.get("attention_k_eq_v") else keys,
            "hidden": sizes["hidden"] * (2 if late and wide else 1),
            "per_layer_dim": sizes["dim"] if sizes["per_layer"] else 0,
            **({"router": sizes["dim"]} if routed else {"router": 0, "experts": 0})})
    return layers


def states_or_none(source, config, sizes):
    return states(source, config, sizes) if "ssm_heads" in sizes else []


NOTHING = {**NO_ATTENTION, **NO_STATE, **dict.fromkeys(
    ("hidden", "experts", "shared_hidden", "latent_dim", "width"), 0)}


def one_part(source, config, sizes):
    """Layers are one of four parts. width is what GGUF says of those that are no mixer."""
    kinds = layer_kinds(source, config, sizes, ("linear_attention", "full_attention", "moe", "mlp"))
    kept = {"linear_attention": NO_STATE, "full_attention": NO_ATTENTION, "mlp": ("hidden",),
            "moe": ("experts", "shared_hidden", "latent_dim")}
    widths = {"mlp": sizes["hidden"], "moe": sizes["expert_hidden"]}
    sizes.setdefault("latent_dim", 0)
    sizes.update(width=0, expert_dim=sizes["latent_dim"] or sizes["dim"])
    return [dict({word: 0 for word in NOTHING if word not in kept[kind]},
                 width=widths.get(kind, 0)) for kind in kinds]


def falcon_factors(source, config, sizes):
    """Numbers by which parts are multiplied go into the weights."""
    factor = {word: number(source, config, f"{word}_multiplier", 1.0, float, -math.inf)
              for word in ("embedding", "lm_head", "key", "attention_in", "attention_out", "ssm_in",
                           "ssm_out")}
    require(not config.get("mamba_rms_norm") or config.get("mamba_norm_before_gate") is False,
            f"{source}: a norm of the state before its gate is not known")
    gate, down = config.get("mlp_multipliers") or (1.0, 1.0)
    state = sizes["groups"] * sizes["state"]
    parts = np.repeat(np.float32(config.get("ssm_multipliers") or [1.0] * 5),
                      [sizes["inner"], sizes["inner"], state, state, sizes["ssm_heads"]])
    require(not config.get("tie_word_embeddings") or factor["embedding"] == factor["lm_head"],
            f"{source}: one weight for embedding and output with other multipliers is not known")
    sizes["times"] = {
        "token_embd": factor["embedding"], "output": factor["lm_head"],
        "attn_q": factor["attention_in"], "attn_k": factor["attention_in"] * factor["key"],
        "attn_v": factor["attention_in"], "attn_output": factor["attention_out"],
        "ssm_in": parts * np.float32(factor["ssm_in"]), "ssm_out": factor["ssm_out"],
        "ffn_gate": gate, "ffn_down": down}
    return []


def vector(values):
    values = np.array(values, np.float32)
    require(np.all((values > 0) & np.isfinite(values)), "rope has a factor that is not above 0")
    return Tensor(values.shape, lambda index: values[None])


def muse_norms(source, config, sizes):
    """Queries have one number instead of weights of a norm, keys none."""
    scale = number(source, config, "qk_scale_factor", kind=float, least=0)
    made = {"attn_q_norm": vector([scale] * sizes["head_dim"]),
            "attn_k_norm": vector([1.0] * sizes["head_dim"])}
    return {f"blk.{layer}.{word}.weight": tensor for layer in range(sizes["layers"])
            for word, tensor in made.items()}


def listed(key, word):
    """Returns a function for "also" that gives a size of each layer where they differ."""
    def keys(source, config, sizes):
        found = [own.get(word, sizes[word]) for own in sizes["own"]]
        return {key: found[0] if len(set(found)) == 1 else np.array(found, np.int32)}
    return keys


COLUMNS = {
    "settle": lambda source, config: {}, "layers": (), "biases": {}, "endings": ENDINGS,
    "shapes": {}, "stored": {}, "change": {}, "made": lambda source, config, sizes: {},
    "numbers": {}, "keys": (), "also": (), "rope": {}, "rename": (), "ignore": "$^"}


def family(arch, names, only={}, defaults={}, **columns):
    """A row of ARCHS from what is not as usual."""
    return dict(COLUMNS, arch=arch, names=names, only={"hidden_act": ("silu", "swish"), **only},
                defaults={"hidden_act": "silu", **defaults}, **columns)


# What several rows have in common.
PAIRS = dict.fromkeys(("attn_q", "attn_k", "attn_q.bias", "attn_k.bias"), halves_to_pairs)
ONE_MORE = {word: one_more for word in SHAPES if word.endswith("norm") and word != "ssm_norm"}
WHOLE_NORMS = {"attn_q_norm": ("q_dim",), "attn_k_norm": ("kv_dim",)}
EACH_HEAD_NORMS = {"attn_q_norm": ("heads", "head_dim"), "attn_k_norm": ("kv_heads", "head_dim")}
CHOICE = ("expert_count", "expert_used_count")
NO_BIAS = {"attention_bias": (None, False), "mlp_bias": (None, False)}
GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # names of one function
NO_WINDOW = {"use_sliding_window": (None, False)}
ALL_ROUTED = {"decoder_sparse_step": (None, 1), "mlp_only_layers": (None, []), **NO_WINDOW}
GEMMA = {
    "arch": "gemma", "names": HUGGINGFACE_NAMES, "change": ONE_MORE,
    "defaults": {"hidden_act": "gelu", "tie_word_embeddings": True},
    "only": {"hidden_act": ("gelu", "gelu_pytorch_tanh"), "attention_bias": (None, False),
             "hidden_activation": (None, "gelu_pytorch_tanh"),
             "use_bidirectional_attention": (None, False)},
}
BIASES = {"attention_bias": QKV + ("attn_output",), "mlp_bias": FFN}
GRANITE = {
    "change": PAIRS, "biases": BIASES, "defaults": dict.fromkeys((
        "attention_multiplier", "embedding_multiplier", "residual_multiplier", "logit_scale"), 1.0),
    "keys": ("attention.scale", "embedding_scale", "residual_scale", "logit_scale"),
}
TWO_EXPERTS, TWO_SHARED = ("experts", "2*expert_hidden", "dim"), ("2*shared_hidden", "dim")
GRANITE_MOE = dict(
    GRANITE, keys=(*GRANITE["keys"], *CHOICE, "expert_shared_feed_forward_length"),
    stored={"ffn_gate_exps": TWO_EXPERTS, "ffn_up_exps": TWO_EXPERTS, "ffn_gate_shexp": TWO_SHARED,
            "ffn_up_shexp": TWO_SHARED},
    change={"ffn_gate_exps": first_rows, "ffn_up_exps": last_rows, "ffn_gate_shexp": first_rows,
            "ffn_up_shexp": last_rows, **PAIRS})
TURNED_EXPERTS, SHARED = ("experts", "dim", "2*expert_hidden"), ("shared*expert_hidden", "dim")
SHARED_SHAPES = {"ffn_gate_shexp": SHARED, "ffn_up_shexp": SHARED, "ffn_down_shexp": SHARED[::-1]}
SCORES = ((r"e_score_correction_bias$", "e_score_correction.bias"),
          (r"expert_bias$", "expert_bias.bias"))
DEEPSEEK = {
    "arch": "deepseek2", "names": deepseek_names, "layers": (leading_dense,),
    "also": (latent_keys, expert_choice), "rope": {"log_multiplier": 0.1},
    "ignore": r"model\.layers\.@\.", "rename": SCORES,
    "shapes": {"attn_q": ("heads*qk_dim", "dim"), "attn_output": ("dim", "heads*value"),
               **SHARED_SHAPES},
    "stored": dict.fromkeys(("attn_k_b", "attn_v_b"), ("heads*plain_value", "kv_rank")),
    "change": {"attn_k_b": key_part, "attn_v_b": last_rows},
    "keys": (*CHOICE, "expert_feed_forward_length", "expert_shared_count", "expert_weights_scale",
             "expert_weights_norm", "leading_dense_block_count"),
}
LFM2 = {
    "layers": (convolutions,), "keys": ("shortconv.l_cache",),
    "also": (listed("attention.head_count_kv", "kv_heads"),),
    "only": {"conv_bias": (None, False), "sliding_window": None},
    "stored": {"shortconv.conv": ("conv", "1", "kernel")}, "change": {"shortconv.conv": reshaped},
    "defaults": {"conv_kernel": 3, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
                 "tie_word_embeddings": True, "first_k_dense_replace": 2},
}
QWEN35 = {
    "settle": linear_in_fourths, "layers": (states,), "ignore": r"^mtp\.",
    "rename": ((r"\.dt_bias$", ".dt.bias"), (r"\.A_log$", ".A_log.weight")),
    "shapes": {"attn_q": ("2*q_dim", "dim"), "attn_qkv": ("ssm_conv", "dim"),
               "attn_gate": ("inner", "dim"), "ssm_a": ("ssm_heads",),
               "ssm_norm": ("ssm_head_dim",)},
    "stored": {"ssm_conv1d": ("ssm_conv", "1", "kernel")},
    "change": {
        **ONE_MORE, **dict.fromkeys(("attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_dt"),
                                    turned_values),
        "ssm_conv1d": then(reshaped, turned_values), "ssm_a": then(minus_exp, turned_values),
        "ssm_out": turned_value_columns},
    "keys": ("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank",
             "full_attention_interval"),
    "also": (recurrent_layers, rope_sections, inner_size),
    "only": {**NO_BIAS, "mlp_only_layers": (None, []), "attn_output_gate": (None, True),
             "norm_topk_prob": (None, True)},
    "defaults": {"partial_rotary_factor": 0.25, "conv_kernel": 4, "head_dim": 256},
}
def other_epsilon(config):
    """That of RMSNorm has the name of that of LayerNorm."""
    return config.get("layer_norm_eps", 1e-5)


def two_thetas(theta, **more):
    """Returns a function for "defaults" of a class where layers with a window have their own."""
    return lambda config: {"full_attention": {"rope_theta": theta, **more},
                           "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}


NO_LIMIT = (None, [0.0, math.inf], [0.0, {"__float__": "Infinity"}])
MAMBA = {
    "rename": ((r"\.dt_bias$", ".dt.bias"), (r"\.(A_log|D)$", r".\1.weight"),
               (r"e_score_correction_bias$", "e_score_correction.bias"),
               (r"^model\.(?=backbone|lm_head)", "")),
    "stored": {"ssm_conv1d": ("ssm_conv", "1", "kernel"), "ssm_norm": ("inner",),
               **dict.fromkeys(("ssm_a", "ssm_d"), ("ssm_heads",))},
    "change": {"ssm_conv1d": reshaped, "ssm_a": then(minus_exp, folded), "ssm_d": folded,
               "ssm_norm": folded},
    "biases": {"use_conv_bias": ("ssm_conv1d",)},
    "keys": ("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank"),
    "only": {"use_bias": (None, False), "mamba_proj_bias": (None, False),
             "mamba_hidden_act": (None, "silu"), "time_step_limit": NO_LIMIT, **NO_BIAS},
    "defaults": {"use_conv_bias": True, "conv_kernel": 4},
}
# Experts that are chosen by a score with a bias, beside some that all tokens have.
BIASED = {
    "layers": (leading_dense,), "shapes": SHARED_SHAPES, "rename": SCORES,
    "ignore": r"model\.layers\.@\.|^model\.mtp_",
    "keys": (*CHOICE, "expert_feed_forward_length", "expert_shared_count", "expert_weights_scale",
             "expert_weights_norm", "leading_dense_block_count"),
}
ONE_GROUP = {"n_group": (None, 1), "topk_group": (None, 1)}
ERNIE = {
    "only": {"use_bias": (None, False)}, "defaults": {
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True},
}
GLM = {
    "shapes": {"ffn_up": ("2*hidden", "dim")}, "biases": {"attention_bias": QKV}, "defaults": {
        "attention_bias": True, "partial_rotary_factor": 0.5, "rms_norm_eps": 1.5625e-07},
}
# Parts of models that see or hear.
EYES = r"^(model\.)?(vision_\w+|visual|multi_modal_projector|audio_tower|embed_(vision|audio))\."


def either(pattern, other):
    """A pattern for the column "ignore" of two."""
    if callable(other):
        return lambda config: f"{pattern}|{other(config)}"
    return f"{pattern}|{other}"


# By the class in config.json's "architectures". To add one: a row here, new weights in SHAPES, new
# sizes in MORE_SIZES.
#   arch      the family's name in GGUF, or a function of the config for that
#   names     the weights, GGUF name: name in the source; or a function of the config for that
#   settle    a function that returns settings that follow from others
#   layers    functions that return the sizes that each layer has of its own
#   biases    setting: the weights that have a bias where it is true; None: that always have
#   endings   what names end with, where not as in ENDINGS
#   shapes    where they are not those of SHAPES
#   stored    the shapes in the source where they are not those in GGUF
#   change    weight: the function that makes it what GGUF wants
#   made      a function that returns tensors that no weight is the source of
#   numbers   key: name of a weight of one number in each layer, which become one list
#   keys      settings of KEYS that go into the metadata
#   also      functions that return more metadata
#   rope      settings of rope that the class has besides those of config.json; None: no rope
#   only      settings of which one value is known, or several in a tuple
#   defaults  what the class assumes where config.json is silent; a function of the config says it
#             for null as well
#   rename    pairs of a pattern in the source's names and what to put in its place
#   ignore    pattern of names that are not part of the model; @ is the number of layers; or a
#             function of the config for that
ARCHS = {
    "LlamaForCausalLM": family("llama", HUGGINGFACE_NAMES, change=PAIRS, biases=BIASES),
    "MistralForCausalLM": family(
        "llama", HUGGINGFACE_NAMES, change=PAIRS, keys=("attention.sliding_window",),
        defaults={"sliding_window": 4096, "num_key_value_heads": 8}),
    "MixtralForCausalLM": family(
        "llama", MIXTRAL_NAMES, change=PAIRS, keys=CHOICE + ("attention.sliding_window",),
        defaults={"rope_theta": 1e6}),
    "Ministral3ForCausalLM": family(
        "mistral3", HUGGINGFACE_NAMES, change=PAIRS, also=(query_growth,),
        rope={"log_multiplier": 1.0}, only={"sliding_window": None},
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 1e6}),
    "Qwen2ForCausalLM": family(
        "qwen2", HUGGINGFACE_NAMES, biases={"qkv_bias": QKV}, only=NO_WINDOW,
        defaults={"qkv_bias": True}),
    "Qwen2MoeForCausalLM": family(
        "qwen2moe", QWEN2MOE_NAMES, biases={"qkv_bias": QKV},
        stored={"ffn_gate_inp_shexp": ("1", "dim")}, change={"ffn_gate_inp_shexp": reshaped},
        only={**ALL_ROUTED, "norm_topk_prob": (None, False)}, defaults={"qkv_bias": True},
        keys=(*CHOICE, "expert_feed_forward_length", "expert_shared_feed_forward_length")),
    "Qwen3ForCausalLM": family("qwen3", names(**HEAD_NORMS), only={**NO_WINDOW, **NO_BIAS}),
    "Qwen3MoeForCausalLM": family(
        "qwen3moe", names(FFN, **EXPERTS, **HEAD_NORMS),
        only={**ALL_ROUTED, **NO_BIAS, "norm_topk_prob": True},
        keys=(*CHOICE, "expert_feed_forward_length")),
    "Qwen3_5ForCausalLM": family("qwen35", QWEN35_NAMES, **QWEN35),
    "Qwen3_5MoeForCausalLM": family("qwen35moe", QWEN35MOE_NAMES, **dict(
        QWEN35, stored={**QWEN35["stored"], "ffn_gate_inp_shexp": ("1", "dim")},
        change={**QWEN35["change"], "ffn_gate_inp_shexp": reshaped},
        defaults={**QWEN35["defaults"], "intermediate_size": 0},
        keys=(*QWEN35["keys"], *CHOICE, "expert_feed_forward_length",
              "expert_shared_feed_forward_length"))),
    "GraniteMoeHybridForCausalLM": family(
        granite_arch, hybrid_names, settle=hybrid_settings, layers=(states_or_none,),
        rename=MAMBA["rename"], biases={**BIASES, **MAMBA["biases"]},
        stored={**GRANITE_MOE["stored"], **MAMBA["stored"], **dict.fromkeys(
            ("ffn_gate", "ffn_up"), ("2*hidden", "dim"))},
        change={**GRANITE_MOE["change"], **MAMBA["change"], "ffn_gate": first_rows,
                "ffn_up": last_rows},
        keys=(*GRANITE_MOE["keys"], *MAMBA["keys"]), only=dict(MAMBA["only"], **{
            "attention_bias": (None, False, True),
            "position_embedding_type": (None, "nope", "rope")}),
        also=(hybrid_keys, listed("attention.head_count_kv", "kv_heads")),
        defaults={**GRANITE["defaults"], **MAMBA["defaults"]}),
    "NemotronHForCausalLM": family(nemotron_arch, NEMOTRON_NAMES, rope=None, **dict(
        MAMBA, settle=layer_kinds_today, layers=(one_part,), ignore=r"^mtp\.",
        also=(inner_size, nemotron_keys, listed("attention.head_count_kv", "kv_heads"),
              listed("feed_forward_length", "width")),
        keys=(*MAMBA["keys"], *CHOICE, "expert_feed_forward_length", "expert_shared_count",
              "expert_shared_feed_forward_length", "expert_weights_norm", "expert_weights_scale",
              "moe_latent_size"),
        shapes={"ffn_up_exps": ("experts", "expert_hidden", "expert_dim"),
                "ffn_down_exps": ("experts", "expert_dim", "expert_hidden")},
        only={**MAMBA["only"], "sliding_window": None, "n_group": (None, 1),
              "topk_group": (None, 1), "mlp_hidden_act": (None, "relu2")},
        defaults={**MAMBA["defaults"], "head_dim": 128, "norm_topk_prob": True,
                  "rms_norm_eps": other_epsilon})),
    "FalconH1ForCausalLM": family("falcon-h1", falcon_names, **dict(
        MAMBA, layers=(falcon_factors,), also=(inner_size,),
        endings={**ENDINGS, "ffn_norm": ""}, defaults={**MAMBA["defaults"], "rms_norm_eps": 1e-5},
        only={**MAMBA["only"], "projectors_bias": (None, False)},
        change={**MAMBA["change"], **{word: times(word) for word in (
            "token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_output", "ssm_in",
            "ssm_out", "ffn_gate", "ffn_down")}})),
    "Mamba2ForCausalLM": family("mamba2", MAMBA2_NAMES, rope=None, **dict(
        MAMBA, settle=mamba2_settings, also=(inner_size, no_attention),
        only={**MAMBA["only"], "use_conv_bias": True},
        defaults={**MAMBA["defaults"], "rms_norm_eps": other_epsilon})),
    "GemmaForCausalLM": family(**GEMMA),
    "Gemma2ForCausalLM": family(**dict(
        GEMMA, arch="gemma2", names=GEMMA2_NAMES, also=(sliding_windows(2), gemma_scale),
        keys=("attn_logit_softcapping", "final_logit_softcapping"))),
    "Gemma3ForCausalLM": family(**dict(
        GEMMA, arch="gemma3", names=GEMMA3_NAMES, also=(sliding_windows(6), gemma_scale),
        only={**GEMMA["only"], "attn_logit_softcapping": None}, keys=("final_logit_softcapping",),
        defaults={**GEMMA["defaults"], "head_dim": 256, "vocab_size": 262208,
                  "max_position_embeddings": 131072, "num_attention_heads": 8,
                  "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
                  "rope_theta": 1e6, "rope_local_base_freq": 10000.0})),
    "Gemma4ForCausalLM": family(
        "gemma4", GEMMA4_NAMES, settle=gemma4_settings, layers=(gemma4_layers,),
        ignore=gemma4_ignored, rope={"proportional": True},
        rename=((r"(layer_scalar|router\.(per_expert_)?scale|experts\.\w+_proj)$", r"\1.weight"),),
        shapes={"attn_v": ("v_dim", "dim"), "attn_k_norm": ("key_norm",)},
        keys=(*CHOICE, "expert_feed_forward_length"),
        also=(sliding_windows(6, listed=True), gemma4_keys,
              listed("attention.head_count_kv", "kv_heads"),
              listed("feed_forward_length", "hidden")),
        only={"attention_bias": (None, False), "hidden_activation": "gelu_pytorch_tanh",
              "use_bidirectional_attention": (None, "vision")},
        defaults={"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
                  "partial_rotary_factor": 1.0, "head_dim": 256, "sliding_window": 512,
                  "hidden_size_per_layer_input": 256, "vocab_size": 262144,
                  "max_position_embeddings": 131072, "rope_parameters": two_thetas(
                      1e6, rope_type="proportional", partial_rotary_factor=0.25)}),
    "HunYuanDenseV1ForCausalLM": family(
        "hunyuan-dense", HUNYUAN_NAMES, settle=hunyuan_settings, only=NO_BIAS,
        defaults={"rms_norm_eps": 1e-5}),
    "Ernie4_5ForCausalLM": family("ernie4_5", HUGGINGFACE_NAMES, **dict(
        ERNIE, defaults={**ERNIE["defaults"], "head_dim": 128})),
    "Ernie4_5_MoeForCausalLM": family("ernie4_5-moe", ERNIE_NAMES, **dict(
        BIASED, **ERNIE, layers=(leading_dense, last_layer_routed), also=(shared_width,),
        keys=(*CHOICE, "expert_feed_forward_length", "expert_shared_count",
              "interleave_moe_layer_step", "leading_dense_block_count"),
        stored={"exp_probs_b": ("1", "experts")}, change={"exp_probs_b": reshaped})),
    "ArceeForCausalLM": family(
        "arcee", names(("ffn_gate",)), change=PAIRS, only={**NO_BIAS, "hidden_act": "relu2"},
        defaults={"hidden_act": "relu2", "rms_norm_eps": 1e-5}),
    "SeedOssForCausalLM": family(
        "seed_oss", names(("ffn_norm",), **AS_FFN_NORM), defaults={
            "attention_bias": True, "head_dim": 128}, biases={
                "attention_bias": QKV, "attention_out_bias": ("attn_output",), "mlp_bias": FFN}),
    "MellumForCausalLM": family(
        "mellum", names(FFN, **EXPERTS, **HEAD_NORMS), settle=dense_then_sparse,
        keys=(*CHOICE, "expert_feed_forward_length"), also=(sliding_windows(4, listed=True),),
        only={**NO_BIAS, "norm_topk_prob": (None, True), "first_k_dense_replace": (None, 0)},
        defaults={"intermediate_size": 0, "layer_types": lambda config: ["full_attention"]
                  * (config.get("num_hidden_layers") or 0)}),
    "HYV3ForCausalLM": family("hy_v3", HY_NAMES, **dict(
        BIASED, settle=dense_then_sparse, also=(sigmoid_choice, shared_width),
        endings={**ENDINGS, "exp_probs_b": ""}, rename=((r"expert_bias$", "expert_bias.weight"),),
        only={**NO_BIAS, "route_norm": (None, True)}, defaults={
            "rms_norm_eps": 1e-5, "norm_topk_prob": True, "n_shared_experts": 1,
            "first_k_dense_replace": 1, "routed_scaling_factor": 2.826})),
    "Dots1ForCausalLM": family("dots1", names(**BIASED_EXPERTS, **HEAD_NORMS), **dict(
        BIASED, layers=(leading_dense, all_full), also=(sigmoid_choice,),
        only={**NO_BIAS, **ONE_GROUP})),
    "Glm4MoeForCausalLM": family("glm4moe", glm4moe_names, **dict(
        BIASED, also=(sigmoid_choice,), biases={"attention_bias": QKV},
        only={**ONE_GROUP}, defaults={
            "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-5, "norm_topk_prob": True,
            "first_k_dense_replace": 1})),
    "Cohere2MoeForCausalLM": family("cohere2moe", cohere2moe_names, **dict(
        BIASED, settle=cohere2moe_settings, also=(
            sliding_windows(4, listed=True), shared_width, by_sigmoid_or_softmax),
        keys=(*CHOICE, "expert_feed_forward_length", "expert_shared_count", "logit_scale",
              "leading_dense_block_count"),
        only={**NO_BIAS, "shared_expert_combination_strategy": (None, "average"),
              "expert_selection_fn": ("softmax", "sigmoid"), "use_qk_norm": (None, False)},
        defaults={"logit_scale": 0.0625, "tie_word_embeddings": True, "norm_topk_prob": True,
                  "expert_selection_fn": "softmax"})),
    "LagunaForCausalLM": family("laguna", LAGUNA_NAMES, **dict(
        BIASED, settle=dense_then_sparse, layers=(head_counts, leading_dense),
        shapes={"attn_gate": ("gate_dim", "dim")},
        also=(sliding_windows(4, listed=True, needed=False), sigmoid_choice,
              listed("attention.head_count", "heads")),
        keys=(*CHOICE, "expert_feed_forward_length", "expert_shared_feed_forward_length",
              "expert_weights_scale", "expert_weights_norm", "leading_dense_block_count"),
        only={**NO_BIAS, "gating": (True, "per-head", "per-element"),
              "gating_types": None, "moe_router_logit_softcapping": (None, 0),
              "moe_apply_router_weight_on_input": (None, False)},
        defaults={"partial_rotary_factor": 1.0, "norm_topk_prob": True, "gating": True,
                  "first_k_dense_replace": 1, "rope_parameters": two_thetas(
                      500000.0, rope_type="default", partial_rotary_factor=0.5)})),
    "AfmoeForCausalLM": family("afmoe", AFMOE_NAMES, **dict(
        BIASED, also=(sliding_windows(4), sigmoid_choice),
        only={**NO_BIAS, "mup_enabled": True, "route_norm": (None, True),
              "score_func": (None, "sigmoid"), **ONE_GROUP},
        defaults={"rms_norm_eps": 1e-5, "norm_topk_prob": True, "first_k_dense_replace": 1})),
    "ApertusForCausalLM": family(
        "apertus", APERTUS_NAMES, only={
            **NO_BIAS, "hidden_act": "xielu", "qk_norm": (None, True), "post_norm": (None, False)},
        numbers={f"xielu.{word}": f"model.layers.{{}}.mlp.act_fn.{word}" for word in (
            "alpha_n", "alpha_p", "beta", "eps")},
        defaults={"hidden_act": "xielu", "rms_norm_eps": 1e-5}),
    "MuseGlimmerTextForCausalLM": family(
        "muse-glimmer", MUSE_NAMES, settle=muse_settings,
        change={**PAIRS, **ONE_MORE, "output_norm": reshaped}, layers=(muse_layers,),
        also=(sliding_windows(4, listed=True),), made=muse_norms,
        keys=("logit_scale", "final_logit_softcapping"),
        only={"attention_bias": (None, False), "hidden_activation": (None, "silu"),
              "post_norm_eps": (None, 1e-8)},
        defaults={"rms_norm_eps": 1e-5, "logit_scale": 0.19611613513818404,
                  "final_logit_softcapping": 20.0, "qk_scale_factor": 3.87, "head_dim": 128}),
    "Phi3ForCausalLM": family(
        "phi3", PHI3_NAMES, shapes={"ffn_up": ("2*hidden", "dim")}, only=NO_BIAS,
        keys=("attention.sliding_window",),
        defaults={"partial_rotary_factor": 1.0, "rms_norm_eps": 1e-5}),
    "Olmo2ForCausalLM": family(
        "olmo2", OLMO2_NAMES, shapes=WHOLE_NORMS, only=NO_BIAS, defaults={"rms_norm_eps": 1e-5}),
    "Olmo3ForCausalLM": family(
        "olmo2", OLMO2_NAMES, shapes=WHOLE_NORMS, only=NO_BIAS,
        also=(sliding_windows(4, listed=True),),
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0}),
    "OlmoeForCausalLM": family(
        "olmoe", names(FFN, **EXPERTS, **HEAD_NORMS), shapes=WHOLE_NORMS, keys=CHOICE,
        only={**NO_BIAS, "clip_qkv": None, "norm_topk_prob": (None, False)},
        defaults={"rms_norm_eps": 1e-5}),
    "SmolLM3ForCausalLM": family(
        "smollm3", HUGGINGFACE_NAMES, change=PAIRS, also=(no_rope_in_fourths,),
        only={**NO_BIAS, **NO_WINDOW, "no_rope_layer_interval": (None, 4)},
        defaults={"rope_theta": 2e6, "tie_word_embeddings": True}),
    "GraniteForCausalLM": family("granite", HUGGINGFACE_NAMES, **GRANITE),
    "GraniteMoeForCausalLM": family("granitemoe", granite_names, **GRANITE_MOE),
    "GraniteMoeSharedForCausalLM": family("granitemoe", granite_names, **GRANITE_MOE),
    "GptOssForCausalLM": family(
        "gpt-oss", GPT_OSS_NAMES, also=(sliding_windows(2),),
        keys=(*CHOICE, "expert_feed_forward_length"), rope={"exact": True},
        biases={None: QKV + ("attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps",
                             "ffn_down_exps")},
        stored={"ffn_gate_exps": TURNED_EXPERTS, "ffn_up_exps": TURNED_EXPERTS,
                "ffn_gate_exps.bias": TURNED_EXPERTS[::2], "ffn_up_exps.bias": TURNED_EXPERTS[::2],
                "ffn_down_exps": ("experts", "expert_hidden", "dim")},
        change={"ffn_gate_exps": then(upright, even_rows, 2), "ffn_down_exps": upright,
                "ffn_up_exps": then(upright, odd_rows, 2), "ffn_gate_exps.bias": columns_from(0),
                "ffn_up_exps.bias": columns_from(1)},
        rename=((r"sinks$", "sinks.weight"), (r"(experts\.\w+_proj)$", r"\1.weight"),
                (r"(experts\.\w+_proj)_bias$", r"\1.bias")),
        only={"swiglu_limit": (None, 7), "swiglu_alpha": (None, 1.702), "attention_bias": True},
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 150000.0, "attention_bias": True,
                  "moe_intermediate_size": lambda config: config.get("intermediate_size")}),
    "DeepseekV2ForCausalLM": family(
        **DEEPSEEK, defaults={"topk_method": "greedy", "scoring_func": "softmax"},
        only={**NO_BIAS, "topk_method": ("greedy", "group_limited_greedy"),
              "scoring_func": "softmax", "norm_topk_prob": (None, False),
              "moe_layer_freq": (None, 1)}),
    "DeepseekV3ForCausalLM": family(
        **DEEPSEEK, defaults={"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
        only={**NO_BIAS, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
              "rope_interleave": (None, True), "moe_layer_freq": (None, 1)}),
    "Glm4ForCausalLM": family("glm4", GLM4_NAMES, **GLM),
    "GlmForCausalLM": family("chatglm", names(FFN[:2], ffn_up="mlp.gate_up_proj"), **GLM),
    "GPT2LMHeadModel": family(
        "gpt2", GPT2_NAMES, rope=None, rename=((r"^transformer\.", ""),),
        ignore=r"\.attn\.(masked_)?bias$",
        biases={None: LAYER_NORMS + ("attn_qkv", "attn_output", "ffn_up", "ffn_down")},
        stored={"attn_qkv": ("dim", "qkv_dim"), "attn_output": ("q_dim", "dim"),
                "ffn_up": ("dim", "hidden"), "ffn_down": ("hidden", "dim")},
        change=dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), turned),
        only={"hidden_act": GELU, "scale_attn_weights": (None, True),
              "scale_attn_by_inverse_layer_idx": (None, False),
              "add_cross_attention": (None, False)},
        defaults={"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "tie_word_embeddings": True,
                  "intermediate_size": lambda config: 4 * (config.get("hidden_size") or 0)}),
    "CohereForCausalLM": family(
        "command-r", cohere_names, keys=("logit_scale",), only=NO_BIAS, shapes=EACH_HEAD_NORMS,
        defaults={"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": True}),
    "Cohere2ForCausalLM": family(
        "cohere2", names(("ffn_norm",)), also=(sliding_windows(4),), keys=("logit_scale",),
        only={**NO_BIAS, "use_qk_norm": (None, False)},
        defaults={"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": True}),
    "Exaone4ForCausalLM": family(
        "exaone4", OLMO2_NAMES, also=(sliding_windows(4, needed=False),),
        defaults={"rms_norm_eps": 1e-5, "sliding_window": 4096}),
    "StableLmForCausalLM": family(
        "stablelm", stablelm_names, biases={"use_qkv_bias": QKV, None: LAYER_NORMS},
        shapes=EACH_HEAD_NORMS, keys=("use_parallel_residual",),
        defaults={"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25}),
    "Lfm2ForCausalLM": family("lfm2", LFM2_NAMES, settle=lfm2_settings, **dict(
        LFM2, defaults={**LFM2["defaults"], "block_auto_adjust_ff_dim": True})),
    "Lfm2MoeForCausalLM": family("lfm2moe", LFM2MOE_NAMES, **dict(
        LFM2, layers=(convolutions, leading_dense), also=(*LFM2["also"], sigmoid_choice),
        only={**LFM2["only"], "use_expert_bias": (None, True), "norm_topk_prob": (None, True),
              "routed_scaling_factor": (None, 1)},
        rename=((r"expert_bias$", "expert_bias.bias"),),
        keys=(*LFM2["keys"], *CHOICE, "expert_feed_forward_length", "leading_dense_block_count"))),
    "Starcoder2ForCausalLM": family(
        "starcoder2", names(FFN, ffn_up="mlp.c_fc", ffn_down="mlp.c_proj"),
        biases={None: QKV + LAYER_NORMS + ("attn_output", "ffn_up", "ffn_down")},
        keys=("attention.sliding_window",),
        only={"hidden_act": GELU, "use_bias": (None, True)},
        defaults={"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-5,
                  "tie_word_embeddings": True}),
}
# Models that see have one of these inside; its settings are in text_config.
for inside, whole in (("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
                      ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
                      ("Gemma4ForCausalLM", "Gemma4UnifiedForConditionalGeneration"),
                      ("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
                      ("MuseGlimmerTextForCausalLM", "MuseGlimmerForConditionalGeneration"),
                      ("Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration"),
                      ("Qwen3MoeForCausalLM", "Qwen3VLMoeForConditionalGeneration"),
                      ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
                      ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration")):
    ARCHS[whole] = dict(
        ARCHS[inside], ignore=either(EYES, ARCHS[inside]["ignore"]),
        rename=((r"^model\.language_model\.", "model."), (r"^language_model\.", ""),
                *ARCHS[inside]["rename"]))
for whole, arch in (("Qwen3VLForConditionalGeneration", "qwen3vl"),
                    ("Qwen3VLMoeForConditionalGeneration", "qwen3vlmoe")):
    ARCHS[whole].update(arch=arch, also=(*ARCHS[whole]["also"], rope_sections), only={
        **ARCHS[whole]["only"], "norm_topk_prob": (None, True)})
del ARCHS["MuseGlimmerTextForCausalLM"]
META = family("llama", META_NAMES)
LLAMA2C = dict(META, names={name: name for name in META_NAMES})


def number(source, table, key, default=None, kind=int, least=1):
    """table[key], or the default where it is absent or null, checked."""
    value = table.get(key)
    value = default if value is None else value
    require(value is not None, f"{source} lacks {key}")
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    require(isinstance(value, (int, kind)) and not isinstance(value, bool)
            and least <= value < (2**31 if kind is int else math.inf),
            f"{source}: {key} is {json.dumps(value)[:40]}, expected a number from {least} up")
    return kind(value)


def read_sizes(source, config):
    """The words of SHAPES and a few more, from a config in Hugging Face's words."""
    sizes = {"hidden": number(source, config, "intermediate_size",
                              least=0 if {"num_experts", "ssm_heads"} & config.keys() else 1)}
    sizes.update((word, number(source, config, key)) for word, key in (
        ("dim", "hidden_size"), ("layers", "num_hidden_layers"),
        ("heads", "num_attention_heads"), ("vocab", "vocab_size"),
        ("context", "max_position_embeddings")))
    heads, head_dim = sizes["heads"], config.get("head_dim")
    kv_heads = number(source, config, "num_key_value_heads", heads)
    require((head_dim or sizes["dim"] % heads == 0) and heads % kv_heads == 0,
            f"{source}: {heads} heads do not go with a width of {sizes['dim']} and {kv_heads} "
            "key/value heads")
    head_dim = number(source, config, "head_dim", sizes["dim"] // heads)
    q_dim, kv_dim = heads * head_dim, kv_heads * head_dim
    sizes.update(kv_heads=kv_heads, head_dim=head_dim, q_dim=q_dim, kv_dim=kv_dim,
                 qkv_dim=q_dim + 2 * kv_dim, expert_hidden=sizes["hidden"])
    sizes.update((word, number(source, config, key)) for word, key in MORE_SIZES.items()
                 if config.get(key))
    if "ssm_heads" in sizes:
        inner, keys = sizes["ssm_heads"] * sizes["ssm_head_dim"], sizes["groups"] * sizes["state"]
        require(sizes["ssm_heads"] % sizes["groups"] == 0, f"{source}: {sizes['ssm_heads']} heads "
                f"of a state do not go with {sizes['groups']} of keys")
        sizes.update(inner=inner, ssm_conv=inner + 2 * keys, group_inner=inner // sizes["groups"],
                     ssm_in=2 * inner + 2 * keys + sizes["ssm_heads"])
    if "kv_rank" in sizes:
        plain, rope, value = (number(source, config, MORE_SIZES[word])
                              for word in ("plain", "rope", "value"))
        sizes.update(head_dim=rope, qk_dim=plain + rope, plain_value=plain + value,
                     latent=sizes["kv_rank"] + rope)
    return sizes


def measure(source, words, sizes):
    """The shape that words of SHAPES mean, among which are products such as 2*hidden."""
    parts = [word.split("*") for word in words]
    lost = [part for word in parts for part in word if not part.isdigit() and part not in sizes]
    require(not lost, f"{source} lacks {MORE_SIZES.get(min(lost, default=''))}")
    return tuple(math.prod(int(part) if part.isdigit() else sizes[part] for part in word)
                 for word in parts)


# Rope scaling, by its name in config.json: functions that return its metadata and its tensors.


def linear_scaling(source, rope, sizes):
    return {"type": "linear", "factor": number(source, rope, "factor", kind=float)}, {}


def yarn_scaling(source, rope, sizes):
    """https://arxiv.org/abs/2309.00071. What reads GGUF multiplies cosines and sines by
    1 + 0.1 ln(factor) of its own accord; attn_factor is what Hugging Face has beyond that. In some
    families scores are multiplied by the square of 1 + log_multiplier ln(factor) instead."""
    require((rope.get("truncate") is False) == rope.get("exact", False),
            f"{source}: yarn with truncate {rope.get('truncate')} is not known of this family")
    keys = {"type": "yarn", "factor": number(source, rope, "factor", kind=float),
            "original_context_length": number(source, rope, "original_max_position_embeddings")}
    growth = 0.1 * math.log(keys["factor"])
    attention = growth + 1
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        attention = (rope["mscale"] * growth + 1) / (rope["mscale_all_dim"] * growth + 1)
    attention = number(source, rope, "attention_factor", attention, float, 0)
    if rope.get("log_multiplier") and rope.get("mscale_all_dim"):
        require(attention == 1, f"{source}: yarn with other mscale and mscale_all_dim is not known")
        keys["yarn_log_multiplier"] = rope["log_multiplier"] * number(
            source, rope, "mscale_all_dim", kind=float, least=0)
    elif not math.isclose(attention, growth + 1):
        keys["attn_factor"] = attention / (growth + 1)
    for key in ("beta_fast", "beta_slow"):
        if rope.get(key):
            keys[f"yarn_{key}"] = number(source, rope, key, kind=float, least=0)
    return keys, {}


def llama3_scaling(source, rope, sizes):
    """Llama 3.1 divides low frequencies by factor, leaves high ones alone and goes smoothly from
    one to the other. rope_freqs.weight (rotated / 2,) has the divisors."""
    factor, low, high, context = (
        number(source, rope, key, kind=float) for key in
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    require(high > low, f"{source}: high_freq_factor {high} is not above low_freq_factor {low}")
    steps = np.arange(0, sizes["rotated"], 2) / sizes["rotated"]
    wavelength = 2 * math.pi * rope["rope_theta"] ** steps
    smooth = ((context / wavelength - low) / (high - low)).clip(0, 1)
    return {}, {"rope_freqs.weight": vector(1 / ((1 - smooth) / factor + smooth))}


def longrope_scaling(source, rope, sizes):
    """https://arxiv.org/abs/2402.13753: two lists of divisors, for texts that are as long as those
    of the first training and for longer ones."""
    original = number(source, rope, "original_max_position_embeddings", least=2)
    factor = number(source, rope, "factor", sizes["context"] / original, float, 0)
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    attention = number(source, rope, "attention_factor", attention, float, 0)
    tensors = {}
    for name in ("long", "short"):
        divisors = rope.get(f"{name}_factor")
        require(isinstance(divisors, list) and len(divisors) == sizes["rotated"] // 2,
                f"{source}: {name}_factor is no list of {sizes['rotated'] // 2} numbers")
        tensors[f"rope_factors_{name}.weight"] = vector(divisors)
    return {"type": "longrope", "original_context_length": original, "attn_factor": attention
            }, tensors


def proportional_scaling(source, rope, sizes):
    """Only the first pairs of numbers that are half a head apart turn, as if all did."""
    require(rope.get("proportional") and rope.get("factor") in (None, 1),
            f"{source}: rope of type proportional is not known of this family, or with a factor")
    pairs = sizes["rotated"] // 2
    turning = int(sizes["rotated"] * number(
        source, rope, "partial_rotary_factor", 1.0, float, 0) // 2)
    return {}, {"rope_freqs.weight": vector([1.0] * turning + [1e30] * (pairs - turning))}


SCALINGS = {
    "default": lambda *_: ({}, {}), "linear": linear_scaling, "yarn": yarn_scaling,
    "llama3": llama3_scaling, "longrope": longrope_scaling, "su": longrope_scaling,
    "proportional": proportional_scaling}


def read_rope(source, row, config, sizes):
    """Returns metadata and tensors. Newer files have all settings in rope_parameters, older ones
    rope_theta apart from rope_scaling; layers with a window may have their own in either. Adds to
    sizes how much of each head is rotated."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    local = rope.get("sliding_attention") or {}
    rope = dict(rope.get("full_attention") or rope)
    theta = rope["rope_theta"] = number(source, dict(config, **rope), "rope_theta", 10000.0, float)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    part = 1.0 if kind == "proportional" else number(
        source, dict(config, **rope), "partial_rotary_factor", 1.0, float, 0)
    rotated = sizes["rotated"] = int(sizes["head_dim"] * part)
    require(rotated % 2 == 0, f"{source}: rope of {rotated} numbers of each head, expected an even "
            "size")
    near = local.get("rope_type") or local.get("type") or "default"
    require(near == "default", f"{source}: rope of type {near} in layers with a window "
            "(sliding_attention) is not known, expected default")
    require(kind in SCALINGS and (part == 1 or "partial_rotary_factor" in row["defaults"]),
            f"{source}: rope of type {kind} for {rotated} of {sizes['head_dim']} is not known, "
            f"expected {', '.join(SCALINGS)}")
    rope["original_max_position_embeddings"] = (
        config.get("original_max_position_embeddings") or
        rope.get("original_max_position_embeddings") or sizes["context"])
    scaling, tensors = SCALINGS[kind](source, dict(rope, **row["rope"]), sizes)
    keys = {"rope.dimension_count": rotated, "rope.freq_base": theta}
    keys.update((f"rope.scaling.{key}", value) for key, value in scaling.items())
    if "partial_rotary_factor" in row["defaults"] and local and kind != "proportional":
        part = number(source, local, "partial_rotary_factor", 1.0, float, 0)
        near = int(sizes["head_dim"] * part)
        require(near % 2 == 0, f"{source}: rope of {near} numbers of each head in layers with a "
                "window, expected an even size")
        keys.update({"rope.dimension_count_swa": near} if near != rotated else {})
    local = number(source, dict({"rope_theta": config.get("rope_local_base_freq")}, **local),
                   "rope_theta", theta, float)
    return dict(keys, **{"rope.freq_base_swa": local} if local != theta else {}), tensors


def take_weight(source, original, shape, found, used):
    """The weight of this name in the source, or the stack of those that number its matrices."""
    stacked = "{}" in original
    names = [original.replace("{}", str(i)) for i in range(shape[0])] if stacked else [original]
    lost = [name for name in names if name not in found]
    require(not lost, f"{source} lacks the tensor {min(lost, default='')}")
    used.update(names)
    parts = [join_shards(f"{source}: {name}", found[name], shape[1:] if stacked else shape)
             for name in names]
    return in_turn(parts, shape) if stacked else parts[0]


def same_values(shards, others):
    """Whether two weights are equal, be they one or in shards."""
    if shards is others:
        return True
    if [tensor.shape for tensor in shards] != [tensor.shape for tensor in others]:
        return False
    step = max(1, SLICE // shards[0].columns)
    return all(np.array_equal(a.read(part), b.read(part)) for a, b in zip(shards, others)
               for part in (slice(row, min(row + step, a.rows)) for row in range(0, a.rows, step)))


def take_numbers(source, name, layers, found):
    """The numbers of this name in all layers; they are no longer among those found."""
    values = []
    for layer in range(layers):
        tensor, = found.pop(name.format(layer), (None,))
        require(tensor is not None and math.prod(tensor.shape) == 1,
                f"{source}: {name.format(layer)} is not there, or more than one number")
        values.append(tensor.read(slice(0, 1)).item())
    return np.array(values, np.float32)


def take_tensors(source, row, config, sizes, found):
    """{GGUF name: Tensor} of a whole model in the order of the file: the embedding, layer by layer,
    the rest. found is {name in the source: its shards}."""
    stems = row["names"](config) if callable(row["names"]) else dict(row["names"])
    embedding, output = (f"{stems[stem]}.weight" for stem in ("token_embd", "output"))
    tensors, used = {}, set()
    if config.get("tie_word_embeddings"):
        found.setdefault(embedding, found.get(output, []))
        if output in found and not found[embedding]:
            del found[embedding]
        if output not in found or same_values(found[output], found[embedding]):
            used.add(f"{stems.pop('output')}.weight")
        elif not config.get("text_config"):
            notes.append(f"{source} says that {output} is {embedding}, but the two differ: both "
                         "are written")
    biased = [stem for key, names in row["biases"].items()
              if key is None or config.get(key) for stem in names]
    plain = [(stem, 0) for stem in stems if "{}" not in stem]
    blocks = ((stem, layer) for layer in range(sizes["layers"]) for stem in stems if "{}" in stem)
    for stem, layer in itertools.chain(plain[:1], blocks, plain[1:]):
        word = stem.replace("blk.{}.", "")
        here = dict(sizes, **sizes["own"][layer]) if "{}" in stem else sizes
        for kind in ("weight", "bias") if word in biased else ("weight",):
            shape, own = row["shapes"].get(word, SHAPES[word]), word
            if kind == "bias":
                shape, own = shape[:-1] or shape, f"{word}.bias"
            ending = row["endings"].get(word, ".weight") if own == word else ".bias"
            name = stem.format(layer) + ending
            original = stems[stem].replace("{}", str(layer), 1) + (ending or ".weight")
            shape, stored = (measure(source, words, here)
                             for words in (shape, row["stored"].get(own, shape)))
            if 0 in shape:
                continue
            tensors[name] = take_weight(source, original, stored, found, used)
            if own in row["change"]:
                tensors[name] = row["change"][own](tensors[name], shape, here)
    unknown = found.keys() - used
    require(not unknown, f"{source} has {len(unknown)} tensors that this architecture does not "
            f"know, such as {min(unknown, default='')}")
    return tensors


def assemble(source, name, row, config, found):
    """Returns the metadata, without a vocabulary, and the tensors. source is for messages, config
    in Hugging Face's words, found {name in the source: its shards}."""
    sizes = read_sizes(source, config)
    rope, extra = ({}, {}) if row["rope"] is None else read_rope(source, row, config, sizes)
    eps, kind = ("layer_norm_eps", "layer_norm") if "layer_norm_eps" in row["defaults"] or (
        not row["defaults"].get("rms_norm_eps") and config.get("layer_norm_eps")) else (
        "rms_norm_eps", "layer_norm_rms")
    sizes["own"] = [{} for _ in range(sizes["layers"])]
    for layers in row["layers"]:
        for own, more in zip(sizes["own"], layers(source, config, sizes)):
            own.update(more)
    lists = {key: take_numbers(source, name, sizes["layers"], found)
             for key, name in row["numbers"].items()}
    extra = {**extra, **row["made"](source, config, sizes)}
    tensors = dict(extra, **take_tensors(source, row, config, sizes, found))
    name = name.encode("utf-8", "replace").decode()  # names of folders may have any bytes
    arch = row["arch"](config) if callable(row["arch"]) else row["arch"]
    metadata = {"general.architecture": arch, "general.name": name,
                "general.alignment": ALIGNMENT, "general.quantization_version": 2}
    values = {
        "context_length": sizes["context"], "embedding_length": sizes["dim"],
        "block_count": sizes["layers"], "feed_forward_length": sizes["hidden"],
        "attention.head_count": sizes["heads"], "attention.head_count_kv": sizes["kv_heads"],
        f"attention.{kind}_epsilon": number(source, config, eps, 1e-6, float, 0),
        **rope, "vocab_size": sizes["vocab"]}
    if config.get("head_dim"):
        values.update({f"attention.{word}_length": sizes["head_dim"] for word in ("key", "value")})
    if not sizes["hidden"]:  # experts are all there is
        del values["feed_forward_length"]
    routed = any("_exps." in name for name in tensors)
    for key, (setting, kind) in ((key, KEYS[key]) for key in row["keys"]):
        if key in EXPERT_KEYS and not routed:
            continue
        if kind is bool:
            values[key] = bool(config.get(setting))
        elif config.get(setting) is not None or key in CHOICE:
            values[key] = number(source, config, setting, kind=kind, least=0)
    for keys in row["also"]:
        values.update(keys(source, config, sizes))
    metadata.update(lists)
    metadata.update((f"{arch}.{key}", value) for key, value in values.items() if value is not None)
    return metadata, tensors


# ---- llama2.c checkpoints ------------------------------------------------------------------------

LLAMA2C_MAGIC = 0x616B3432
LLAMA2C_CONFIG = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                  "num_key_value_heads", "vocab_size", "max_position_embeddings")
# The order in the file, where a kind of weight comes for all layers at once. "rope" is two tables,
# of cosines and sines, that nobody needs.
LLAMA2C_ORDER = {
    0: "token_embd attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_down ffn_up "
       "output_norm rope output",
    1: "attn_norm ffn_norm output_norm token_embd attn_q attn_k attn_v attn_output ffn_gate "
       "ffn_down ffn_up output",
}
LLAMA2C_ORDER[2] = LLAMA2C_ORDER[1]


def read_llama2c_header(path):
    """Returns version, config in Hugging Face's words, group size of int8, length of the header."""
    with open(path, "rb") as file:
        head = file.read(256).ljust(256, b"\0")
    refuse_stranger(path, head)
    require(head[:2] != b"PK", f"{path} is PyTorch's: give the model's directory, with safetensors")
    magic, version = struct.unpack_from("<Ii", head)
    start, length = 8, 256
    if magic != LLAMA2C_MAGIC:
        version, start, length = 0, 0, 28
    require(version in LLAMA2C_ORDER and (version > 0) == (start > 0),
            f"{path} is llama2.c version {version}, expected 0 (which has no magic), 1 or 2")
    config = dict(zip(LLAMA2C_CONFIG, struct.unpack_from("<7i", head, start)), rms_norm_eps=1e-5)
    tied, group = struct.unpack_from("<Bi", head, 36)
    if version == 0:  # the sign of the vocabulary is the flag
        tied, config["vocab_size"] = config["vocab_size"] > 0, abs(config["vocab_size"])
    require(tied in (0, 1), f"{path}: the flag of a tied classifier is {tied}, expected 0 or 1")
    return version, dict(config, tie_word_embeddings=bool(tied)), group, length


def locate_llama2c(path, version, config, group, offset):
    """{GGUF name: [Tensor]}; the file must end where the last of them does."""
    source, size, found = f"{path}, as llama2.c version {version}", os.path.getsize(path), {}
    sizes = read_sizes(source, config)
    require(version < 2 or group > 0 and sizes["dim"] % group == 0,
            f"{source}: groups of {group} do not divide a width of {sizes['dim']}")
    for kind in LLAMA2C_ORDER[version].split():
        if kind == "rope":
            offset += sizes["context"] * sizes["head_dim"] * 4
        elif kind != "output" or not config["tie_word_embeddings"]:
            shape = tuple(sizes[word] for word in SHAPES[kind])
            count, grouped = math.prod(shape), version == 2 and len(shape) == 2
            length = count + count // group * 4 if grouped else count * 4
            stem = next(stem for stem in META_NAMES if stem.split(".")[-1] == kind)
            layers = sizes["layers"] if "{}" in stem else 1
            end = offset + layers * length
            require(end <= size, f"{source}: {size} bytes, but {kind} goes on to {end}")
            for layer in range(layers):
                found[f"{stem}.weight".format(layer)] = [
                    tensor_in_groups(path, offset, group, shape) if grouped else
                    tensor_in_file(path, offset, "F32", shape)]
                offset += length
    require(offset == size, f"{source}: {size} bytes, but the tensors end at {offset}")
    return found


def read_llama2c(path, tokenizer):
    version, config, group, length = read_llama2c_header(path)
    found = locate_llama2c(path, version, config, group, length)
    # Not named after the file, so that all versions of a checkpoint give the same bytes.
    name = "llama2.c {}x{}".format(config["num_hidden_layers"], config["hidden_size"])
    metadata, tensors = assemble(path, name, LLAMA2C, config, found)
    tokenizer = tokenizer or os.path.join(os.path.dirname(path), "tokenizer.bin")
    require(os.path.exists(tokenizer), f"there is no {tokenizer}: give one with --tokenizer FILE")
    vocabulary = read_vocabulary(tokenizer)
    require(len(vocabulary.tokens) == config["vocab_size"], f"{tokenizer} has "
            f"{len(vocabulary.tokens)} tokens, {path} has {config['vocab_size']}")
    return dict(metadata, **vocabulary.keys(config["vocab_size"])), tensors


# ---- Meta's checkpoints --------------------------------------------------------------------------


class TensorUnpickler(pickle.Unpickler):
    """A pickle may call anything it names; this one may name what tensors are made of, no more."""

    def __init__(self, path, archive):
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        require(all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist()),
                f"{path} is compressed")
        require(len(pickles) == 1, f"{path} has {len(pickles)} files data.pkl, expected 1")
        data = archive.read(pickles[0])
        for code, value, _ in pickletools.genops(data):  # a memo has room up to its largest number
            require("PUT" not in code.name or value < len(data),
                    f"{path}: a pickle of {len(data)} bytes has a memo of {value}")
        super().__init__(io.BytesIO(data))
        self.path, self.archive, self.folder = path, archive, os.path.dirname(pickles[0])
        self.allowed = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": self.rebuild_tensor,
            "torch.FloatStorage": "F32",
            "torch.HalfStorage": "F16",
            "torch.BFloat16Storage": "BF16",
        }

    def find_class(self, module, name):
        known = self.allowed.get(f"{module}.{name}")
        require(known, f"{self.path} asks for {module}.{name}, expected tensors of f32, f16, bf16")
        return known

    def persistent_load(self, reference):
        """Returns (type, offset in the file, bytes) of a storage: a file in the archive."""
        entry = self.archive.getinfo(f"{self.folder}/data/{reference[2]}")
        with open(self.path, "rb") as file:  # the length of this header is only in itself
            file.seek(entry.header_offset + 26)
            lengths = struct.unpack("<HH", file.read(4))
        return reference[1], entry.header_offset + 30 + sum(lengths), entry.file_size

    def rebuild_tensor(self, storage, offset, shape, stride, *_):
        stored, start, size = storage
        width = np.dtype(STORED[stored]).itemsize
        require(stride == tuple(math.prod(shape[i + 1:]) for i in range(len(shape))) and
                0 <= offset and (offset + math.prod(shape)) * width <= size and
                start + size <= os.path.getsize(self.path), f"{self.path}: a tensor of shape "
                f"{show(shape)} and stride {show(stride)} does not lie in order in {size} bytes")
        return tensor_in_file(self.path, start + offset * width, stored, shape)


def read_pth(path):
    """{name: Tensor} of a file from torch.save: a zip archive with a pickle and raw numbers."""
    with open(path, "rb") as file:
        refuse_stranger(path, file.read(64))
    require(zipfile.is_zipfile(path), f"{path} is no zip archive: damaged, or of an old torch.save")
    def load():
        with zipfile.ZipFile(path) as archive:
            return TensorUnpickler(path, archive).load()
    found = named_errors(path, load)
    require(isinstance(found, dict) and all(isinstance(t, Tensor) for t in found.values()),
            f"{path} does not hold a dict of tensors")
    return {name: tensor for name, tensor in found.items() if name != "rope.freqs"}


def read_meta(path, tokenizer):
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    files = [path] if folder != path else sorted(
        os.path.join(path, name) for name in os.listdir(path)
        if re.fullmatch(r"consolidated\..*pth", name))
    shards = [read_pth(file) for file in files]
    require(shards and all(shard.keys() == shards[0].keys() for shard in shards),
            f"{folder}: expected files consolidated.NN.pth, all with the same tensors")
    found = {name: [shard[name] for shard in shards] for name in shards[0]}
    source = os.path.join(folder, "params.json")
    params = read_json(source, form=PARAMS)
    config = {key: params.get(word) for key, word in (
        ("hidden_size", "dim"), ("num_hidden_layers", "n_layers"), ("rope_theta", "rope_theta"),
        ("num_attention_heads", "n_heads"), ("num_key_value_heads", "n_kv_heads"))}
    config["rms_norm_eps"] = number(source, params, "norm_eps", 1e-5, float, 0)
    for key, name in (("vocab_size", "output.weight"),
                      ("intermediate_size", "layers.0.feed_forward.w1.weight")):
        require(name in found, f"{folder} lacks the tensor {name}")
        config[key] = sum(tensor.rows for tensor in found[name])
    # For how many positions a model was trained is not in its files. These are Code Llama, Llama 3,
    # 2 and 1, which has another epsilon, and 3.1.
    config["max_position_embeddings"] = {1000000: 16384, 500000: 8192}.get(
        config["rope_theta"], 4096 if config["rms_norm_eps"] > 5e-6 else 2048)
    if params.get("use_scaled_rope"):
        config["max_position_embeddings"] = 131072
        config["rope_scaling"] = {
            "type": "llama3", "factor": params.get("rope_scaling_factor") or 8,
            "low_freq_factor": 1, "high_freq_factor": params.get("rope_high_freq_factor") or 4,
            "original_max_position_embeddings": 8192}
    name = os.path.basename(os.path.abspath(folder))
    metadata, tensors = assemble(source, name, META, config, found)
    candidates = [tokenizer] if tokenizer else [
        os.path.join(folder, place, "tokenizer.model") for place in ("", "..")]
    return dict(metadata, **vocabulary_keys(candidates, config["vocab_size"], {})), tensors


# ---- Hugging Face --------------------------------------------------------------------------------


def read_safetensors(path):
    """{name: Tensor}. The file: u64 length, JSON with type, shape and place of tensors, data."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        refuse_stranger(path, file.read(64))
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        require(2 <= length <= min(size - 8, 100 << 20),  # the format's own limit
                f"{path} has {size} bytes and a header of {length}")
        table = read_json(path, file.read(length))
    tensors, last, room = {}, 0, size - 8 - length
    table.pop("__metadata__", None)
    conform(path, table, {"*": {"dtype!": str, "shape!": [int], "data_offsets!": [int]}})
    odd = [name for name, entry in table.items() if len(entry["data_offsets"]) != 2]
    require(not odd, f"{path}: {odd[:1]} has data_offsets that are not two numbers")
    for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        stored, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        require(stored in ("F32", "F16", "BF16")
                or stored in ("U8", "BOOL") and name.endswith(("_blocks", "_scales", ".attn.bias")),
                f"{path}: {name} is of type {stored}, expected F32, F16 or BF16")
        require(all(n >= 0 for n in shape + [begin, end]),
                f"{path}: {name} has a shape or place that is not made of counts")
        require(last <= begin <= end <= room, f"{path}: {name} has the bytes {begin} to {end}, the "
                f"tensor before it ends at {last} and the file at {room}")
        require(end - begin == math.prod(shape) * np.dtype(STORED[stored]).itemsize,
                f"{path}: {name} has {end - begin} bytes, which is not {show(shape)} in {stored}")
        tensors[name], last = tensor_in_file(path, size - room + begin, stored, shape), end
    return tensors


MXFP4 = Format(39, 38, 32, 17, 255, lambda blocks: blocks)


def join_mxfp4(blocks, scales):
    """One tensor of blocks of 32: the exponent, then 16 bytes with values 0..15 low and 16..31
    high. OpenAI's files have exponents apart, and neighbours in a byte."""
    def read(index):
        wanted = np.arange(count)[index]
        rows = (wanted[:, None] * per_row + np.arange(per_row)).reshape(-1)
        neighbours = blocks.read(rows).reshape(len(wanted), per_row, 16)
        values = np.stack([neighbours & 15, neighbours >> 4], axis=-1)
        values = values.reshape(len(wanted), per_row, 32)
        packed = values[..., :16] | values[..., 16:] << 4
        exponents = scales.read(wanted)[..., None]
        return np.concatenate([exponents, packed], axis=-1).reshape(len(wanted), -1)
    experts, rows, per_row, _ = blocks.shape
    count = experts * rows
    return Tensor((experts, per_row * 32, rows), read, MXFP4)  # the shape of such experts unpacked


def join_all_mxfp4(source, found):
    """found, with tensors in place of blocks and their scales."""
    for name in [name for name in found if name.endswith("_blocks")]:
        stem, (blocks,) = name.removesuffix("_blocks"), found.pop(name)
        require(f"{stem}_scales" in found, f"{source} lacks the tensor {stem}_scales")
        scales, = found.pop(f"{stem}_scales")
        require(blocks.shape == (*scales.shape, 16),
                f"{stem}: blocks of {show(blocks.shape)} for {show(scales.shape)} scales")
        found[stem] = [join_mxfp4(blocks, scales)]
    return found


# What folders have instead of model.safetensors, by a pattern of the name. To add one: a row here.
OTHER_WEIGHTS = (
    (r"model-\d+-of-\d+\.safetensors", "and no model.safetensors.index.json: fetch that, too"),
    (r"adapter_model\.", "which changes another model: merge the two first"),
    (r"consolidated.*\.safetensors", "with Mistral's own names: fetch the files of transformers"),
    (r".*\.(bin|pt|pth|ckpt|h5|msgpack|onnx|gguf)", "expected safetensors: load the model in "
     "transformers and save it with save_pretrained"),
)


def refuse_other_weights(folder):
    for pattern, advice in OTHER_WEIGHTS:
        for name in sorted(os.listdir(folder)):
            if re.match(pattern, name):
                raise ExportError(f"{folder} has {name} and no model.safetensors, {advice}")


def read_shards(folder):
    """{name: [Tensor]} of the one file or the several that a model has."""
    index, single = (os.path.join(folder, name) for name in (
        "model.safetensors.index.json", "model.safetensors"))
    places = read_json(index, missing={"weight_map": {}}, form={"weight_map!": {"*": str}})
    places, found = places["weight_map"], {}
    if not places and not os.path.exists(single):
        refuse_other_weights(folder)
    for file in sorted(set(places.values())) or ["model.safetensors"]:
        path = os.path.join(folder, file)
        require(os.path.basename(file) == file, f"{index} leads out of the directory, to {file}")
        require(not places or os.path.exists(path), f"{index} names {file}, which is not there: "
                "fetch it, or remove the index" + " if model.safetensors is the whole model"
                * os.path.exists(single))
        found.update(read_safetensors(path))
    lost = sorted(places.keys() - found.keys())
    require(not lost, f"{folder} lacks the tensor {lost[:1]} that {index} promises")
    return {name: [tensor] for name, tensor in found.items()}


def matrix_at(tensor, first, shape):
    """The rows of a stack from first on as a matrix."""
    rows = np.arange(first, first + shape[0])
    return Tensor(shape, lambda index: tensor.read(rows[index]))


def part_experts(row, config, found):
    """found, where experts that lie in one tensor have one each. In some files the rows of all are
    columns, which the shape tells, or where both fit, the family."""
    dim, hidden = config.get("hidden_size"), config.get("moe_intermediate_size")
    for name in [name for name in found if name.endswith(".experts.gate_up_proj")]:
        stem, (both,) = name.removesuffix("gate_up_proj"), found.pop(name)
        down, = found.pop(f"{stem}down_proj", (None,))
        require(down is not None and len(both.shape) == len(down.shape) == 3,
                f"{name} is {show(both.shape)} without such a down_proj")
        experts = both.shape[0]
        if both.shape[1] == dim and (both.shape[2] != dim or row["arch"] == "qwen3vlmoe"):
            both, down = (turned(tensor, (experts, *tensor.shape[:0:-1]), {})
                          for tensor in (both, down))
        require(both.shape[1:] == (2 * hidden, dim) and down.shape == (experts, dim, hidden),
                f"{name} is {show(both.shape)} and its down_proj {show(down.shape)}, expected "
                f"{2 * hidden} rows of {dim} and {dim} of {hidden}")
        for i in range(experts):
            for word, tensor, first, shape in (
                    ("gate", both, 2 * i * hidden, (hidden, dim)),
                    ("up", both, (2 * i + 1) * hidden, (hidden, dim)),
                    ("down", down, i * dim, (dim, hidden))):
                found[f"{stem}{i}.{word}_proj.weight"] = [matrix_at(tensor, first, shape)]
    return found


def sampling_keys(source, generation):
    """What the model's makers recommend, but for what can't be used."""
    names = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
             "repetition_penalty": "penalty_repeat"}
    keys = {}
    for word, key in names.items() if generation.get("do_sample") is not False else ():
        value, key = generation.get(word), f"general.sampling.{key}"
        kind, (least, most) = int if word == "top_k" else float, BOUNDS[key]
        if type(value) in (int, float) and least <= value <= most and kind(value) == value:
            keys[key] = max(kind(value), kind(0))  # -1 is none, as 0 is
        elif value is not None:
            notes.append(f"{source}: {word} is {json.dumps(value)[:40]}, expected {KINDS[kind]} "
                         f"from {least} to {most}: it is left out")
    return keys


def complete(source, row, config):
    """The config with what the code here calls its settings and what it leaves out."""
    config = {**config, **(config.get("text_config") or {})}
    config = {ALIASES.get(key, key): value for key, value in config.items()}
    conform(source, config, CONFIG)
    for key, value in row["defaults"].items():
        if not callable(value):
            config.setdefault(key, value)
        elif config.get(key) is None:
            config[key] = value(config)
    return dict(config, **row["settle"](source, config))


def take_names(row, config, found):
    """found with the names and without the tensors that the row's columns say."""
    ignored = row["ignore"](config) if callable(row["ignore"]) else row["ignore"]
    ignored = ignored.replace("@", str(config.get("num_hidden_layers")))
    named = {}
    for name, shards in found.items():
        if not re.search(ignored + r"|rotary_emb\.inv_freq$", name):  # theta says the same
            for pattern, replacement in row["rename"]:
                name = re.sub(pattern, replacement, name)
            named[name] = shards
    return named


def read_huggingface(folder, tokenizer):
    source = os.path.join(folder, "config.json")
    config = conform(source, read_json(source), {
        key: CONFIG[key] for key in ("architectures", "text_config")})
    names = config.get("architectures") or ["none"]
    require(names[0] in ARCHS, f"{source}: architecture {names[0]}, expected {', '.join(ARCHS)}")
    row = ARCHS[names[0]]
    config = complete(source, row, config)
    if (config.get("quantization_config") or {}).get("quant_method") == "mxfp4":
        del config["quantization_config"]  # which join_mxfp4 sees to
    for key, value in dict(row["only"], quantization_config=None).items():
        values = value if isinstance(value, tuple) else (value,)
        require(config.get(key) in values, f"{source}: {key} is {config.get(key)}, expected "
                f"{' or '.join(map(str, values))}")
    found = take_names(row, config, join_all_mxfp4(source, read_shards(folder)))
    found = part_experts(row, config, found)
    if config.get("text_config"):  # which of the two configs says so has changed
        config["tie_word_embeddings"] = True
    name = os.path.basename(os.path.abspath(folder))
    metadata, tensors = assemble(source, name, row, config, found)
    path = os.path.join(folder, "generation_config.json")
    generation = read_json(path, missing={}, form=dict.fromkeys(SPECIAL_IDS, IDS))
    metadata.update(sampling_keys(path, generation))
    config.update((key, value) for key, value in generation.items() if value is not None)
    candidates = [tokenizer] if tokenizer else [
        os.path.join(folder, name) for name in ("tokenizer.json", "tokenizer.model")]
    characters = "gemma4" if row["arch"] == "gemma4" else "llama"
    vocabulary = vocabulary_keys(candidates, config["vocab_size"], config, characters)
    return dict(metadata, **vocabulary), tensors


# ---- the command line ----------------------------------------------------------------------------


def read_model(path, tokenizer):
    """Finds out what path is. Returns (metadata, tensors)."""
    require(not tokenizer or os.path.exists(tokenizer), f"there is no {tokenizer}")
    if os.path.isdir(path):
        for name, reader in (("config.json", read_huggingface), ("params.json", read_meta)):
            if os.path.exists(os.path.join(path, name)):
                return reader(path, tokenizer)
        raise ExportError(f"{path} has neither config.json (Hugging Face) nor params.json (Meta)")
    require(not path.endswith((".safetensors", ".gguf")), f"{path}: expected a directory with "
            "config.json, or a checkpoint of llama2.c or Meta")
    return (read_meta if path.endswith(".pth") else read_llama2c)(path, tokenizer)


def parse_options():
    parser = argparse.ArgumentParser(description="Make the GGUF file that run reads.")
    parser.add_argument("input", metavar="INPUT", help="a llama2.c checkpoint (.bin), a directory "
                        "from Hugging Face, or Meta's directory or .pth")
    parser.add_argument("--tokenizer", metavar="FILE", help="instead of the one beside the weights")
    parser.add_argument("--type", choices=list(TYPES), default="f16", type=str.lower,
                        help="of the matrices (default: f16)")
    parser.add_argument("-o", metavar="OUT.gguf", dest="output", help="default: INPUT.gguf")

    def error(message):
        say(f"{message} (-h for help)")
        sys.exit(2)
    parser.error = error
    return parser.parse_args()


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which cleans up
    output = options.output or re.sub(r"\.(bin|pth)$", "", os.path.abspath(options.input)) + ".gguf"
    try:
        metadata, tensors = read_model(options.input, options.tokenizer)
        check_bounds(options.input, metadata, tensors)
        write_gguf(output, metadata, tensors, options.type)
        for note in notes + [f"wrote {output}, {os.path.getsize(output) / 1e6:.1f} MB"]:
            say(note)
        return 0
    except ExportError as error:
        say(str(error))
    except OSError as error:
        say(f"{error.filename or output}: {error.strerror or error}")
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception as error:  # a structure that is not what the code above takes for granted
        say(f"{options.input} is damaged or of an unknown kind: {type(error).__name__} {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
