"""Conversations in chat templates: the tokens of run.c and of transformers' apply_chat_template.

    python3 tests/parity/templates.py [NAME...]

Each format here is a Jinja template with the structure of published ones, and a small vocabulary
that has its marks. Both go into a GGUF file with a tiny model, and both sides tokenize the same
conversations. The built-in templates of run.c, which are asked for by name, are compared with the
texts here. Published templates and vocabularies, where they are at hand in ../shared/data, are
compared too; so are answers that the model wrote, which keep their tokens as long as the template
writes the same text.

No text may become a mark. transformers takes a mark anywhere, so on its side the marks have other
names: its template and its vocabulary spell each as a character of the private use area, and the
same ids come out.
"""

import dataclasses
import functools
import itertools
import re
import sys
from dataclasses import dataclass

import gguf
import jinja2
import numpy as np
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, trainers
from tokenizers import pre_tokenizers as split

import llm
import tokenizers_parity

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
TEMPLATES = llm.ROOT.parent / "shared" / "data" / "templates"
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
            CHATML_THINK + CHATML_ASK + CHATML_NO_THINK.replace(r"</think>\n\n", r"</think>\n"),
            IM, "llama-bpe", "", "<|im_end|>", THOUGHT),
        "qwen3.5": Format(
            CHATML_THINK.replace("+ text +", "+ text|trim +") + CHATML_ASK
            + r"""{% if add_generation_prompt and enable_thinking is not false %}
            {{- '<think>\n' }}{% endif %}""" + CHATML_NO_THINK,
            IM, "qwen2", "", "<|im_end|>", THOUGHT),
        "qwq": Format(CHATML_THINK + r"""{% if add_generation_prompt %}
            {{- '<|im_start|>assistant\n<think>\n' }}{% endif %}""",
            IM, "qwen2", "", "<|im_end|>", THOUGHT),
        "qwen3": Format(
            r"""{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for tool in tools %}
            {{- '\n' + tool|tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"""
            + CHATML_THINK + CHATML_ASK + CHATML_NO_THINK,
            IM, "qwen2", "", "<|im_end|>", THOUGHT),
        "thoughts stay": Format(
            r"""{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}
            {%- if m.reasoning_content and preserve_thinking is not false %}
            {{- '<think>\n' + m.reasoning_content.strip('\n') + '\n</think>\n\n' }}{% endif %}
            {{- m.content + '<|im_end|>\n' }}{% endfor %}""" + CHATML_ASK,
            IM, "qwen2", "", "<|im_end|>", THOUGHT),
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
            {%- else %}{% if m.reasoning_content and keep_thoughts %}
            {{- '[THINK]' + m.reasoning_content + '[/THINK]' }}{% endif %}
            {{- """ + said("[/THINK]") + r""" + eos_token }}{% endif %}{% endfor %}""",
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
            r"""{{- '<|start|>system<|message|>Reasoning: ' + reasoning_effort|default('medium') }}
            {{- '\n\n# Valid channels: analysis, commentary, final. ' }}
            {{- 'Channel must be included for every message.<|end|>' }}
            {%- for m in messages %}{% if m.role == 'system' %}
            {{- '<|start|>developer<|message|># Instructions\n\n' + m.content + '\n\n<|end|>' }}
            {%- elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}
            {%- else %}{% if m.thinking and loop.last and not add_generation_prompt %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}
            {%- endif %}
            {{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
            {%- endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}""",
            "<|start|> <|end|> <|message|> <|channel|>", "llama-bpe", "<|startoftext|>",
            "<|return|>", "<|channel|>analysis<|message|>Well.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>"),
        "deepseek-r1": Format(
            fill(DEEPSEEK, EMPTY="''", ASK=r"'<｜Assistant｜><think>\n'"),
            **DEEPSEEK_MARKS, thought=THOUGHT),
        "deepseek-v3.1": Format(
            fill(DEEPSEEK, EMPTY="'</think>'",
                   ASK=r"'<｜Assistant｜>' + ('<think>' if thinking else '</think>')"),
            **DEEPSEEK_MARKS, thought="<think>Well.</think>"),
        "deepseek3": Format(
            fill(DEEPSEEK, EMPTY="''", ASK="'<｜Assistant｜>'"), **DEEPSEEK_MARKS, thought=THOUGHT),
        "command-r7b": Format(
            fill(COHERE, TEXT="('<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|>' "
                 "if m.role == 'assistant' else m.content)",
                 ASK="('<|START_THINKING|><|END_THINKING|>' if enable_thinking is false "
                 "else '')"),
            **COHERE_MARKS,
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
            **EXAONE_MARKS, thought=THOUGHT),
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
            **GLM_MARKS, thought="<think>Well.</think>"),
        "glm4.5": Format(
            r"""[gMASK]<sop>{% for m in messages %}""" + BARS + r"""{{ '\n' }}
            {%- if m.role == 'assistant' %}{{ '<think></think>\n' + """ + said(strip="")
            + r"""|trim }}{% else %}{{ m.content }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>' }}
            {%- if enable_thinking is false %}{{ '\n<think></think>' }}{% endif %}{% endif %}""",
            **GLM_MARKS, thought="\n<think>Well.</think>\n"),
        "glm4": Format(
            r"""[gMASK]<sop>{% for m in messages %}""" + BARS + r"""{{ '\n' + m.content }}
            {%- endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
            **GLM_MARKS),
        "phi4-mini": Format(
            r"""{% for m in messages %}""" + BARS + r"""{{ """ + said() + r""" }}
            {%- if m.role == 'system' and tools %}{{ '<|tool|>' + tools|tojson }}{% endif %}
            {{- '<|end|>' }}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}""",
            PHI_MARKS, "llama-bpe", "<|endoftext|>", "<|endoftext|>", THOUGHT),
        "phi3": Format(
            r"""{{ bos_token }}{% for m in messages %}""" + BARS + r"""
            {{- '\n' + m.content + '<|end|>\n' }}{% endfor %}
            {%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
            PHI_MARKS.replace(" <|tool|>", ""), "spm", "<s>", "<|endoftext|>"),
        "olmo": Format(
            r"""{{ bos_token }}{% for m in messages %}""" + BARS + r"""{{ '\n' + m.content }}
            {{- (eos_token if m.role == 'assistant' else '') + '\n' }}{% endfor %}
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


def built_in(known):
    """The templates that run.c knows by name."""
    bare = {name: form.template for name, form in known.items()}
    own = {"command-r": fill(COHERE, TEXT="m.content", ASK="''"),
           "deepseek": bare["deepseek3"].replace(said(), "m.content"),
           "mistral": fill(MISTRAL, OPEN="'[INST] '", CLOSE="' [/INST]'", ANSWER="' '"),
           "zephyr": "{{ bos_token }}" + bare["zephyr"]}
    like = {"deepseek": "deepseek3", "mistral": "mistral-v1"}  # their vocabularies
    names = ["chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "command-r", "deepseek",
             "zephyr", "vicuna", "alpaca"]
    return {name: dataclasses.replace(known[like.get(name, name)],
                                      template=own.get(name) or bare[name]) for name in names}


def published(known):
    """(vocabulary, name, Format) for templates that fit a published vocabulary, which may be their
    own. None: the template is not at hand."""
    qwen = dict(marks="<|im_start|> <think> </think> <tool_call> </tool_call> <tool_response> "
                      "</tool_response>", bos="", eos="<|im_end|>")
    llama3 = dict(marks=LLAMA3 + " <|eom_id|> <|python_tag|>", bos="<|begin_of_text|>",
                  eos="<|eot_id|>")
    deepseek = {**DEEPSEEK_MARKS, "marks": DEEPSEEK_MARKS["marks"] + " <think> </think>"}
    for rule, words, names in (
            ("qwen2", qwen, "Qwen-Qwen2.5-7B-Instruct Qwen-Qwen3-0.6B Qwen-QwQ-32B Qwen3-Coder "
                            "MiMo-VL"),
            ("qwen2", deepseek, "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"),
            ("llama-bpe", llama3, "meta-llama-Llama-3.1-8B-Instruct "
                                  "meta-llama-Llama-3.2-3B-Instruct "
                                  "meta-llama-Llama-3.3-70B-Instruct "
                                  "meetkai-functionary-medium-v3.1"),
            ("llama-bpe", deepseek, "deepseek-ai-DeepSeek-R1-Distill-Llama-8B")):
        for name in names.split():
            path = TEMPLATES / f"{name}.jinja"
            text = path.read_bytes().decode() if path.exists() else ""
            form = Format(text, **{**words, "rule": rule},
                          thought=THOUGHT if "</think>" in text else "")
            yield rule, name, form if text else None
    for vocabulary, names in (("llama-spm", "llama2 vicuna zephyr alpaca"), ("phi-3", "phi3"),
                              ("deepseek-llm", "deepseek2")):
        for name in names.split():
            yield vocabulary, name, known[name]


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

    @classmethod
    def published(cls, name, form):
        """The vocabulary of a file. Marks that it lacks take the place of its reserved tokens, or
        stand behind the others, as in models that were made from its model."""
        tokens, types, scores, merges = read_vocabulary(name)
        tokens, types, scores = tokens[:], types[:], scores[:]
        specials = [text for text in dict.fromkeys([form.bos, form.eos, *form.marks.split()])
                    if text]
        reserved = [i for i, text in enumerate(tokens) if text.startswith("<|reserved_")]
        known = set(tokens)
        for text in specials:
            if text in known:
                continue
            if reserved:
                tokens[reserved.pop(0)] = text
                continue
            tokens.append(text)
            types.append(CONTROL if re.search("[|｜]", text) else USER_DEFINED)
            scores = scores and [*scores, 0.0]
        return cls(tokens, types, scores, merges, specials)


def vocabulary_file(name):
    return tokenizers_parity.VOCABULARIES / f"ggml-vocab-{name}.gguf"


@functools.cache
def read_vocabulary(name):
    """(tokens, types, scores, merges)"""
    fields = gguf.GGUFReader(vocabulary_file(name)).fields

    def read(key):
        field = fields.get(f"tokenizer.ggml.{key}")
        return field.contents() if field else []

    return (read("tokens"), [int(kind) for kind in read("token_type")],
            [float(score) for score in read("scores")],
            [tuple(merge.split(" ")) for merge in read("merges")])


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
        self.swallows = "<|placeholder1|>" in ids  # white space behind marks, as Phi-3
        added = [AddedToken(name, normalized=False, special=True,
                            rstrip=self.swallows and text not in (form.bos, form.eos))
                 for text, name in self.names.items()]
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
            letters = [text for text, kind in zip(vocabulary.tokens, vocabulary.types)
                       if kind == USER_DEFINED and len(text) == 1]
            made = tokenizers_parity.hugging_face(ids, vocabulary.merges, form.rule, letters)
            made.add_special_tokens(added)
            self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)
        assert all(self.tokenizer.convert_tokens_to_ids(name) == ids[name]
                   for name in self.names.values())
        self.tokenizer.chat_template = self.named(template)

    def is_mark(self, character):
        return character in self.names.values()

    def named(self, text):
        for mark in sorted(self.names, key=len, reverse=True):
            text = text.replace(mark, self.names[mark])
        return text

    def encode(self, text, before=""):
        """The tokens of a text behind another one. Their marks have private names."""
        if self.is_mark(before[-1:]):
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        backend = self.tokenizer.backend_tokenizer
        normalizer = backend.normalizer
        first = "".join(itertools.takewhile(lambda c: not self.is_mark(c), text))
        if self.prefixed:  # no space in front where a text goes on
            backend.normalizer = normalizers.Replace(" ", "\u2581")
        tokens = self.tokenizer(self.names[self.eos] + first, add_special_tokens=False)
        backend.normalizer = normalizer
        rest = self.tokenizer(text[len(first):], add_special_tokens=False)
        return tokens["input_ids"][1:] + rest["input_ids"]

    def apply(self, messages, ask, **options):
        return self.tokenizer.apply_chat_template(messages, return_dict=False,
                                                  add_generation_prompt=ask, **options)

    def render(self, messages, ask=True, **options):
        return self.apply(messages, ask, tokenize=False, **options)

    def tokens(self, messages, ask=True, **options):
        return self.apply(messages, ask, tokenize=True, **options)


def write(path, form, vocabulary, template, add_bos=True):
    """A GGUF file of a tiny model with the vocabulary."""
    out = gguf.GGUFWriter(path, "llama")
    n, spm = len(vocabulary.tokens), form.rule.startswith("spm")
    out.add_context_length(8192)
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
    out.add_add_bos_token(bool(form.bos) and add_bos)
    if template:
        out.add_chat_template(template)
    for name in ("attn_norm", "ffn_norm"):
        out.add_tensor(f"blk.0.{name}.weight", np.ones(DIM, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        out.add_tensor(f"blk.0.{name}.weight", np.zeros((DIM, DIM), np.float32))
    out.add_tensor("output_norm.weight", np.ones(DIM, np.float32))
    out.add_tensor("token_embd.weight", np.zeros((n, DIM), np.float16))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


# ---- conversations ------------------------------------------------------------------------------

def message(role, text, thoughts=""):
    """As run.c tells it to templates, and what it takes."""
    more = {"reasoning_content": thoughts, "thinking": thoughts} if thoughts else {}
    return {"role": role, "content": text, **more}


def conversations(marks, template):
    """name: messages. No mark stands in them that the template looks for in texts, as it has
    another name there on transformers' side."""
    def talk(*texts, system=None):
        head = [] if system is None else [message("system", system)]
        roles = ["user", "assistant"] * len(texts)
        return head + [message(role, text) for role, text in zip(roles, texts)]

    sought = [mark for mark in marks
              if re.search(f"""['"]{re.escape(mark)}['"](\\)| in )""", template)]
    marks = [mark for mark in marks if mark not in sought]
    every = "".join(marks) + " " + " ".join(marks)
    thought = talk("a</think>b", "<think>\nHm.\n</think>\n\nYes.", "c")
    return {
        "one turn": talk("Hello, how are you?"),
        "system": talk("What is it?", system="Be brief, please."),
        "second turn": talk("Hello.", "Yes.", "And then?"),
        "three rounds": talk("Hello.", "Yes.", "And then?", "It is so.", "Why?", "Well",
                             system="Say it again"),
        "three questions": talk("Hello.", "Yes.", "And then?", "It is so.", "Why?"),
        "white space": talk("  a \n", "\t b  \n\n", " \n c", " d ", "e", system=" \n be brief "),
        "line breaks": talk("\n\na\n", "b\n\n\n", "c\n", "\nd.\n", "e\n\n", system="brief.\n"),
        "empty system": talk("What is it?", "Yes.", "No.", system=""),
        "empty turns": talk("", "", "a", "", system="b"),
        "non-ASCII": talk("über 日本語?", "größer 中文 👍🏽", "привет\u00a0как e\u0301",
                          system="naïve дела"),
        "marks": talk(every, every, every, "a" + every, system=every),
        "words of formats": talk("USER: a\n### Response:\n[/INST] b", "ASSISTANT: </s>User:",
                                 "<|user|>\n<think>", system="<<SYS>>\n\nAssistant:"),
        **({} if "</think>" in sought else {"thoughts in texts": thought}),
    }


TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "It's the \"weather\" of <a place> & 日本",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string"}, "days": {"type": "integer", "default": 1.5}}}}}]


# ---- both sides ---------------------------------------------------------------------------------

def append(session, messages, ask=True):
    for turn in messages:
        session.turn(turn["role"], turn["content"])
    if ask:
        session.turn("assistant", None)
    return session.tokens()


class Sides:
    """A format on both sides, to compare them."""

    def __init__(self, checks, name, form, vocabulary, template, add_bos=True):
        self.checks, self.name, self.vocabulary, self.form = checks, name, vocabulary, form
        self.conversations = conversations(vocabulary.specials, form.template)
        path = llm.folder() / "templates.gguf"
        write(path, form, vocabulary, template, add_bos)
        self.model = llm.Model(path.read_bytes())
        self.theirs = Theirs(form, vocabulary, form.template)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.model.close()

    def same(self, what, expected, make):
        """Whether what make() gives is what is expected; None: it fails."""
        try:
            got = make()
        except llm.Error as error:
            return self.checks.that(expected is None, f"{self.name}, {what}: {error}")
        if expected is None:
            return self.checks.that(False, f"{self.name}, {what}: is taken")
        at = next((i for i, pair in enumerate(zip(got, expected)) if pair[0] != pair[1]),
                  min(len(got), len(expected)))

        def around(tokens):
            return [self.vocabulary.tokens[i] for i in tokens[max(0, at - 3):at + 5]]

        return self.checks.that(got == expected, f"{self.name}, {what}: expected at {at} "
                                f"{around(expected)}, got {around(got)}")

    def compare(self, what, messages, variables=None, tools=None, thinking=0, **options):
        more = {"enable_thinking": thinking > 0, "thinking": thinking > 0} if thinking else {}
        ask = messages[-1]["role"] == "user"
        try:
            expected = self.theirs.tokens(messages, ask, tools=tools, **more,
                                          **(variables or {}))
        except (jinja2.TemplateError, TypeError):
            expected = None
        with self.model.session(threads=1, variables=variables, tools=tools, thinking=thinking,
                                **options) as session:
            self.same(what, expected, lambda: append(session, messages, ask))

    def talks(self, **options):
        for what, messages in self.conversations.items():
            self.compare(what, messages, **options)

    def thought(self, messages):
        """What a model writes in front of its answer: what it thinks, or as it stands there in a
        conversation."""
        if self.form.thought:
            return self.form.thought
        prompt = self.theirs.render(messages)
        text = self.theirs.render([*messages, message("assistant", "Yes.")], False)
        return text[len(prompt):text.index("Yes.", len(prompt))]

    def written(self, what, messages, by_letters=False, variables=None):
        """Answers that the model wrote. Their tokens stay while the template writes the text that
        they have; letters are no tokens that would stand there else."""
        theirs, messages, ends, thought = self.theirs, [*messages], [], self.thought(messages)
        thoughts = (re.findall(r"Well\.\n*", thought) or [""])[0]
        more = variables or {}
        with self.model.session(threads=1, variables=variables) as session:
            append(session, messages)
            for answer in ("Yes.", "It is so.", "No."):
                prompt = theirs.render(messages, **more)
                text = behind(prompt, theirs.named(thought) + answer)
                for part in text if by_letters else [text]:
                    session.eval(theirs.encode(part, prompt))
                    prompt += part
                ends.append((prompt, session.tokens()))
                messages += [message("assistant", answer, thoughts), message("user", "And then?")]
                rendered = theirs.render(messages, **more)
                expected = theirs.tokens(messages, **more)
                ends = [end for end in ends if rendered.startswith(end[0])]
                if ends:
                    written, past = ends[-1]
                    expected = past + theirs.encode(rendered[len(written):], written)
                self.same(f"{what}, {answer}", expected, lambda: append(session, messages[-1:]))


def behind(prompt, text):
    """What is left of a text of which the prompt may end with the beginning."""
    return next(text[n:] for n in range(len(text), -1, -1) if prompt.endswith(text[:n]))


def check(checks, name, form):
    with Sides(checks, name, form, Vocabulary.of(form), form.template) as sides:
        sides.talks()
        talks = sides.conversations
        for what, options in {
                "thinking": {"thinking": 1}, "no thinking": {"thinking": -1},
                "tools": {"tools": TOOLS}, "variables": {"variables": {
                    "reasoning_effort": "high", "clear_thinking": False}}}.items():
            sides.compare(what, talks["second turn"], **options)
            sides.compare(f"system, {what}", talks["system"], **options)
        for messages in (talks["one turn"], talks["system"]):
            sides.written("written answer", messages)
            sides.written("written letters", messages, True)


def check_built_in(checks, name, form):
    """A file without a template; it says whether its model wants a token where a text begins."""
    plain = dataclasses.replace(form, template=form.template.replace("bos_token", "''"))
    for expected, add_bos in ((form, True), (plain, False)):
        what = f"built-in {name}" + ("" if add_bos else " without BOS")
        with Sides(checks, what, expected, Vocabulary.of(form), None, add_bos) as sides:
            sides.talks(chat_template=name)


def check_published(vocabulary, checks, name, form):
    made = Vocabulary.published(vocabulary, form)
    with Sides(checks, f"{vocabulary} {name}", form, made, form.template) as sides:
        date = {"date_string": "26 Nov 2026"}  # else it is today
        sides.talks(variables=date)
        talks = sides.conversations
        for what, options in {"thinking": {"thinking": 1}, "no thinking": {"thinking": -1},
                              "tools": {"tools": TOOLS}}.items():
            sides.compare(what, talks["second turn"], variables=date, **options)
        if not sides.theirs.swallows:  # else the session's text is not what the template writes
            sides.written("written answer", talks["one turn"], variables=date)
            sides.written("written letters", talks["one turn"], True, variables=date)


def main():
    transformers.logging.set_verbosity_error()
    checks, known, wanted = llm.Checks(), formats(), sys.argv[1:]
    names = built_in(known)
    checks.that([*names] == llm.chat_templates(), f"built in: {llm.chat_templates()}")
    todo = [(check, name, form) for name, form in known.items()]
    todo += [(check_built_in, name, form) for name, form in names.items()]
    missing = []
    for vocabulary, name, form in published(known):
        if form and vocabulary_file(vocabulary).exists():
            todo.append((functools.partial(check_published, vocabulary), name, form))
        else:
            missing.append(f"{name} ({vocabulary})")
    todo = [task for task in todo if not wanted or task[1] in wanted]
    for function, name, form in todo:
        function(checks, name, form)
    if missing:
        checks.skip(f"not at hand: {', '.join(missing)}")
    print(f"{len(todo)} templates")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
