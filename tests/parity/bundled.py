"""The bundled model, with the weights of its file in transformers: the greedy story, its perplexity,
and the greedy answer in a chat.

    python3 tests/parity/bundled.py            compare with tests/goldens/stories.txt
    python3 tests/parity/bundled.py --write    write it: `perplexity P`, then the story
"""

import math
import sys

import torch
import transformers

import llm
import models

FILE = llm.ROOT / "tests" / "models" / "stories.gguf"
GOLDEN = llm.ROOT / "tests" / "goldens" / "stories.txt"
PROMPT = "Once upon a time"
QUESTION = "Tell me a story about a shy fox who lives by a lake."


def reference(info):
    """transformers' model of the file's shape with the file's weights, in float32."""
    paper = models.Paper(FILE)
    config = transformers.LlamaConfig(
        vocab_size=info.vocab_size, hidden_size=info.dim, intermediate_size=info.hidden_dim,
        num_hidden_layers=info.n_layers, num_attention_heads=info.n_heads,
        num_key_value_heads=info.n_kv_heads, head_dim=info.head_dim, tie_word_embeddings=True,
        rms_norm_eps=paper.meta["attention.layer_norm_rms_epsilon"],
        max_position_embeddings=info.context,
        rope_parameters={"rope_type": "default", "rope_theta": paper.meta["rope.freq_base"]})
    model = transformers.LlamaForCausalLM(config).eval()
    models.take_weights(model, FILE)
    return model


def greedy(model, tokens, is_stop, context):
    """(tokens that follow, least lead of a chosen logit over the second)"""
    out, lead = [], math.inf
    while len(tokens) + len(out) < context:
        with torch.no_grad():
            logits = model(torch.tensor([tokens + out]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        if is_stop(int(best.indices[0])):
            break
        out.append(int(best.indices[0]))
    return out, lead


def perplexity(model, tokens):
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, :-1].double()
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]]
    return math.exp(-float(chosen.mean()))


def chat_tokens(model, question):
    """The ids of a user's turn and the opening of the answer, as the file's template has them."""
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return model.encode(text, llm.BEGIN | llm.SPECIAL)


def write(ours, model):
    tokens = ours.encode(PROMPT, llm.BEGIN | llm.BOS)
    told, _ = greedy(model, tokens, ours.is_stop, ours.info.context)
    all_tokens = [ours.info.bos, *ours.encode(PROMPT + ours.decode(told).decode(), llm.BEGIN)]
    GOLDEN.write_text(f"perplexity {perplexity(model, all_tokens):.6f}\n"
                      f"{PROMPT}{ours.decode(told).decode()}\n")
    print(f"wrote {GOLDEN.relative_to(llm.ROOT)}")


def compare(checks, ours, model):
    first, story = GOLDEN.read_text().split("\n", 1)
    stored, story = float(first.removeprefix("perplexity ")), story.removesuffix("\n")
    tokens = ours.encode(PROMPT, llm.BEGIN | llm.BOS)
    told, lead = greedy(model, tokens, ours.is_stop, ours.info.context)
    checks.that(PROMPT + ours.decode(told).decode() == story, "transformers tells another story")
    all_tokens = [ours.info.bos, *ours.encode(story, llm.BEGIN)]
    theirs = perplexity(model, all_tokens)
    checks.that(abs(theirs / stored - 1) < 1e-5, f"perplexity {theirs:.6f}, golden {stored:.6f}")
    for cache in ("f32", "f16"):
        mine = math.exp(-ours.likelihood(all_tokens, cache))
        checks.that(abs(mine / theirs - 1) < 1e-3,
                    f"cache {cache}: perplexity {mine:.6f}, transformers {theirs:.6f}")
    question = chat_tokens(ours, QUESTION)
    answer, chat_lead = greedy(model, question, ours.is_stop, ours.info.context)
    with ours.session() as session:
        session.turn("user", QUESTION)
        session.turn("assistant", None)
        asked = session.tokens()
        mine = session.generate("", 0)
    checks.that(asked == question, f"the template writes {asked}, expected {question}")
    checks.that(mine == ours.decode(answer).decode(), f"another answer than transformers: {mine!r}")
    print(f"perplexity {theirs:.5f}, chosen tokens lead by at least {min(lead, chat_lead):.3f}; "
          f"answer {mine[:60]!r}")


def main():
    transformers.logging.set_verbosity_error()
    checks = llm.Checks()
    with llm.Model(FILE) as ours:
        model = reference(ours.info)
        if sys.argv[1:] == ["--write"]:
            write(ours, model)
            return 0
        compare(checks, ours, model)
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
