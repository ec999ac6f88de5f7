#!/usr/bin/env python3
"""Trains a small story model: corpus, tokenizer, two stages, evaluation. Needs PyTorch, numpy and
tokenizers.

    python3 train.py                 everything; writes stories/ (a Hugging Face directory)
    python3 train.py --quick         a smoke run of about a minute
    python3 train.py --resume        go on from the last checkpoint
    python3 train.py --eval          only the evaluation of stories/

Then: python3 export.py tests/models/stories --type q8_0 -o tests/models/stories.gguf
"""

import argparse
import csv
import json
import math
import os
import random
import re
import struct
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
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
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CTX = 512
SHAPE = dict(vocab=1536, dim=192, layers=4, heads=6, kv=3, hidden=448)


# ---------------------------------------------------------------- model


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


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

    def forward(self, x, cos, sin, mask, cache=None):
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
        o = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and t > 1
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

    def forward(self, ids, mask=None, cache=None, pos=0):
        x = self.embed_tokens(ids)
        t = ids.shape[1]
        cos, sin = self.cos[pos : pos + t], self.sin[pos : pos + t]
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, cache[i] if cache is not None else None)
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


def make_batch(part, rows):
    """packs whole documents into rows of CTX tokens; no attention across documents"""
    ids = np.zeros((rows, CTX), np.int64)
    tgt = np.full((rows, CTX), -100, np.int64)
    doc = np.zeros((rows, CTX), np.int32)
    for r in range(rows):
        at, n = 0, 1
        while CTX - at > 16:
            room = CTX - at
            best, fit = -1, 0  # the longest of the first 60 that fits
            for j, (d, _) in enumerate(part[:60]):
                if fit < len(d) <= room:
                    best, fit = j, len(d)
            if best < 0:
                break
            if n <= 2 and len(part[0][0]) <= room:
                best = 0  # two as they come, then what fits best
            d, m = part.pop(best)
            ids[r, at : at + len(d)] = d
            t = np.where(np.array(m[1:]) > 0, np.array(d[1:]), -100)
            tgt[r, at : at + len(d) - 1] = t
            doc[r, at : at + len(d)] = n
            at += len(d)
            n += 1
    return torch.from_numpy(ids), torch.from_numpy(tgt), torch.from_numpy(doc)


def text_batches(stage, seed):
    """the training text, in batches of 300: (documents, conversations); fresh text without end, so there are no epochs"""
    r = random.Random(seed)
    while True:
        k = 300 if stage == 1 else 40
        yield [corpus.document(r, False) for _ in range(k)], [
            corpus.chat(r, False, full=True) for _ in range(300 - k)
        ]


class Feed:
    def __init__(self, tok, stage, rank, rows, skip=0):
        self.tok, self.rows, self.part, self.used = tok, rows, [], skip
        self.source, self.rnd = text_batches(stage, 1000 * stage + rank), random.Random(rank)
        for _ in range(skip):  # after a resume: text that was used already
            next(self.source)

    def next(self):
        while len(self.part) < 400:
            docs, chats = next(self.source)
            self.used += 1
            p = encode_docs(self.tok, docs, self.rnd) + encode_chats(self.tok, chats, self.rnd)
            self.rnd.shuffle(p)
            self.part += [d for d in p if len(d[0]) <= CTX]
        return make_batch(self.part, self.rows)


def attention_mask(doc):
    same = doc[:, :, None] == doc[:, None, :]
    keep = (same & torch.ones(CTX, CTX, dtype=torch.bool).tril())[:, None]
    return torch.zeros(keep.shape).masked_fill_(~keep, -1e9)


class Muon:
    """momentum whose update of a matrix is made orthogonal (Newton-Schulz); learns from fewer tokens than AdamW"""

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

    def state(self):
        return list(self.m.values())

    def load(self, s):
        for a, b in zip(self.m.values(), s):
            a.copy_(b)


# ---------------------------------------------------------------- training


def train_stage(a, rank, net, tok, stage, steps, lr, log, state):
    mats = [p for n, p in net.named_parameters() if p.dim() > 1 and "embed" not in n]
    rest = [p for n, p in net.named_parameters() if p.dim() == 1 or "embed" in n]
    if a.adamw:
        mats, rest = [], [*net.parameters()]
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
    feed = Feed(tok, stage, rank, a.rows, skip)
    warm, t0, saved, at0 = min(100, steps // 10 + 1), time.time(), time.time(), seen
    fall = int(steps * (1 - a.fall))
    mean = None
    for step in range(first, steps):
        f = min(1, (step + 1) / warm) * (
            1 if step < fall else max(0.02, (steps - step) / (steps - fall))
        )
        ids, tgt, doc = feed.next()
        x, y = net(ids, attention_mask(doc)).view(-1, net.c["dim"]), tgt.view(-1)
        keep = y != -100
        loss = F.cross_entropy(net.logits(x[keep]), y[keep])
        opt.zero_grad(set_to_none=True)
        for p in mats:
            p.grad = None
        loss.backward()
        flat = torch.cat(
            [p.grad.view(-1) for p in net.parameters()]
            + [loss.detach().view(1), (doc > 0).sum().float().view(1)]
        )
        if a.procs > 1:
            dist.all_reduce(flat)
        at = 0
        for p in net.parameters():
            p.grad.copy_(flat[at : at + p.numel()].view_as(p)).div_(a.procs)
            at += p.numel()
        v = flat[-2].item() / a.procs
        seen += int(flat[-1].item())
        nn.utils.clip_grad_norm_(rest, 1.0)
        for g in opt.param_groups:
            g["lr"] = lr * f
        opt.step()
        muon.step(a.muon * lr / a.lr1 * f)
        mean = v if mean is None else 0.95 * mean + 0.05 * v
        if rank == 0:
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
                    f"stage {stage}  step {step:5d}/{steps}  loss {v:.4f}  mean {mean:.4f}  {(seen - at0) / (time.time() - t0):.0f} tokens/s  {time.time() - a.t0:.0f} s",
                    flush=True,
                )
            if (time.time() - saved > 180 and step + 1 < steps) or step + 1 == fall:
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
                if step + 1 == fall:
                    os.replace(
                        os.path.join(a.work, "ckpt.pt"), os.path.join(a.work, f"fall{stage}.pt")
                    )
                saved = time.time()
    if rank == 0:
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


def worker(rank, a):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    if a.procs > 1:
        dist.init_process_group(
            "gloo", init_method="file://" + a.meet, rank=rank, world_size=a.procs
        )
    ck = os.path.join(a.work, "ckpt.pt")
    state = torch.load(ck) if a.resume and os.path.exists(ck) else None
    a.t0 = time.time() - (state["spent"] if state else 0)
    a.done = state["done"] if state else {}
    tok = Tokenizer.from_file(os.path.join(a.work, "tokenizer.json"))
    net = Llama(SHAPE)
    if state:
        net.load_state_dict(state["net"])
    log = None
    if rank == 0:
        print(
            f"{sum(p.numel() for p in net.parameters()):,} parameters, vocabulary {tok.get_vocab_size()}",
            flush=True,
        )
        a.logfile = open(os.path.join(a.work, "loss.csv"), "a" if state else "w", newline="")
        log = csv.writer(a.logfile)
        if not state:
            log.writerow("stage step tokens loss mean lr seconds".split())
    for stage, steps, lr in ((1, a.steps1, a.lr1), (2, a.steps2, a.lr2)):
        if state and state["stage"] > stage:
            continue
        a.done[f"stage_{stage}"] = dict(
            steps=steps, **train_stage(a, rank, net, tok, stage, steps, lr, log, state)
        )
    if rank == 0:
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


def load_hf(dirname):
    c = json.load(open(os.path.join(dirname, "config.json")))
    net = Llama(
        dict(
            vocab=c["vocab_size"],
            dim=c["hidden_size"],
            layers=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            kv=c["num_key_value_heads"],
            hidden=c["intermediate_size"],
        )
    )
    raw = open(os.path.join(dirname, "model.safetensors"), "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8 : 8 + n])
    with torch.no_grad():
        for k, p in net.named_parameters():
            b, e = head["model." + k]["data_offsets"]
            p.copy_(
                torch.from_numpy(np.frombuffer(raw[8 + n + b : 8 + n + e], np.float32).copy()).view(
                    p.shape
                )
            )
    return net, Tokenizer.from_file(os.path.join(dirname, "tokenizer.json"))


# ---------------------------------------------------------------- evaluation


def prompt_of(turns):
    return "".join(f"{BEGIN}{r}\n{t}{END}\n" for r, t in turns) + f"{BEGIN}assistant\n"


@torch.inference_mode()
def generate(net, tok, text, temp=0.0, seed=0, limit=CTX):
    """returns the text and whether it ended by itself"""
    ids = tok.encode(text).ids
    g = torch.Generator().manual_seed(seed)
    cache = [[] for _ in net.layers]
    out, feed, pos = [], torch.tensor([ids]), 0
    while len(ids) + len(out) < limit:
        x = net(feed, cache=cache, pos=pos)
        pos += feed.shape[1]
        z = net.logits(x[0, -1])
        if temp > 0:
            p = torch.softmax(z / temp, -1)
            v, i = p.sort(descending=True)
            v[v.cumsum(0) - v > 0.95] = 0
            t = int(i[torch.multinomial(v, 1, generator=g)])
        else:
            t = int(z.argmax())
        if t in (0, 2):
            return tok.decode(out), True
        out.append(t)
        feed = torch.tensor([[t]])
    return tok.decode(out), False


@torch.inference_mode()
def bits_per_byte(net, tok, texts):
    """every token after the first of a text, over the bytes of these tokens"""
    nll = size = 0
    for t in texts:
        ids = tok.encode(t).ids[:CTX]
        z = net.logits(net(torch.tensor([ids]))[0, :-1])
        nll += F.cross_entropy(z, torch.tensor(ids[1:]), reduction="sum").item()
        size += len(tok.decode(ids[1:]).encode())
    return nll / math.log(2) / size


def sentences(text):
    return [s for s in (x.strip() for x in re.split(r'(?<=[.!?])(?:"(?=\s))?\s+|\n+', text)) if s]


def has(text, word):
    return (
        re.search(r"(?<![a-z])" + re.escape(word.lower()) + r"(?![a-z])", text.lower()) is not None
    )


def evaluate(net, tok, n, a, done, n_samples=20):
    net.eval()
    t0, rnd, rep = time.time(), random.Random(424242), {}
    texts = [corpus.story(rnd, held=True)["text"] for _ in range(n * 2)]
    rep["held_out_bits_per_byte"] = round(bits_per_byte(net, tok, texts), 4)

    # story requests of pairs (adjective, hero) that were never trained
    ok = adj_ok = adj_n = place_ok = place_n = name_ok = name_n = ended = 0
    lens, told, misses = [], [], []
    while len(told) < n:
        q, st = corpus.request(rnd, held=True)
        s = st["s"]
        if not (s["kind"] in q.lower()):
            continue
        text, fin = generate(net, tok, prompt_of([("user", q)]))
        ended += fin
        lens.append(len(tok.encode(text).ids))
        hit = has(text, s["kind"])
        ok += hit
        if not hit or not fin:
            misses.append((q, text[:200]))
        adj_n += 1
        adj_ok += has(text, s["adj"])
        if s["P"].lower() in q.lower():
            place_n += 1
            place_ok += has(text, s["pn"])
        if (
            s["N"].lower() in q.lower().split()
            or s["N"].lower() in re.sub(r"[^a-z ]", "", q.lower()).split()
        ):
            name_n += 1
            name_ok += has(text, s["N"])
        told.append((q, text, s))
    rep["requests"] = dict(
        n=n,
        hero_in_answer=ok,
        ended_by_itself=ended,
        adjective_in_answer=f"{adj_ok}/{adj_n}",
        place_in_answer=f"{place_ok}/{place_n}",
        name_in_answer=f"{name_ok}/{name_n}",
        mean_tokens=round(sum(lens) / len(lens)),
        longest=max(lens),
        misses=misses[:5],
    )

    # heroes that were never seen as a word
    ok = 0
    for k in corpus.UNSEEN:
        text, fin = generate(
            net, tok, prompt_of([("user", f"Tell me a story about {corpus.an('little ' + k)}.")])
        )
        ok += has(text, k)
    rep["unseen_hero_words"] = f"{ok}/{len(corpus.UNSEEN)}"

    # follow-up questions, half about a story of the generator, half about a story of the model
    right, total, by, wrong = 0, 0, {}, []
    clear = [(q, t, parse_story(t)) for q, t, _ in told if parse_story(t)]
    for own in (0, 1):
        m = 0
        while m < n // 2:
            if own:
                if not clear:
                    break
                q0, text, p = clear[m % len(clear)]
                kind, q, key = rnd.choice(own_questions(p))
            else:
                q0, st = corpus.request(rnd, held=True)
                text = st["text"]
                qs = [x for x in corpus.questions(rnd, st) if x[0] in ("name", "place", "hname")]
                kind, q, _, key = rnd.choice(qs)
            ans, fin = generate(
                net, tok, prompt_of([("user", q0), ("assistant", text), ("user", q)])
            )
            good = has(ans, key) and fin
            right += good
            total += 1
            k = ("own " if own else "given ") + kind
            by.setdefault(k, [0, 0])
            by[k][0] += good
            by[k][1] += 1
            if not good:
                wrong.append((q, ans, key))
            m += 1
    rep["follow_ups"] = dict(
        n=total,
        right=right,
        by_kind={k: f"{a}/{b}" for k, (a, b) in sorted(by.items())},
        wrong=wrong[:8],
    )
    # other questions about given stories
    by = {}
    for _ in range(n):
        q0, st = corpus.request(rnd, held=True)
        kind, q, _, key = rnd.choice(
            [x for x in corpus.questions(rnd, st) if x[0] not in ("name", "place", "hname")]
        )
        ans, fin = generate(
            net, tok, prompt_of([("user", q0), ("assistant", st["text"]), ("user", q)])
        )
        by.setdefault(kind, [0, 0])
        by[kind][0] += has(ans, key.rstrip(".")) and fin
        by[kind][1] += 1
    rep["other_questions"] = {k: f"{a}/{b}" for k, (a, b) in sorted(by.items())}

    # sums and facts
    seen, new = [0, 0], [0, 0]
    sums = corpus.SUMS if n >= 100 else corpus.SUMS[::20]
    for left, op, b in sums:
        q, ans = corpus.ask_sum(random.Random(left * 100 + b), left, op, b)
        got, _ = generate(net, tok, prompt_of([("user", q)]))
        w = new if corpus.sum_held_out(left, op, b) else seen
        w[0] += got.strip() == ans
        w[1] += 1
    rep["sums"] = dict(trained=f"{seen[0]}/{seen[1]}", held_out=f"{new[0]}/{new[1]}")
    seen, new, bad = [0, 0], [0, 0], []
    for i, (ways, ans, key) in enumerate(corpus.FACTS):
        if n < 100 and i % 20:
            continue
        j = len(ways) - 1
        got, _ = generate(net, tok, prompt_of([("user", ways[j])]))
        w = new if corpus.way_held_out(i, j) else seen
        good = has(got, key)
        w[0] += good
        w[1] += 1
        if not good:
            bad.append((ways[j], got))
    rep["facts"] = dict(
        trained_wording=f"{seen[0]}/{seen[1]}", new_wording=f"{new[0]}/{new[1]}", wrong=bad[:8]
    )

    # distinctness: the greatest share of sentences that one training story has in common with a generated one
    mine = [set(sentences(t)) for _, t, _ in told]
    index = {}
    for i, s in enumerate(mine):
        for x in s:
            index.setdefault(x, []).append(i)
    worst = [0.0] * len(mine)
    near = 0
    for near, text in enumerate(training_stories(a, done), 1):
        hits = {}
        for x in set(sentences(text)):
            for i in index.get(x, ()):
                hits[i] = hits.get(i, 0) + 1
        for i, c in hits.items():
            worst[i] = max(worst[i], c / len(mine[i]))
    rep["distinctness"] = dict(
        training_stories_compared=near,
        greatest_share_of_sentences=round(max(worst), 3),
        mean=round(sum(worst) / len(worst), 3),
    )

    samples = []
    for i in range(n_samples):
        if i < n_samples // 2:
            q, _ = corpus.request(rnd, held=True)
            p, show = prompt_of([("user", q)]), q
        else:
            p = show = "Once upon a time"
        text, fin = generate(net, tok, p, temp=0.8, seed=i)
        samples.append((show, text if p != show else p + text, fin))
    rep["samples_ended"] = sum(f for *_, f in samples)
    talks = []
    for q in [
        "Hello!",
        "Who are you?",
        "What is 3 + 4?",
        "What is 7 minus 2?",
        "What is the capital of France?",
        "What does a cow say?",
        "What is the weather like today?",
        "Can you write a program in Python?",
        "Who made you?",
        "Thank you!",
        "What is the opposite of hot?",
        "Tell me a joke.",
        "Who was Napoleon?",
    ]:
        talks.append((q, generate(net, tok, prompt_of([("user", q)]))[0]))
    rep["seconds"] = round(time.time() - t0)
    return rep, samples, talks


def training_stories(a, done):
    """every story of the training text, once more from its seeds"""
    for stage in (1, 2):
        for rank in range(a.procs):
            for _, (docs, chats) in zip(
                range(done.get(f"stage_{stage}", {}).get("batches", 1)),
                text_batches(stage, 1000 * stage + rank),
            ):
                yield from docs
                yield from (
                    t for c in chats for role, t in c if role == "assistant" and "\n\n" in t
                )


def parse_story(text):
    """who, where and how called: read from the opening of a story, None if it is not clear"""
    first = text.split(".")[0] + "."
    two = " ".join(text.split(".")[:2]) + "."
    name = (
        re.search(r"(?:named|called) ([A-Z]\w+)", first)
        or re.search(r"(?:name was|called (?:him|her)) ([A-Z]\w+)", two)
        or re.match(r"(?:This is the story of )?([A-Z]\w+)(?: was |, )an? ", first)
    )
    kind = next((k for k in sorted(corpus.ALL_KINDS, key=len, reverse=True) if has(first, k)), None)
    where = next(
        (
            n
            for _, n, _ in sorted(corpus.LAND + corpus.WATER, key=lambda x: -len(x[1]))
            if has(two, n)
        ),
        None,
    )
    if not (name and kind and where):
        return None
    return name[1], kind, where


def own_questions(p):
    n, k, w = p
    return [
        ("name", f"What was the {k} called?", n),
        ("name", f"What was the name of the {k}?", n),
        ("place", f"Where did {n} live?", w),
        ("place", f"Where did the {k} live?", w),
    ]


def report(a, rep, samples, talks):
    with open(os.path.join(a.work, "report.json"), "w") as f:
        json.dump(dict(report=rep, samples=samples, talks=talks), f, indent=1)
    with open(os.path.join(a.work, "report.md"), "w") as f:
        f.write(
            "## Scores\n\n```\n"
            + json.dumps(rep, indent=1)
            + "\n```\n\n## 20 samples at temperature 0.8\n"
        )
        for i, (q, t, fin) in enumerate(samples):
            f.write(
                f"\n**{i + 1}. {q}**{'' if fin else ' (did not end)'}\n\n"
                + "\n".join("> " + x if x else ">" for x in t.split("\n"))
                + "\n"
            )
        f.write("\n## Small talk (greedy)\n\n" + "\n".join(f"- *{q}* {t}" for q, t in talks) + "\n")


def picture(csvname, svgname):
    """the loss curve as a small SVG, no library"""
    rows = list(csv.DictReader(open(csvname)))
    pts = [(int(r["stage"]), float(r["seconds"]) / 60, float(r["mean"])) for r in rows]
    if len(pts) < 3:
        return
    w, h, x0, y0 = 640, 300, 46, 264
    xm = max(p[1] for p in pts) or 1
    top = 3.0
    X = lambda m: x0 + (w - x0 - 10) * m / xm
    Y = lambda v: y0 - (y0 - 16) * min(v, top) / top
    o = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">',
        f'<rect width="{w}" height="{h}" fill="#fff"/>',
    ]
    for i in range(7):
        v = i * 0.5
        o.append(
            f'<path d="M{x0} {Y(v):.1f}H{w - 10}" stroke="#ddd"/><text x="{x0 - 6}" y="{Y(v) + 4:.1f}" text-anchor="end">{v:.1f}</text>'
        )
    for i in range(0, int(xm) + 1, max(1, int(xm) // 8)):
        o.append(f'<text x="{X(i):.1f}" y="{y0 + 16}" text-anchor="middle">{i}</text>')
    for stage, col, lab in (
        (1, "#1f6fb4", "stage 1: stories"),
        (2, "#c2571a", "stage 2: conversations"),
    ):
        p = [(X(m), Y(v)) for s, m, v in pts if s == stage]
        p = p[:: max(1, len(p) // 150)]
        if p:
            o.append(
                f'<path d="M'
                + "L".join(f"{x:.1f} {y:.1f}" for x, y in p)
                + f'" fill="none" stroke="{col}" stroke-width="1.5"/>'
            )
            o.append(
                f'<text x="{w - 20}" y="{30 + 18 * stage}" text-anchor="end" fill="{col}">{lab}</text>'
            )
    o.append(
        f'<text x="{w // 2}" y="{h - 4}" text-anchor="middle">minutes</text><text x="{x0}" y="11">loss, nats per token</text></svg>'
    )
    open(svgname, "w").write("\n".join(o) + "\n")


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = os.path.dirname(os.path.abspath(__file__))
    ap.add_argument("--out", default=os.path.join(here, "stories"))
    ap.add_argument("--work", default=None, help="checkpoints, log and report (default: OUT.work)")
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--eval", action="store_true")
    ap.add_argument(
        "--procs", type=int, default=2, help="processes of one thread each, that share every step"
    )
    ap.add_argument(
        "--rows", type=int, default=4, help="rows of 512 tokens for each process and step"
    )
    ap.add_argument("--steps1", type=int, default=1400)
    ap.add_argument("--steps2", type=int, default=1400)
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
    ap.add_argument("--adamw", action="store_true", help="AdamW for everything")
    a = ap.parse_args()
    a.work = os.path.abspath(a.work or a.out + ".work")
    if a.quick:
        a.steps1, a.steps2, a.rows = min(a.steps1, 15), min(a.steps2, 10), 2
    torch.set_num_threads(a.procs)
    os.makedirs(a.work, exist_ok=True)
    if not a.eval:
        tokfile = os.path.join(a.work, "tokenizer.json")
        if not (a.resume and os.path.exists(tokfile)):
            learn_tokenizer(SHAPE["vocab"]).save(tokfile)
        a.meet = os.path.join(a.work, f"meet{os.getpid()}")
        if a.procs > 1:
            mp.spawn(worker, (a,), nprocs=a.procs)
        else:
            worker(0, a)
    net, tok = load_hf(a.out)
    done = (
        json.load(open(os.path.join(a.work, "done.json")))
        if os.path.exists(os.path.join(a.work, "done.json"))
        else {}
    )
    n = 4 if a.quick else 100
    rep, samples, talks = evaluate(net, tok, n, a, done)
    rep.update(
        parameters=sum(p.numel() for p in net.parameters()),
        shape=SHAPE,
        batch_tokens=a.procs * a.rows * CTX,
        training=done,
        torch=torch.__version__,
    )
    report(a, rep, samples, talks)
    print(json.dumps(rep, indent=1))


if __name__ == "__main__":
    sys.exit(main())
