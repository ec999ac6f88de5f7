#!/usr/bin/env python3
"""Trains a small story model: tokenizer and two stages, on the text that corpus.py writes. Needs
PyTorch, numpy and tokenizers.

    python3 train.py            writes stories/ (a Hugging Face directory); 1 to 2 hours on 2 cores
    python3 train.py --quick    a smoke run of less than a minute
    python3 train.py --resume   goes on from the last checkpoint

Then: python3 export.py tests/models/stories --type q8_0 -o tests/models/stories.gguf
"""

import argparse
import csv
import ctypes
import json
import math
import os
import random
import struct
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

EOT, BEGIN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# the published pre-split rule of Qwen2: digits one by one, words with their space
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n'"
    " + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CTX = 512
SHAPE = dict(vocab=1536, dim=192, layers=6, heads=6, kv=3, hidden=352)


# ---------------------------------------------------------------- model


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


CAUSAL = torch.full((CTX, CTX), -math.inf).triu(1)


def attend(q, k, v):
    """q, k and v of one document, [1, heads, tokens, width]; a single query may see every key"""
    n = q.shape[2]
    z = (
        torch.baddbmm(CAUSAL[:n, :n], q[0], k[0].mT, alpha=q.shape[3] ** -0.5)
        if n > 1
        else (q[0] @ k[0].mT * q.shape[3] ** -0.5)
    )
    return (torch.softmax(z, -1) @ v[0])[None]


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.h, self.kv = c["dim"], c["heads"], c["kv"]
        self.hd = d // self.h
        self.input_layernorm, self.post_attention_layernorm = Norm(d), Norm(d)
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.self_attn = nn.ModuleDict(
            dict(
                q_proj=lin(d, d),
                k_proj=lin(d, self.kv * self.hd),
                v_proj=lin(d, self.kv * self.hd),
                o_proj=lin(d, d),
            )
        )
        self.mlp = nn.ModuleDict(
            dict(
                gate_proj=lin(d, c["hidden"]),
                up_proj=lin(d, c["hidden"]),
                down_proj=lin(c["hidden"], d),
            )
        )

    def forward(self, x, cos, sin, spans, cache=None):
        b, t, d = x.shape
        a, y = self.self_attn, self.input_layernorm(x)
        q = a["q_proj"](y).view(b, t, self.h, self.hd).transpose(1, 2)
        k = a["k_proj"](y).view(b, t, self.kv, self.hd).transpose(1, 2)
        v = a["v_proj"](y).view(b, t, self.kv, self.hd).transpose(1, 2)

        def rot(z):  # halves, as Hugging Face
            z1, z2 = z.chunk(2, -1)
            return z * cos + torch.cat((-z2, z1), -1) * sin

        q, k = rot(q), rot(k)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        g = self.h // self.kv
        k, v = k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
        n = spans or [t]
        o = torch.cat(
            [
                attend(*z)
                for z in zip(
                    q.split(n, 2), k.split(n, 2) if t > 1 else [k], v.split(n, 2) if t > 1 else [v]
                )
            ],
            2,
        )
        x = x + a["o_proj"](o.transpose(1, 2).reshape(b, t, d))
        y, m = self.post_attention_layernorm(x), self.mlp
        return x + m["down_proj"](F.silu(m["gate_proj"](y)) * m["up_proj"](y))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c["vocab"], c["dim"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["layers"]))
        self.norm = Norm(c["dim"])
        hd = c["dim"] // c["heads"]
        f = torch.outer(
            torch.arange(CTX * 2).float(), 10000.0 ** (-torch.arange(0, hd, 2).float() / hd)
        )
        f = torch.cat((f, f), -1)
        self.register_buffer("cos", f.cos(), persistent=False)
        self.register_buffer("sin", f.sin(), persistent=False)
        for n, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(
                    p,
                    std=(
                        0.02 / math.sqrt(2 * c["layers"])
                        if n.endswith(("o_proj.weight", "down_proj.weight"))
                        else 0.02
                    ),
                )

    def forward(self, ids, spans=None, cache=None, pos=0):
        x = self.embed_tokens(ids)
        t = ids.shape[1]
        at = torch.cat([torch.arange(n) for n in spans]) if spans else torch.arange(pos, pos + t)
        cos, sin = self.cos[at], self.sin[at]
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, spans, cache[i] if cache is not None else None)
        return self.norm(x)

    def logits(self, x):
        return F.linear(x, self.embed_tokens.weight)


# ---------------------------------------------------------------- data


def learn_tokenizer(vocab, seed=1):
    rnd = random.Random(seed)
    texts = [corpus.document(rnd, False) for _ in range(20000)]
    texts += [t for _ in range(8000) for _, t in corpus.chat(rnd, False)]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=[EOT, BEGIN, END],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return tok


def encode_docs(tok, texts, rnd):
    """documents to (ids, loss mask); half of them begin with the end-of-text token"""
    out = []
    for e in tok.encode_batch(texts):
        ids = ([0] if rnd.random() < 0.5 else []) + e.ids + [0]
        out.append((ids, [1] * len(ids)))
    return out


def encode_chats(tok, chats, rnd):
    pieces = [f"{role}\n" if i == 0 else text for c in chats for role, text in c for i in (0, 1)]
    enc = iter(tok.encode_batch(pieces))
    nl = tok.encode("\n").ids
    out = []
    for c in chats:
        ids, m = ([0], [0]) if rnd.random() < 0.1 else ([], [])
        for role, _ in c:
            h, b = next(enc).ids, next(enc).ids
            ids += [1] + h + b + [2] + nl
            on = 1 if role == "assistant" else 0
            m += [0] * (1 + len(h)) + [on] * (len(b) + 1) + [0] * len(nl)
        out.append((ids, m))
    return out


def make_batch(part, size):
    """whole documents, one behind the other, of about `size` tokens: ids [1, n], targets [n], the
    length of each document; the documents do not see each other"""
    ids, tgt, spans = [], [], []
    while len(ids) < size:
        d, m = part.pop()
        ids += d
        tgt += [t if on else -100 for t, on in zip(d[1:], m[1:])] + [-100]
        spans.append(len(d))
    return torch.tensor([ids]), torch.tensor(tgt), spans


class Feed:
    def __init__(self, tok, stage, size, skip=0):
        self.tok, self.size, self.part, self.used = tok, size, [], skip
        self.source, self.rnd = corpus.batches(stage), random.Random(stage)
        for _ in range(skip):  # after a resume: text that was used already
            next(self.source)

    def next(self):
        while len(self.part) < 400:
            docs, chats = next(self.source)
            self.used += 1
            p = encode_docs(self.tok, docs, self.rnd) + encode_chats(self.tok, chats, self.rnd)
            self.rnd.shuffle(p)
            self.part += [d for d in p if len(d[0]) <= CTX]
        return make_batch(self.part, self.size)


class Muon:
    """Momentum whose update of a matrix is made orthogonal (Newton-Schulz iteration): learns from
    fewer tokens than AdamW. kellerjordan.github.io/posts/muon"""

    def __init__(self, params):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(sorted(p.shape)), []).append(p)
        self.m = {p: torch.zeros_like(p) for p in params}

    @torch.no_grad()
    def step(self, lr, momentum=0.95, decay=0.05):
        for (lo, hi), ps in self.groups.items():
            us = []
            for p in ps:
                m = self.m[p].lerp_(p.grad, 1 - momentum)
                u = p.grad.lerp(m, momentum)
                us.append(u.T if p.shape[0] > p.shape[1] else u)
            x = torch.stack(us)
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                g = x @ x.mT
                x = 3.4445 * x + (-4.7750 * g + 2.0315 * g @ g) @ x
            for p, u in zip(ps, x):
                u = u.T if p.shape[0] > p.shape[1] else u
                p.mul_(1 - lr * decay).add_(u, alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)

    def zero_grad(self):
        for p in self.m:
            p.grad = None

    def state(self):
        return list(self.m.values())

    def load(self, s):
        for a, b in zip(self.m.values(), s):
            a.copy_(b)


# ---------------------------------------------------------------- training


def train_stage(a, net, tok, stage, steps, lr, log, state):
    mats = [p for n, p in net.named_parameters() if p.dim() > 1 and "embed" not in n]
    rest = [p for n, p in net.named_parameters() if p.dim() == 1 or "embed" in n]
    opt = torch.optim.AdamW(
        [
            dict(params=[p for p in rest if p.dim() > 1], weight_decay=0.1),
            dict(params=[p for p in rest if p.dim() == 1], weight_decay=0.0),
        ],
        lr=lr,
        betas=(0.9, 0.95),
        eps=1e-9,
        fused=True,
    )
    muon = Muon(mats)
    first, seen, skip = 0, 0, 0
    if state and state["stage"] == stage and state["step"]:
        opt.load_state_dict(state["opt"])
        muon.load(state["muon"])
        first, seen, skip = state["step"], state["seen"], state["used"]
    feed = Feed(tok, stage, a.tokens, skip)
    warm, t0, saved, at0 = min(100, steps // 10 + 1), time.time(), time.time(), seen
    fall = int(steps * (1 - a.fall))
    mean = None
    for step in range(first, steps):
        f = min(1, (step + 1) / warm) * (
            1 if step < fall else max(0.02, (steps - step) / (steps - fall))
        )
        ids, y, spans = feed.next()
        x = net(ids, spans)[0]
        keep = y != -100
        loss = F.cross_entropy(net.logits(x[keep]), y[keep])
        opt.zero_grad(set_to_none=True)
        muon.zero_grad()
        loss.backward()
        v = loss.item()
        seen += len(y)
        nn.utils.clip_grad_norm_(rest, 1.0)
        for g in opt.param_groups:
            g["lr"] = lr * f
        opt.step()
        muon.step(a.muon * lr / a.lr1 * f)
        mean = v if mean is None else 0.95 * mean + 0.05 * v
        if step % 20 == 0 or step == steps - 1:
            log.writerow(
                [
                    stage,
                    step,
                    seen,
                    f"{v:.4f}",
                    f"{mean:.4f}",
                    f"{lr * f:.6f}",
                    f"{time.time() - a.t0:.0f}",
                ]
            )
            a.logfile.flush()
        if step % 50 == 0 or step == steps - 1:
            print(
                f"stage {stage}  step {step:5d}/{steps}  loss {v:.4f}  mean {mean:.4f}  "
                f"{(seen - at0) / (time.time() - t0):.0f} tokens/s  {time.time() - a.t0:.0f} s",
                flush=True,
            )
        if time.time() - saved > 180 and step + 1 < steps:
            save_ckpt(
                a,
                net,
                stage,
                step + 1,
                opt=opt.state_dict(),
                muon=muon.state(),
                seen=seen,
                used=feed.used,
            )
            saved = time.time()
    save_ckpt(a, net, stage + 1, 0)
    torch.save(net.state_dict(), os.path.join(a.work, f"stage{stage}.pt"))
    return dict(tokens=seen, batches=feed.used)


def save_ckpt(a, net, stage, step, **more):
    path = os.path.join(a.work, "ckpt.pt")
    torch.save(
        dict(
            net=net.state_dict(),
            stage=stage,
            step=step,
            shape=net.c,
            spent=time.time() - a.t0,
            done=a.done,
            **more,
        ),
        path + ".tmp",
    )
    os.replace(path + ".tmp", path)


def learn(a):
    torch.set_float32_matmul_precision("medium")  # bf16 products on processors that have them
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # keep large buffers rather than map them anew for each step
        libc.mallopt(-3, 1 << 25)
        libc.mallopt(-1, 1 << 30)
    torch.manual_seed(1)
    ck = os.path.join(a.work, "ckpt.pt")
    state = torch.load(ck) if a.resume and os.path.exists(ck) else None
    a.t0 = time.time() - (state["spent"] if state else 0)
    a.done = state["done"] if state else {}
    tok = Tokenizer.from_file(os.path.join(a.work, "tokenizer.json"))
    net = Llama(SHAPE)
    if state:
        net.load_state_dict(state["net"])
    size = sum(p.numel() for p in net.parameters())
    print(f"{size:,} parameters, vocabulary {tok.get_vocab_size()}", flush=True)
    a.logfile = open(os.path.join(a.work, "loss.csv"), "a" if state else "w", newline="")
    log = csv.writer(a.logfile)
    if not state:
        log.writerow("stage step tokens loss mean lr seconds".split())
    for stage, steps, lr in ((1, a.steps1, a.lr1), (2, a.steps2, a.lr2)):
        if state and state["stage"] > stage:
            continue
        a.done[f"stage_{stage}"] = dict(
            steps=steps, **train_stage(a, net, tok, stage, steps, lr, log, state)
        )
    a.logfile.close()
    a.done["minutes"] = round((time.time() - a.t0) / 60, 1)
    save_hf(a.out, net, tok)
    with open(os.path.join(a.work, "done.json"), "w") as f:
        json.dump(a.done, f)
    picture(os.path.join(a.work, "loss.csv"), os.path.join(a.work, "loss.svg"))


def save_hf(dirname, net, tok):
    """config.json, model.safetensors, tokenizer: what transformers and export.py read"""
    os.makedirs(dirname, exist_ok=True)
    c = net.c

    def dump(name, x):
        with open(os.path.join(dirname, name), "w") as f:
            json.dump(x, f, indent=2)
            f.write("\n")

    dump(
        "config.json",
        dict(
            architectures=["LlamaForCausalLM"],
            model_type="llama",
            vocab_size=c["vocab"],
            hidden_size=c["dim"],
            intermediate_size=c["hidden"],
            num_hidden_layers=c["layers"],
            num_attention_heads=c["heads"],
            num_key_value_heads=c["kv"],
            head_dim=c["dim"] // c["heads"],
            hidden_act="silu",
            max_position_embeddings=CTX,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            rope_scaling=None,
            attention_bias=False,
            mlp_bias=False,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=0,
            torch_dtype="float32",
            use_cache=True,
        ),
    )
    dump(
        "generation_config.json",
        dict(
            bos_token_id=0,
            eos_token_id=[2, 0],
            pad_token_id=0,
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
        ),
    )
    tok.save(os.path.join(dirname, "tokenizer.json"))
    special = {
        str(i): dict(
            content=t, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True
        )
        for i, t in enumerate([EOT, BEGIN, END])
    }
    dump(
        "tokenizer_config.json",
        dict(
            tokenizer_class="PreTrainedTokenizerFast",
            add_bos_token=False,
            add_prefix_space=False,
            bos_token=EOT,
            eos_token=END,
            pad_token=EOT,
            unk_token=None,
            clean_up_tokenization_spaces=False,
            model_max_length=CTX,
            added_tokens_decoder=special,
            chat_template=TEMPLATE,
        ),
    )
    head, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for n, p in net.named_parameters():
        raw = p.detach().float().contiguous().numpy().tobytes()
        head["model." + n] = dict(
            dtype="F32", shape=list(p.shape), data_offsets=[at, at + len(raw)]
        )
        blobs.append(raw)
        at += len(raw)
    h = json.dumps(head).encode()
    h += b" " * (-len(h) % 8)
    with open(os.path.join(dirname, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h + b"".join(blobs))


# ---------------------------------------------------------------- the command


def picture(csvname, svgname):
    """The loss curve as a small SVG."""
    with open(csvname) as f:
        rows = [
            (int(r["stage"]), float(r["seconds"]) / 60, float(r["mean"])) for r in csv.DictReader(f)
        ]
    if len(rows) < 3:
        return
    width, height, left, bottom, top = 640, 300, 46, 264, 3.0
    end = max(minutes for _, minutes, _ in rows)
    x = lambda minutes: left + (width - left - 10) * minutes / end
    y = lambda loss: bottom - (bottom - 16) * min(loss, top) / top
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for i in range(7):
        out.append(
            f'<path d="M{left} {y(i / 2):.1f}H{width - 10}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y(i / 2) + 4:.1f}" text-anchor="end">{i / 2}</text>'
        )
    for i in range(0, int(end) + 1, max(1, int(end) // 8)):
        out.append(f'<text x="{x(i):.1f}" y="{bottom + 16}" text-anchor="middle">{i}</text>')
    for stage, colour, label in (
        (1, "#1f6fb4", "stage 1: stories"),
        (2, "#c2571a", "stage 2: conversations"),
    ):
        points = [(x(m), y(v)) for s, m, v in rows if s == stage]
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in points[:: max(1, len(points) // 150)])
        out.append(
            f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{width - 20}" y="{30 + 18 * stage}" text-anchor="end" '
            f'fill="{colour}">{label}</text>'
        )
    out.append(
        f'<text x="{width // 2}" y="{height - 4}" text-anchor="middle">minutes</text>'
        '<text x="0" y="11">loss, nats per token</text></svg>'
    )
    with open(svgname, "w") as f:
        f.write("\n".join(out) + "\n")


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = os.path.dirname(os.path.abspath(__file__))
    ap.add_argument("--out", default=os.path.join(here, "stories"))
    ap.add_argument("--work", default=None, help="checkpoints, log and report (default: OUT.work)")
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--tokens", type=int, default=4096, help="of a step, in whole documents")
    ap.add_argument("--steps1", type=int, default=2500)
    ap.add_argument("--steps2", type=int, default=7000)
    ap.add_argument("--lr1", type=float, default=3e-3, help="of AdamW: embeddings and norms")
    ap.add_argument("--lr2", type=float, default=1.5e-3)
    ap.add_argument(
        "--muon",
        type=float,
        default=0.02,
        help="learning rate of the matrices; in stage 2 in the ratio lr2 / lr1",
    )
    ap.add_argument(
        "--fall",
        type=float,
        default=0.3,
        help="the last part of a stage, where the learning rate falls to zero",
    )
    a = ap.parse_args()
    a.work = os.path.abspath(a.work or a.out + ".work")
    if a.quick:
        a.steps1, a.steps2, a.tokens = min(a.steps1, 15), min(a.steps2, 10), 2048
    torch.set_num_threads(a.threads)
    os.makedirs(a.work, exist_ok=True)
    tokfile = os.path.join(a.work, "tokenizer.json")
    if not (a.resume and os.path.exists(tokfile)):
        learn_tokenizer(SHAPE["vocab"]).save(tokfile)
    learn(a)


if __name__ == "__main__":
    sys.exit(main())
