"""Opens the files of export.py in llama.cpp and compares its logits with those of transformers.

    python3 tests/parity/llamacpp.py [NAME...]    all cases of cases.py, or those or families named

GGUF is only worth having if others can read ours. Needs the package llama_cpp, without which it is
skipped. llama.cpp evaluates the prompt at once and then single tokens, with a cache of float32, and
must choose the tokens that transformers chooses. Files of other formats are compared with run.c.
"""

import json
import os
import sys

import numpy as np

import llm
from cases import cases
from models import (distance, evaluate, export, prepare, save, some_tokens,
                    transformers_logits)

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

# It sums in other orders, rounds exp and tanh, and keeps tables of rope in float32.
TOLERANCE = 1e-3
# It rounds what it multiplies by blocks to 8 bits.
PACKED_TOLERANCE = 2e-2
PROMPT, STEPS = 72, 12


def write_tokenizer(folder, size):
    """Byte-level BPE of so many tokens, which llama.cpp does not open a file without."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256 + 68))]
    vocabulary = {text: token for token, text in enumerate(letters[:size - 1] + ["ab"])}
    (folder / "tokenizer.json").write_text(json.dumps({
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b"]},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}}))


def open_file(path):
    """The file in llama.cpp, without what it says on stderr."""
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True,
                           type_k=0, type_v=0, flash_attn=False,
                           verbose=bool(os.environ.get("LOUD")))


def greedy(model, tokens):
    """The tokens that transformers chooses next, each with how far ahead of the second it is."""
    tokens, leads = list(tokens), []
    for _ in range(STEPS):
        logits = transformers_logits(model, tokens)[-1]
        second, first = np.argsort(logits)[-2:]
        leads.append((logits[first] - logits[second]) / (logits.max() - logits.min()))
        tokens.append(int(first))
    return tokens, min(leads)


def check_case(checks, case):
    if case.export or case.other_llama:
        return checks.skip(f"{case.name}: {case.other_llama or 'no file of export.py'}")
    # not named after the family, of which llama.cpp infers more from some names
    folder, path = llm.folder() / f"case_{id(case)}", llm.folder() / f"{case.name}.gguf"
    model = save(case, folder)
    write_tokenizer(folder, case.config.get_text_config().vocab_size)
    tokens = some_tokens(case)[:200]
    reference = transformers_logits(model, tokens)
    prompt = len(tokens[:PROMPT])
    wanted, lead = greedy(model, tokens[:prompt])
    try:
        export(folder, "f32", path)
        other = open_file(path)
        other.eval(tokens)
        logits = np.array(other.scores[:len(tokens)], np.float64)
        other.reset()
        other.eval(wanted[:prompt])
        for token in wanted[prompt:-1]:
            other.eval([token])
        chosen = [int(row.argmax()) for row in other.scores[prompt - 1:prompt - 1 + STEPS]]
    except (RuntimeError, ValueError) as e:
        return checks.that(False, f"{case.name}: {e}")
    # With rounding, experts are the same where they are far ahead of the others.
    tolerance, alike = (PACKED_TOLERANCE, case.steady) if case.packed else (TOLERANCE, len(tokens))
    d = distance(logits[:alike], reference[:alike])
    checks.that(d < tolerance, f"{case.name}: llama.cpp differs by {d:.2g} of the range from "
                               f"transformers, allowed {tolerance:g}")
    checks.that(lead < tolerance or chosen == wanted[prompt:],
                f"{case.name}: llama.cpp chooses {chosen}, transformers {wanted[prompt:]}")
    print(f"{case.name:20} {d:.1e}", flush=True)
    other.close()


def check_blocks(checks, case):
    folder, tokens, line = llm.folder() / f"case_{id(case)}", some_tokens(case), []
    save(case, folder)
    write_tokenizer(folder, case.config.get_text_config().vocab_size)
    for kind in case.types:
        path = llm.folder() / f"{case.name}-{kind}.gguf"
        try:
            export(folder, kind, path)
            ours, other = evaluate(path, tokens), open_file(path)
            other.eval(tokens)
        except (RuntimeError, ValueError, llm.Error) as e:
            checks.that(False, f"{case.name} {kind}: {e}")
            continue
        d = distance(np.array(other.scores[:len(tokens)], np.float64), ours)
        checks.that(d < PACKED_TOLERANCE, f"{case.name} {kind}: llama.cpp differs by {d:.2g} of "
                                          f"the range from run.c, allowed {PACKED_TOLERANCE:g}")
        line.append(f"{kind} {d:.1e}")
        other.close()
    print(f"{case.name:20} " + "  ".join(line), flush=True)


def main():
    prepare()
    names = sys.argv[1:]
    if llama_cpp is None:
        print("0 passed, 0 failed, 1 skipped: no llama_cpp")
        return 0
    checks = llm.Checks()
    for case in cases():
        if not names or case.name in names or case.family in names:
            (check_case if "f32" in case.types else check_blocks)(checks, case)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
