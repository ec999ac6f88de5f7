"""Conversations in every chat format: the tokens of run.c and of transformers' apply_chat_template.

    python3 tests/parity/templates.py [FORMAT...]

For each row of templates[] in run.c there is a Jinja template here, with the structure of the
published ones of that format and the words that tell it, and a small vocabulary that has the
format's marks. Both go into a GGUF file with a tiny model, and both sides tokenize the same
conversations.

No text may become a mark. transformers takes a mark anywhere, so on its side the marks have other
names: its template and its vocabulary spell each as a character of the private use area, and the
same ids come out.
"""

import contextlib
import functools
import sys
from dataclasses import dataclass

import gguf
import numpy as np
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, trainers
from tokenizers import pre_tokenizers as split

import llm
import tokenizers_parity

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
DIM = 32  # of the tiny model


# ---- the formats --------------------------------------------------------------------------------

@dataclass
class Format:
    """A template with the structure of the published ones, and the vocabulary it is for."""
    template: str
    marks: str = ""      # special tokens besides the two below, with spaces between them
    rule: str = "gpt-2"  # how words are split; SentencePiece is "spm", "spm-bare" if it puts no
                         # space in front
    bos: str = "<s>"     # "" if there is none
    eos: str = "</s>"
    thought: str = ""    # what a model that thinks writes in front of its answer
    no_thinking: bool = False  # the template looks at enable_thinking


def said(end="</think>", strip=".lstrip('\\n')"):
    """Jinja for the text of a turn without the thoughts of an answer."""
    return (f"(m.content.split('{end}')[-1]{strip} "
            f"if m.role == 'assistant' and '{end}' in m.content else m.content)")


THOUGHT = "<think>\nWell.\n</think>\n\n"
CHATML = r"""{% for m in messages %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"""
CHATML_THINK = r"""{% for m in messages %}{% set text = """ + said() + r""" %}
{{- '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{% endfor %}"""
CHATML_ASK = r"""{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
CHATML_NO_THINK = r"""{% if add_generation_prompt and enable_thinking is false %}
{{- '<think>\n\n</think>\n\n' }}{% endif %}"""
MISTRAL = r"""{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}
{%- if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}
{%- elif m.role == 'user' %}{{ OPEN + ns.system + m.content + CLOSE }}
{%- set ns.system = '' %}
{%- else %}{{ ANSWER + m.content + eos_token }}{% endif %}{% endfor %}"""
DEEPSEEK = r"""{{ bos_token }}{% for m in messages %}
{%- if m.role == 'system' %}{{ m.content }}
{%- elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}
{%- else %}{{ '<｜Assistant｜>' + EMPTY + """ + said() + r""" + '<｜end▁of▁sentence｜>' }}
{%- endif %}{% endfor %}{% if add_generation_prompt %}{{ ASK }}{% endif %}"""
EXAONE = r"""{% for m in messages %}{{ {'system': '[|system|]', 'user': '[|user|]',
'assistant': '[|assistant|]'}[m.role] + """ + said("</thought>") + r""" }}
{{- '\n' if m.role == 'user' else '[|endofturn|]\n' }}{% endfor %}"""
BARS = r"""{{ {'system': '<|system|>', 'user': '<|user|>',
'assistant': '<|assistant|>'}[m.role] }}"""
COHERE = r"""{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' + {
'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] }}
{{- TEXT + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + ASK }}{% endif %}"""

IM = "<|im_start|> <|im_end|>"
LLAMA3 = "<|start_header_id|> <|end_header_id|> <|eot_id|>"
DEEPSEEK_MARKS = dict(marks="<｜User｜> <｜Assistant｜>", rule="deepseek-v3",
                      bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>")
EXAONE_MARKS = dict(marks="[|system|] [|user|] [|assistant|]", eos="[|endofturn|]", bos="[BOS]")
COHERE_MARKS = dict(marks="<|START_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|> "
                          "<|CHATBOT_TOKEN|> <|START_THINKING|> <|END_THINKING|> "
                          "<|START_RESPONSE|> <|END_RESPONSE|>",
                    bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>")
GLM_MARKS = dict(marks="[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
                 rule="llama-bpe", bos="", eos="<|endoftext|>")
PHI_MARKS = "<|system|> <|user|> <|assistant|> <|end|> <|tool|>"


def fill(template, **words):
    for name, text in words.items():
        template = template.replace(name, text)
    return template


def formats():
    return {
        "phi4": Format(
            r"""{% for m in messages %}
            {{- '<|im_start|>' + m.role + '<|im_sep|>' + """ + said() + r""" }}
            {{- '<|im_end|>' }}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}""",
            IM + " <|im_sep|>", "llama-bpe", "<|endoftext|>", "<|endoftext|>", THOUGHT),
        "smollm3": Format(
            r"""{% if mode %}{{ '## Metadata\n' + mode.replace('/no_think', 'off') }}{% endif %}"""
            + CHATML_THINK + CHATML_ASK
            + CHATML_NO_THINK.replace(r"</think>\n\n", r"</think>\n"),
            IM, "llama-bpe", "", "<|im_end|>", THOUGHT, True),
        "qwen3.5": Format(
            r"""{% if images %}<|vision_start|>{% endif %}"""
            + CHATML_THINK.replace("+ text +", "+ text|trim +") + CHATML_ASK
            + r"""{% if add_generation_prompt and enable_thinking is not false %}
            {{- '<think>\n' }}{% endif %}""" + CHATML_NO_THINK,
            IM, "qwen2", "", "<|im_end|>", THOUGHT, True),
        "qwq": Format(CHATML_THINK + r"""{% if add_generation_prompt %}
            {{- '<|im_start|>assistant\n<think>\n' }}{% endif %}""",
            IM, "qwen2", "", "<|im_end|>", THOUGHT),
        "qwen3": Format(CHATML_THINK + CHATML_ASK + CHATML_NO_THINK,
                        IM, "qwen2", "", "<|im_end|>", THOUGHT, True),
        "chatml": Format(CHATML + CHATML_ASK, IM, "smollm", "<|im_start|>", "<|im_end|>"),
        "llama2": Format(
            r"""{% set ns = namespace(system='') %}{% for m in messages %}
            {%- if m.role == 'system' %}
            {%- set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}
            {%- elif m.role == 'user' %}
            {{- bos_token + '[INST] ' + ns.system + m.content|trim + ' [/INST]' }}
            {%- set ns.system = '' %}
            {%- else %}{{ ' ' + m.content|trim + ' ' + eos_token }}{% endif %}{% endfor %}""",
            rule="spm"),
        "mistral-v7": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {%- if m.role == 'system' %}{{ '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' }}
            {%- elif m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}
            {%- else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}""",
            "[INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT]", "spm"),
        "mistral-v7-tekken": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {%- if m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}
            {%- elif m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}
            {%- else %}{{ """ + said("[/THINK]") + r""" + eos_token }}{% endif %}{% endfor %}""",
            "[INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [THINK] [/THINK]", "tekken",
            thought="[THINK]Well.[/THINK]"),
        "mistral-v1": Format(
            fill(MISTRAL, OPEN="' [INST] '", CLOSE="' [/INST]'", ANSWER="' '"), rule="spm"),
        "mistral-v0": Format(
            fill(MISTRAL, OPEN="'[INST] '", CLOSE="' [/INST]'", ANSWER="''"), rule="spm"),
        "mistral-v3": Format(
            fill(MISTRAL, OPEN="'[INST] '", CLOSE="'[/INST]'", ANSWER="' '"),
            "[INST] [/INST]", "spm"),
        "mistral-v3-tekken": Format(
            fill(MISTRAL, OPEN='"[INST]"', CLOSE='"[/INST]"', ANSWER='""'),
            "[INST] [/INST]", "tekken"),
        "llama3": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
            {{- m.content|trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
            LLAMA3, "llama-bpe", "<|begin_of_text|>", "<|eot_id|>"),
        "granite": Format(
            r"""{% for m in messages %}
            {{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + """ + said() + r""" }}
            {{- '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}
            {{- '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}""",
            "<|start_of_role|> <|end_of_role|>", "gpt-2", "<|end_of_text|>", "<|end_of_text|>",
            THOUGHT),
        "gemma": Format(
            r"""{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}
            {%- if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}{% else %}
            {{- '<start_of_turn>' + ('user' if m.role == 'user' else 'model') + '\n' + ns.system }}
            {{- m.content|trim + '<end_of_turn>\n' }}{% set ns.system = '' %}
            {%- endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
            "<start_of_turn> <end_of_turn>", "spm-bare", "<bos>", "<eos>"),
        "gpt-oss": Format(
            r"""{{- '<|start|>system<|message|>Reasoning: medium\n\n# Valid channels: analysis, ' }}
            {{- 'commentary, final. Channel must be included for every message.<|end|>' }}
            {%- for m in messages %}{% if m.role == 'system' %}
            {{- '<|start|>developer<|message|># Instructions\n\n' + m.content + '\n\n<|end|>' }}
            {%- elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}
            {%- else %}
            {{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
            {%- endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|start|>assistant' }}
            {%- if enable_thinking is false %}{{ '<|channel|>final<|message|>' }}{% endif %}
            {%- endif %}""",
            "<|start|> <|end|> <|message|> <|channel|>", "llama-bpe", "<|startoftext|>",
            "<|return|>", "<|channel|>analysis<|message|>Well.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>", True),
        "deepseek-r1": Format(
            fill(DEEPSEEK, EMPTY="''", ASK=r"'<｜Assistant｜><think>\n'"),
            **DEEPSEEK_MARKS, thought=THOUGHT),
        "deepseek-v3.1": Format(
            r"""{% set thinking = enable_thinking is not false %}"""
            + fill(DEEPSEEK, EMPTY="'</think>'",
                   ASK=r"'<｜Assistant｜>' + ('<think>' if thinking else '</think>')"),
            **DEEPSEEK_MARKS, thought="<think>Well.</think>", no_thinking=True),
        "deepseek3": Format(
            fill(DEEPSEEK, EMPTY="''", ASK="'<｜Assistant｜>'"), **DEEPSEEK_MARKS, thought=THOUGHT),
        "command-r7b": Format(
            fill(COHERE, TEXT="('<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|>' "
                 "if m.role == 'assistant' else m.content)",
                 ASK="('<|START_RESPONSE|>' if enable_thinking is false else '')"),
            **COHERE_MARKS, no_thinking=True,
            thought="<|START_THINKING|>Well.<|END_THINKING|><|START_RESPONSE|>"),
        "command-r": Format(
            fill(COHERE, TEXT="(m.content if m.role == 'system' else m.content|trim)", ASK="''"),
            **COHERE_MARKS),
        "exaone4": Format(
            r"""{% for m in messages %}{{ {'system': '[|system|]', 'user': '[|user|]',
            'assistant': '[|assistant|]'}[m.role] + '\n' }}
            {%- if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' + """ + said() + r""" }}
            {%- else %}{{ m.content }}{% endif %}{{ '[|endofturn|]\n' }}{% endfor %}
            {%- if add_generation_prompt %}{{ '[|assistant|]\n<think>\n' }}
            {%- if enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif %}""",
            **EXAONE_MARKS, thought=THOUGHT, no_thinking=True),
        "exaone-deep": Format(
            EXAONE + r"""{% if add_generation_prompt %}
            {{- '[|assistant|]<thought>\n' }}{% endif %}""",
            **EXAONE_MARKS, thought="<thought>\nWell.\n</thought>\n\n"),
        "exaone": Format(
            EXAONE.replace(said("</thought>"), "m.content")
            + r"""{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}""",
            **EXAONE_MARKS),
        "glm4.7": Format(
            r"""[gMASK]<sop>{% for m in messages %}""" + BARS
            + r"""{% if m.role == 'assistant' and clear_thinking is not defined %}
            {{- '</think>' + """ + said(strip="") + r"""|trim }}{% else %}{{ m.content }}{% endif %}
            {%- endfor %}{% if add_generation_prompt %}
            {{- '<|assistant|>' + ('</think>' if enable_thinking is false else '<think>') }}
            {%- endif %}""",
            **GLM_MARKS, thought="<think>Well.</think>", no_thinking=True),
        "glm4.5": Format(
            r"""[gMASK]<sop>{% for m in messages %}""" + BARS + r"""{{ '\n' }}
            {%- if m.role == 'assistant' %}{{ '<think></think>\n' + """ + said(strip="")
            + r"""|trim }}{% else %}{{ m.content }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>' }}
            {%- if enable_thinking is false %}{{ '\n<think></think>' }}{% endif %}{% endif %}""",
            **GLM_MARKS, thought="\n<think>Well.</think>\n", no_thinking=True),
        "glm4": Format(
            r"""[gMASK]<sop>{% for m in messages %}""" + BARS + r"""{{ '\n' + m.content }}
            {%- endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
            **GLM_MARKS),
        "phi4-mini": Format(
            r"""{% for m in messages %}""" + BARS + r"""{{ """ + said() + r""" }}
            {%- if m.tools %}{{ '<|tool|>' + m.tools }}{% endif %}{{ '<|end|>' }}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}""",
            PHI_MARKS, "llama-bpe", "<|endoftext|>", "<|endoftext|>", THOUGHT),
        "phi3": Format(
            r"""{{ bos_token }}{% for m in messages %}""" + BARS + r"""
            {{- '\n' + m.content + '<|end|>\n' }}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
            PHI_MARKS, "spm", "<s>", "<|endoftext|>"),
        "olmo": Format(
            r"""{{ bos_token }}{% for m in messages %}""" + BARS + r"""{{ '\n' + m.content }}
            {%- if m.role == 'assistant' %}{{ eos_token }}{% endif %}
            {%- if not loop.last or messages %}{{ '\n' }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
            rule="llama-bpe", bos="<|endoftext|>", eos="<|endoftext|>"),
        "zephyr": Format(
            r"""{% for m in messages %}""" + BARS + r"""{{ '\n' + m.content + eos_token + '\n' }}
            {%- endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
            rule="spm"),
        "openchat": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {{- 'GPT4 Correct ' + m.role|capitalize + ': ' + m.content + '<|end_of_turn|>' }}
            {%- endfor %}
            {%- if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}""",
            "<|end_of_turn|>", "spm"),
        "deepseek2": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {%- if m.role == 'system' %}{{ m.content + '\n\n' }}
            {%- elif m.role == 'user' %}{{ 'User: ' + m.content + '\n\n' }}
            {%- else %}{{ 'Assistant: ' + m.content + eos_token }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}""",
            **{**DEEPSEEK_MARKS, "rule": "deepseek-llm", "marks": ""}),
        "deepseek-coder": Format(
            r"""{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}
            {%- elif m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n' }}
            {%- else %}{{ '### Response:\n' + m.content + '\n<|EOT|>\n' }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '### Response:' }}{% endif %}""",
            rule="deepseek-coder", bos="<｜begin▁of▁sentence｜>", eos="<|EOT|>"),
        "alpaca": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {%- if m.role == 'system' %}{{ m.content + '\n\n' }}
            {%- elif m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n\n' }}
            {%- else %}{{ '### Response:\n' + m.content + eos_token + '\n\n' }}
            {%- endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}""", rule="spm"),
        "vicuna": Format(
            r"""{{ bos_token }}{% for m in messages %}
            {%- if m.role == 'system' %}{{ m.content + ' ' }}
            {%- elif m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}
            {%- else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}""", rule="spm"),
    }


# ---- vocabularies -------------------------------------------------------------------------------

SENTENCES = """The quick brown fox jumps over the lazy dog.\n\nWell, is it so? It is what it is.
### Instruction:\nSay it again, please.\n\n### Response:\nYes. No. And then? Why?  Because.\n
USER: Hello, how are you? ASSISTANT: Thank you, fine.\n\nUser: What is this?\n\nAssistant: A test.
<|user|>\nOne two three\n<|assistant|>\n[INST a b c /INST] <<SYS>> be brief <</SYS>>
GPT4 Correct User: system user assistant model developer final analysis # Instructions\n\nthink
<think>\n\n</think>\n\n über naïve привет как дела 日本語 中文 größer ... !!! ??? \n\n\n    \t  end"""


@functools.cache
def trained(rule):
    """(pieces in the order of their ids, merges) of a small BPE."""
    spm = rule.startswith("spm")
    made = Tokenizer(models.BPE())
    if spm:
        made.pre_tokenizer = split.Sequence([  # a line break is a byte there
            split.Split("\n", "removed"), split.Split(Regex("▁?[^▁]+|▁+"), "isolated")])
        # a piece that looks like a mark would be one
        texts = [SENTENCES.replace("<think>", "< think >").replace(" ", "▁")] * 4
        trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    else:
        made.pre_tokenizer = tokenizers_parity.RULES[rule][1]
        texts = [SENTENCES] * 4
        trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False,
                                      initial_alphabet=split.ByteLevel.alphabet())
    made.train_from_iterator(texts, trainer)
    vocab = made.get_vocab()
    folder = llm.folder() / rule
    folder.mkdir(exist_ok=True)
    lines = (folder / made.model.save(str(folder))[1]).read_text().split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return sorted(vocab, key=vocab.get), merges


@dataclass
class Vocabulary:
    """Tokens in the order of their ids, as a GGUF file has them."""
    tokens: list
    types: list
    scores: list
    merges: list
    specials: list  # the texts of the control tokens

    @classmethod
    def of(cls, form):
        pieces, merges = trained(form.rule)
        specials = dict.fromkeys([form.bos, form.eos, *form.marks.split()])
        specials = [text for text in specials if text]
        if not form.rule.startswith("spm"):
            return cls([*pieces, *specials],
                       [NORMAL] * len(pieces) + [CONTROL] * len(specials), [], merges, specials)
        octets = [f"<0x{i:02X}>" for i in range(256)]
        tokens = ["<unk>", *specials, *octets, *pieces]
        types = ([UNKNOWN] + [CONTROL] * len(specials) + [BYTE] * len(octets)
                 + [NORMAL] * len(pieces))
        scores = [0.0] * (len(tokens) - len(pieces)) + [-float(i) for i in range(len(pieces))]
        return cls(tokens, types, scores, merges, specials)


def spm_merges(vocabulary):
    """Every way to put a piece together, the best piece first, as SentencePiece does it."""
    kinds = zip(vocabulary.tokens, vocabulary.scores, vocabulary.types)
    scores = {text: score for text, score, kind in kinds if kind == NORMAL}
    ways = [(piece[:i], piece[i:]) for piece in scores for i in range(1, len(piece))
            if piece[:i] in scores and piece[i:] in scores]
    return sorted(ways, key=lambda way: -scores[way[0] + way[1]])


class Theirs:
    """transformers' side. The marks have private names, so that no text can contain one."""

    def __init__(self, form, vocabulary, template):
        self.eos, self.prefixed = form.eos, form.rule == "spm"
        self.names = {text: chr(0xE000 + i) for i, text in enumerate(vocabulary.specials)}
        ids = {self.names.get(text, text): i for i, text in enumerate(vocabulary.tokens)}
        special = {"bos_token": self.names.get(form.bos), "eos_token": self.names[form.eos]}
        added = [AddedToken(name, normalized=False, special=True) for name in self.names.values()]
        if form.rule.startswith("spm"):
            self.tokenizer = transformers.LlamaTokenizer(
                vocab=ids, merges=spm_merges(vocabulary), unk_token="<unk>", **special,
                add_prefix_space=form.rule == "spm")
            if form.rule == "spm":  # as published: a space in front of all text behind a mark
                backend = self.tokenizer.backend_tokenizer
                backend.normalizer = normalizers.Sequence(
                    [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
                backend.pre_tokenizer = None
            self.tokenizer.add_tokens(added, special_tokens=True)
        else:
            own = {text: i for text, i in ids.items() if text not in self.names.values()}
            made = tokenizers_parity.hugging_face(own, vocabulary.merges, form.rule)
            made.add_special_tokens(added)
            self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)
        assert all(self.tokenizer.convert_tokens_to_ids(name) == ids[name] for name in ids)
        self.tokenizer.chat_template = self.named(template)

    def named(self, text):
        for mark in sorted(self.names, key=len, reverse=True):
            text = text.replace(mark, self.names[mark])
        return text

    def encode(self, text):
        """The tokens of a text with marks, behind some other token."""
        text, backend = self.named(self.eos + text), self.tokenizer.backend_tokenizer
        before = backend.normalizer
        if self.prefixed:  # none where an answer goes on
            backend.normalizer = normalizers.Replace(" ", "\u2581")
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"][1:]
        if self.prefixed:
            backend.normalizer = before
        return tokens

    def render(self, messages, ask, **options):
        return self.tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages], tokenize=False,
            add_generation_prompt=ask, **options)

    def tokens(self, messages, ask=True, **options):
        return self.tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages], tokenize=True,
            return_dict=False, add_generation_prompt=ask, **options)


def write(path, form, vocabulary, template):
    """A GGUF file of a tiny model with the vocabulary."""
    out = gguf.GGUFWriter(path, "llama")
    n, spm = len(vocabulary.tokens), form.rule.startswith("spm")
    out.add_context_length(4096)
    out.add_embedding_length(DIM)
    out.add_block_count(1)
    out.add_feed_forward_length(DIM)
    out.add_head_count(1)
    out.add_head_count_kv(1)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(n)
    out.add_tokenizer_model("llama" if spm else "gpt2")
    out.add_token_list([text.encode() for text in vocabulary.tokens])
    out.add_token_types(vocabulary.types)
    if spm:
        out.add_token_scores(vocabulary.scores)
        out.add_add_space_prefix(form.rule == "spm")
    else:
        out.add_tokenizer_pre(form.rule)
        out.add_token_merges([" ".join(merge) for merge in vocabulary.merges])
    if form.bos:
        out.add_bos_token_id(vocabulary.tokens.index(form.bos))
    out.add_eos_token_id(vocabulary.tokens.index(form.eos))
    out.add_add_bos_token(bool(form.bos))
    if template:
        out.add_chat_template(template)
    for name in ("attn_norm", "ffn_norm"):
        out.add_tensor(f"blk.0.{name}.weight", np.ones(DIM, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        out.add_tensor(f"blk.0.{name}.weight", np.zeros((DIM, DIM), np.float32))
    out.add_tensor("output_norm.weight", np.ones(DIM, np.float32))
    out.add_tensor("token_embd.weight", np.zeros((n, DIM), np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---- conversations ------------------------------------------------------------------------------

def conversations(marks):
    """name: turns"""
    def talk(*texts, system=None):
        roles = ["user", "assistant"] * len(texts)
        head = [] if system is None else [("system", system)]
        return head + list(zip(roles, texts))

    every = "".join(marks) + " " + " ".join(marks)
    return {
        "one turn": talk("Hello, how are you?"),
        "system": talk("What is it?", system="Be brief, please."),
        "second turn": talk("Hello.", "Yes.", "And then?"),
        "three rounds": talk("Hello.", "Yes.", "And then?", "It is so.", "Why?", "Well",
                             system="Say it again"),
        "white space": talk("  a \n", "\t b  \n\n", " \n c", " d ", "e", system=" \n be brief "),
        "line breaks": talk("\n\na\n", "b\n\n\n", "c\n", "\nd.\n", "e\n\n", system="brief.\n"),
        "empty system": talk("What is it?", "Yes.", "No.", system=""),
        "empty turns": talk("", "", "a", "", system="b"),
        "non-ASCII": talk("über 日本語?", "größer 中文 👍🏽", "привет\u00a0как e\u0301",
                          system="naïve дела"),
        "marks": talk(every, every, every, "a" + every, system=every),
        "words of formats": talk("USER: a\n### Response:\n[/INST] b", "ASSISTANT: </s>User:",
                                 "<|user|>\n<think>", system="<<SYS>>\n\nAssistant:"),
    }


def ours(session, messages, ask=True):
    for role, text in messages:
        session.turn(role, text)
    if ask:
        session.turn("assistant", None)
    return session.tokens()


class Sides:
    """A format on both sides, to compare them."""

    def __init__(self, checks, name, form, stack):
        self.checks, self.name, self.form = checks, name, form
        self.vocabulary, self.stack = Vocabulary.of(form), stack
        self.model = self.open(form.template)
        self.theirs = Theirs(form, self.vocabulary, form.template)

    def open(self, template):
        path = llm.folder() / "templates.gguf"
        write(path, self.form, self.vocabulary, template)
        return self.stack.enter_context(contextlib.closing(llm.Model(path.read_bytes())))

    def same(self, what, expected, make):
        """Whether what make() gives is what is expected."""
        try:
            got = make()
        except llm.Error as error:
            return self.checks.that(False, f"{self.name}, {what}: {error}")
        at = next((i for i, pair in enumerate(zip(got, expected)) if pair[0] != pair[1]),
                  min(len(got), len(expected)))

        def around(tokens):
            return [self.vocabulary.tokens[i] for i in tokens[max(0, at - 3):at + 5]]

        return self.checks.that(got == expected, f"{self.name}, {what}: expected at {at} "
                                f"{around(expected)}, got {around(got)}")

    def compare(self, what, messages, ask, model=None, theirs=None, chat_format=None, **options):
        expected = (theirs or self.theirs).tokens(messages, ask, **options)
        no_thinking = options.get("enable_thinking") is False
        with (model or self.model).session(threads=1, chat_format=chat_format,
                                           no_thinking=no_thinking) as session:
            self.same(what, expected, lambda: ours(session, messages, ask))

    def written(self, what, messages, text, answer):
        """An answer that the model wrote, as `text`; it is `answer` from the next turn on."""
        prompt = self.theirs.render(messages, True)
        for cut in range(len(text), 0, -1):  # the prompt may end with the beginning of it
            if prompt.endswith(self.theirs.named(text[:cut])):
                text = text[cut:]
                break
        after = [*messages, ("assistant", answer), ("user", "And then?")]
        with self.model.session(threads=1) as session:
            ours(session, messages)
            session.eval(self.theirs.encode(text))
            self.same(what, self.theirs.tokens(after), lambda: ours(session, after[-1:]))


def check(checks, name, form):
    with contextlib.ExitStack() as stack:
        sides = Sides(checks, name, form, stack)
        told = sides.model.info.chat_format.decode()
        if not checks.that(told == name, f"{name}: told as {told!r}"):
            return
        talks = conversations(sides.vocabulary.specials)
        for what, messages in talks.items():
            sides.compare(what, messages, messages[-1][0] == "user")
        sides.compare("three questions", talks["three rounds"][:-1], True)
        if form.no_thinking:
            sides.compare("no thinking", talks["second turn"], True, enable_thinking=False)

        # the format is asked for by name, in a file whose own template is unknown
        plain = sides.open("{{ messages }}")
        checks.that(not plain.info.chat_format, f"{name}: a plain file is told")
        has_one = "bos_token" in form.template or form.bos == "<|im_start|>"
        override = Theirs(form, sides.vocabulary, ("" if has_one else form.bos) + form.template)
        sides.compare("by name", talks["system"], True, plain, override, name)

        # BOS once, whether the template has it or not
        bare = form.template.replace("{{ bos_token }}", "")
        if form.bos and "bos_token" not in bare:
            for template in (bare, "{{ bos_token }}" + bare):
                if template != bare and form.bos == "<|im_start|>":
                    continue  # it has one that opens a turn
                if template == bare and form.rule == "spm" and "' [INST] '" in bare:
                    continue  # to transformers this space is the prefix
                sides.compare(f"{template[:15]!r}...", talks["second turn"], True,
                              sides.open(template), Theirs(form, sides.vocabulary, template))

        # an answer that the model wrote: with thoughts, or as it stands in a conversation
        for messages in (talks["one turn"], talks["system"]):
            text = form.thought
            if not text:
                prompt = sides.theirs.render(messages, True)
                text = sides.theirs.render([*messages, ("assistant", "Yes.")], False)
                text = text[len(prompt):text.index("Yes.", len(prompt))]
            sides.written("written answer", messages, text + "Yes.", "Yes.")


def main():
    transformers.logging.set_verbosity_error()
    checks, known = llm.Checks(), formats()
    names = sys.argv[1:] or list(known)
    for name in names:
        check(checks, name, known[name])
    print(f"{len(names)} formats")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
