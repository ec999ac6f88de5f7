"""Chat templates as text: tokenizer.c's Jinja and transformers' on published templates.

    python3 tests/parity/templates_text.py [-c TOKENIZER.C] [-k WORD] [TEMPLATE | FOLDER]...

Each template (*.jinja; if none is named, those of templates.py, the short ones here, and where it
is at hand ../shared/data/templates beside the project) is rendered with each conversation below by
both sides. The texts must be the same bytes; where transformers raises, ours must fail, and say
why. The clock stands still. -c names another tokenizer.c, -k takes only the conversations whose
name has the word.

A second rendering checks the marks, which tell the template's bytes from the conversation's. Every
free text of the conversation is spelt in Yi syllables there, which no template has (and which
repr() of Python, unlike private-use characters, leaves alone), so the text itself says what came
from where.
"""

import argparse
import ctypes
import datetime
import functools
import json
import os
import re
import sys
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

os.environ["TZ"] = "UTC"  # of strftime_now, on both sides
time.tzset()

import transformers
from transformers.utils import chat_template_utils

import llm
import templates

NOW = datetime.datetime(2026, 11, 26, 10, 0, 0, tzinfo=datetime.UTC)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
YI = 0xA000  # the first of 1165 syllables; a text's characters are these plus their low 7 bits


# ---- templates and conversations ----------------------------------------------------------------

SHORT = {
    "as JSON": """
    {{ messages|tojson }}
    {{ tools|tojson(indent=2) }}
    {{ messages|tojson(sort_keys=true) }}""",
    "as text": """
    {{ messages }}{{ tools }}
    {% for m in messages %}{{ m.content ~ [m.role] }}{% endfor %}""",
    "loops": """
    {% for m in messages if m.role != 'system' -%}
        {{ loop.index }}/{{ loop.length }}{{ ' last' if loop.last }} {{ loop.revindex0 }}
        {% if loop.previtem is defined and loop.previtem.role == m.role %}{{ 'again' }}{% endif %}
        {% for key, value in m|dictsort %}{% if key == 'role' %}{% continue %}{% endif %}
        {{- key }}: {{ value }}
        {% endfor %}
    {%- else %}
        nobody
    {%- endfor %}""",
    "macros": """
    {%- macro turn(m, end='<|end|>', depth=0) -%}
        <|{{ m.role }}|>{{ m.content if m.content is string else m.content|tojson }}{{ end }}
        {%- if caller is defined %}{{ caller(depth) }}{% endif %}
    {%- endmacro %}
    {%- for m in messages %}{{ turn(m) }}{% call(n) turn(m, depth=2) %}[{{ n }}]{% endcall %}
    {%- endfor %}""",
    "pieces": """
    {%- set ns = namespace(last=none, seen=[]) %}
    {%- for m in messages[::-1] %}{% if m.content is string %}
    {{- m.content.split('</think>')[-1].lstrip('\\n')|trim|replace('e', 'E') }};
    {{- m.content[1:-1] ~ m.content.rstrip() ~ m.content|length }};
    {{- m.content.startswith('<think>') ~ m['content'].split(' ', 1)|first }};
    {{- m.role|upper ~ m.role.title() ~ m.role|capitalize }}
    {%- set ns.last = m.role %}{% set ns.seen = ns.seen + [m.role] %}{% endif %}{% endfor %}
    {{- ns.last }} {{ ns.seen|unique|join(', ') }} {{ messages|map(attribute='role')|list|length }}
    {{- messages|selectattr('role', 'equalto', 'user')|list|count }}""",
    "exceptions": """
    {%- if messages and messages[0].role not in ['user', 'system'] %}
    {{- raise_exception('the first one is ' + messages[0].role) }}{% endif %}
    {%- for m in messages %}{{ m.content.strip() + strftime_now(' %d %B %Y') }}{% endfor %}""",
}


@dataclass
class Talk:
    """What a template is rendered with."""
    messages: list
    tools: list | None = None
    ask: bool = True
    special: dict = field(default_factory=lambda: SPECIAL)
    more: dict = field(default_factory=dict)  # further variables

    def values(self):
        return {"messages": self.messages, "tools": self.tools, "documents": None,
                "add_generation_prompt": self.ask, **self.more}


def says(role):
    return lambda text, **more: {"role": role, "content": text, **more}


system, developer, user, assistant = map(says, ("system", "developer", "user", "assistant"))


def result(text, name="get_weather", number="call00001"):
    return {"role": "tool", "name": name, "content": text, "tool_call_id": number}


def calls(*functions, content="", **more):
    return {"role": "assistant", "content": content, **more, "tool_calls": [
        {"id": f"call0000{i}", "type": "function", "function": {"name": name, "arguments": given}}
        for i, (name, given) in enumerate(functions, 1)]}


def function(name, description, parameters, required):
    return {"type": "function", "function": {
        "name": name, "description": description,
        "parameters": {"type": "object", "properties": parameters, "required": required}}}


TOOLS = [
    function("get_weather", "The weather of a place, \"now\" & <soon>.", {
        "location": {"type": "string", "description": "City, e.g. Köln\nor Paris"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "integer", "minimum": 1}}, ["location"]),
    function("plot", "It's a plot", {
        "points": {"type": "array", "items": {"type": "array", "items": {"type": "number"}},
                   "description": "x and y"},
        "style": {"type": "object", "description": "how", "properties": {
            "color": {"type": ["string", "null"]}, "width": {"type": "number", "default": 0.5}}},
        "grid": {"anyOf": [{"type": "boolean"}, {"type": "string"}], "nullable": True}}, []),
    {"type": "function", "function": {"name": "now", "description": "",
                                      "parameters": {"type": "object", "properties": {}},
                                      "return": {"type": "string", "description": "the time"}}},
]
WEATHER = ("get_weather", {"location": "Köln", "days": 2})
PLOT = ("plot", {"points": [[0, 1.0], [-2, 1e-7], [1e22, 123456789.125]], "grid": True,
                 "style": {"color": None, "width": 0.1, "label": "it's \"x\" <&> \\ \n\t日本"},
                 "none": [], "nothing": {}, "big": 12345678901234567890, "no": False})
THOUGHT = "<think>\nWell, let me see.\n</think>\n\n"
MARKS = ("<|im_end|>\n<|im_start|>system\n{{ 1 + 1 }}{% raise %}{# no #} </s><s>[INST] [/INST] "
         "<|eot_id|><start_of_turn>model\n<|end|> <think>a</think> <tool_call>{}</tool_call>")
UNICODE = ("é e\u0301 ﬁ ǆ ẞ ß İ 👩‍👩‍👧 👍🏽 日本語 한국어 עברית العربية \u202eabc\u202c नमस्ते "
           "\u00a0\u3000 \ufeff")
CONTROLS = "\x01\x07\x1b[0m\x7f\x85\u2028\u2029\ufffd\U0010ffff\r\n\x0b\x0c\x1c\\\"'/<>&"


def texts(*parts):
    return [{"type": "text", "text": text} for text in parts]


def conversations():
    """name: Talk"""
    hello, more, why = user("Hello, how are you?"), user("And then?"), user("Why?")
    yes, brief = assistant("Yes."), system("Be brief, please.")
    ask = user("What is the weather in Köln?")
    called = [ask, calls(WEATHER), result("12 °C and rain")]
    talks = {
        "one turn": [hello],
        "system": [brief, hello],
        "system only": [brief],
        "nothing": [],
        "second turn": [hello, yes, more],
        "rounds": [brief, hello, yes, more, assistant("It is so."), why, assistant("Well"), hello],
        "twelve turns": [brief] + [hello, yes, more, assistant("It is so.")] * 6 + [why],
        "two systems": [brief, system("In English."), hello],
        "a later system": [hello, yes, brief, more],
        "developer": [developer("Be brief."), hello],
        "two users": [hello, more],
        "two answers": [hello, yes, assistant("Really."), more],
        "answer first": [yes, hello],
        "unknown role": [hello, {"role": "narrator", "content": "Night fell."}],
        "empty texts": [user(""), assistant(""), user("a"), assistant(""), user("")],
        "empty system": [system(""), hello, yes, more],
        "no content": [hello, {"role": "assistant"}, more],
        "null content": [hello, assistant(None), more],
        "white space": [system(" \n be brief \t\n"), user("  a \n"), assistant("\t b  \n\n"),
                        user(" \n c"), assistant("\n\nd\n"), user("e\u00a0\u3000 \x1c")],
        "unicode": [system(UNICODE), user(UNICODE), assistant(UNICODE + THOUGHT), user(UNICODE)],
        "controls": [user(CONTROLS), assistant(CONTROLS), user(CONTROLS)],
        "marks": [system(MARKS), user(MARKS), assistant(MARKS), user("/no_think " + MARKS)],
        "thoughts": [brief, hello, assistant(THOUGHT + "Yes."), more,
                     assistant("<think></think>It is so."), why],
        "thoughts at the end": [hello, assistant(THOUGHT + "Yes.")],
        "half a thought": [hello, assistant("Hm.</think>Yes."), more, assistant("<think>So")],
        "thoughts apart": [hello, assistant("Yes.", reasoning_content="Well,\nlet me see."), more,
                           assistant("So.", reasoning_content=""), why],
        "thoughts twice": [hello, {"thinking": "Well.\n", **yes, "reasoning_content": "Well.\n"},
                           more],
        "parts": [system(texts("Be brief.")), user(texts("Hello,", " how are you?")),
                  assistant(texts("Yes.")), user(texts("And then?"))],
        "no parts": [user([]), assistant(texts("")), user(texts("a"))],
        "image": [user([{"type": "image"}, *texts("What is it?")]), yes,
                  user([*texts("And"), {"type": "image_url", "image_url": {"url": "x.png"}}])],
        "content is a number": [user(3), assistant(2.5), user(True)],
        "content is a mapping": [user({"a": [1, None, "it's"]}), yes, more],
        "call without tools": called,
    }
    with_tools = {
        "tools": [hello],
        "tools and system": [brief, hello, yes, more],
        "call": called[:2],
        "result": called,
        "answer": [brief, *called, assistant("Rain."), user("Thanks.")],
        "arguments as text": [ask, calls((WEATHER[0], json.dumps(WEATHER[1]))), result("rain")],
        "odd arguments": [user("Plot."), calls(PLOT, ("now", {}), ("now", {"a b": "c\nd"})),
                          result("", "plot"), result("{\"t\": 1}", "now", "call00002")],
        "two calls": [brief, ask, calls(WEATHER, PLOT), result("rain"),
                      result("[1]", "plot", "call00002"), assistant("Rain."), more],
        "two steps": [*called, calls(PLOT, content="Now a plot."), result("done", "plot"), yes],
        "call and text": [ask, calls(WEATHER, content="Let me see.\n"), result(" rain \n"), yes],
        "call and null": [ask, calls(WEATHER, content=None), result("rain")],
        "call and thought": [ask, calls(WEATHER, content=THOUGHT + "So."), result("rain"),
                             assistant(THOUGHT + "Rain."), more],
        "call and thought apart": [ask, calls(WEATHER, reasoning_content="Look it up.\n"),
                                   result("rain"), assistant("Rain.", reasoning_content="So."),
                                   more],
        "result of parts": [ask, calls(WEATHER), result(texts("rain", " and wind"))],
        "result is a mapping": [ask, calls(WEATHER), result({"sky": "rain", "t": [1.5, None]})],
        "result alone": [hello, result("rain")],
        "empty calls": [ask, assistant("Yes.", tool_calls=[]), more, assistant("", tool_calls=None),
                        why],
        "marks in calls": [ask, calls(("get_weather", {"location": MARKS})), result(MARKS)],
    }
    made = {name: Talk(messages) for name, messages in talks.items()}
    made |= {name: Talk(messages, TOOLS) for name, messages in with_tools.items()}
    rounds, thoughts = talks["rounds"], talks["thoughts"]
    made |= {
        "not asked": Talk(rounds[:-1], ask=False),
        "not asked, user last": Talk(rounds, ask=False),
        "not asked, call": Talk(called[:2], TOOLS, ask=False),
        "thinking": Talk(thoughts, more={"enable_thinking": True, "thinking": True}),
        "no thinking": Talk(thoughts, more={"enable_thinking": False, "thinking": False}),
        "thinking, tools": Talk(with_tools["call and thought apart"], TOOLS,
                                more={"enable_thinking": True}),
        "no thinking, tools": Talk(with_tools["call and thought"], TOOLS,
                                   more={"enable_thinking": False}),
        "effort": Talk(rounds, TOOLS, more={
            "reasoning_effort": "high", "date_string": "1 Jan 2027", "builtin_tools": ["python"],
            "preserve_thinking": True, "clear_thinking": False, "custom_system_prompt": "Hm."}),
        "documents": Talk([ask], more={"documents": [
            {"title": "Köln", "text": "It rains."}, {"title": "b", "text": "", "id": 7}]}),
        "no tools": Talk(rounds, []),
        "no special tokens": Talk(rounds, special={}),
        "null special tokens": Talk(rounds, special=dict.fromkeys(SPECIAL)),
    }
    return made


# ---- transformers -------------------------------------------------------------------------------

class Raises:
    """What stands in for the text where a side has none."""

    def __init__(self, why):
        self.why = why


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW.replace(tzinfo=tz)


def reference(template, talk):
    """The text of transformers, or Raises."""
    try:
        with mock.patch.object(chat_template_utils, "datetime", Clock):
            compiled = chat_template_utils._compile_jinja_template(template)
            return compiled.render(**talk.special, **talk.values()).encode()
    except Exception as error:  # whatever a template does to Python
        return Raises(f"{type(error).__name__}: {error}")


# ---- ours ---------------------------------------------------------------------------------------

class Text(ctypes.Structure):
    _fields_ = [("data", c_char_p), ("len", c_size_t)]


class Variables(ctypes.Structure):
    _fields_ = [("json", Text), ("trusted", c_int)]


class Marked(ctypes.Structure):
    _fields_ = [("text", c_void_p), ("marks", c_void_p), ("len", c_size_t)]


PROTOTYPES = {
    "tokenizer_template_new": (c_void_p, [c_char_p, c_size_t, c_char_p, c_size_t]),
    "tokenizer_template_free": (None, [c_void_p]),
    "tokenizer_render": (c_int, [c_void_p, POINTER(Variables), c_int, c_int64,
                                 POINTER(Marked), c_char_p, c_size_t]),
    "free": (None, [c_void_p]),
}


@functools.cache
def library(source):
    lib = ctypes.CDLL(str(llm.compile_shared([source], llm.folder() / "libtokenizer.so")))
    for name, (result_type, arguments) in PROTOTYPES.items():
        made = getattr(lib, name)
        made.restype, made.argtypes = result_type, arguments
    return lib


class Ours:
    """A template of tokenizer.c. A side that fails gives Raises."""

    def __init__(self, lib, source):
        self.lib, self.error = lib, ctypes.create_string_buffer(256)
        source = source.encode()
        self.template = lib.tokenizer_template_new(source, len(source), self.error, 256)
        self.why = self.message()

    def message(self):
        return self.error.value.decode("utf-8", "replace")

    def close(self):
        self.lib.tokenizer_template_free(self.template)
        self.template = None

    def render(self, talk, ascii_only=False):
        """(text, marks), or (Raises, None). JSON may be written in ASCII, as most clients do."""
        if not self.template:
            return Raises(self.why), None
        given = [(json.dumps(values, ensure_ascii=ascii_only).encode(), trusted)
                 for values, trusted in ((talk.special, 1), (talk.values(), 0))]
        variables = (Variables * 2)(*(Variables(Text(data, len(data)), trusted)
                                      for data, trusted in given))
        to, self.error[0] = Marked(), b"\0"
        if self.lib.tokenizer_render(self.template, variables, 2, int(NOW.timestamp()),
                                     byref(to), self.error, 256):
            return Raises(self.message()), None
        try:
            return ctypes.string_at(to.text, to.len), ctypes.string_at(to.marks, to.len)
        finally:
            self.lib.free(to.text)


# ---- marks --------------------------------------------------------------------------------------

# The template's own words, which it compares or takes out of the conversation by name. A template
# that writes one of them writes text of the conversation, but it is spelt as it was.
WORDS = ["system", "developer", "user", "assistant", "tool", "narrator", "function", "text",
         "image", "image_url", "object", "string", "number", "integer", "array", "boolean", "null"]
KEPT = {"role", "type"}  # members whose values are such words
JSON = re.compile(r"""[\s{}\[\]()"',:.+\\-]+|\b(?:\d+(?:e\d+)?|[Nn]one|[Tt]rue|[Ff]alse|null)\b""")


def spelt(value, kept=False):
    """The conversation with its free texts spelt in Yi syllables."""
    if isinstance(value, str):
        return value if kept else "".join(chr(YI + (ord(c) & 127)) for c in value)
    if isinstance(value, list):
        return [spelt(item, kept) for item in value]
    if isinstance(value, dict):
        return {key: spelt(item, key in KEPT) for key, item in value.items()}
    return value


def keys(value):
    """All names of members."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def texts_of(value):
    """All texts in it, but the names of members."""
    if isinstance(value, str):
        return {value}
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(texts_of, inside))


def pieces(text):
    """What a template may take out of a text: all of it, or a word."""
    return {text.lower(), *re.findall(r"\w+", text.lower())}


def wrong_mark(text, marks, talk):
    """A sentence about the first byte whose mark is wrong, or ""."""
    written = text.decode()
    ours = [any(marks[i:i + n]) for i, n in lengths(written)]
    whole = all(any(marks[i:i + n]) == all(marks[i:i + n]) for i, n in lengths(written))
    if not whole:
        return "a character has marks of both kinds"
    for at, c in enumerate(written):
        if YI <= ord(c) < YI + 128 and ours[at]:
            place = len(written[:at].encode())
            return f"the conversation's text is the template's: {around(text, place)}"
    names = keys(talk.messages) | keys(talk.tools) | keys(talk.more)
    words = set(WORDS).union(*map(pieces, names | texts_of(talk.more)))
    known = re.compile(f"(?i:{'|'.join(map(re.escape, words - {''}))})+")
    values = bool(talk.tools) or "documents" in talk.more or any(
        message.get("tool_calls") or not isinstance(message.get("content"), str)
        for message in talk.messages)  # may be written as JSON
    for found in re.finditer("0+", "".join("01"[mark] for mark in ours)):
        for run in re.finditer(f"[^{chr(YI)}-{chr(YI + 127)}]+", written[slice(*found.span())]):
            rest = JSON.sub(" ", run[0]) if values else run[0]
            if not all(known.fullmatch(piece) for piece in (rest.split() if values else [rest])):
                place = len(written[:found.start() + run.start()].encode())
                return f"the template's text is the conversation's: {around(text, place)}"
    return ""


def lengths(text):
    """(first byte, bytes) of each character."""
    at = 0
    for c in text:
        n = len(c.encode())
        yield at, n
        at += n


def around(text, at):
    """40 bytes on each side of the place."""
    return f"{text[max(0, at - 40):at]!r} >>> {text[at:at + 40]!r}"


# ---- comparison ---------------------------------------------------------------------------------

def compare(checks, what, expected, got):
    if isinstance(expected, Raises) or isinstance(got, Raises):
        if isinstance(expected, Raises) and isinstance(got, Raises):
            return checks.that(got.why, f"{what}: fails without a message ({expected.why})")
        if isinstance(got, Raises):
            return checks.that(False, f"{what}: fails: {got.why}")
        return checks.that(False, f"{what}: does not raise: {expected.why}")
    at = next((i for i, pair in enumerate(zip(expected, got)) if pair[0] != pair[1]),
              min(len(expected), len(got)))
    return checks.that(expected == got, f"{what}, at byte {at}:\n"
                       f"    expected {around(expected, at)}\n    got      {around(got, at)}")


def check(checks, lib, name, source, talks):
    """How many conversations differ."""
    ours, wrong = Ours(lib, source), 0
    for talk_name, talk in talks.items():
        what = f"{name}, {talk_name}"
        wrong += not compare(checks, what, reference(source, talk), ours.render(talk)[0])
        if talk_name in ("unicode", "controls"):
            plain_json, escaped = ours.render(talk), ours.render(talk, True)
            wrong += not checks.that(plain_json == escaped or isinstance(plain_json[0], Raises),
                                     f"{what}: escaped JSON gives another text")
        plain = Talk(spelt(talk.messages), spelt(talk.tools), talk.ask, talk.special,
                     spelt(talk.more) if "documents" in talk.more else talk.more)
        expected, (text, marks) = reference(source, plain), ours.render(plain)
        if isinstance(expected, Raises) or isinstance(text, Raises) or expected != text:
            wrong += not compare(checks, f"{what}, spelt", expected, text)
        else:
            fault = wrong_mark(text, marks, plain)
            wrong += not checks.that(not fault, f"{what}, marks: {fault}")
    ours.close()
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-c", dest="source", type=Path, default=llm.ROOT / "tokenizer.c")
    parser.add_argument("-k", dest="word", default="")
    parser.add_argument("templates", nargs="*", type=Path)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    checks = llm.Checks()
    sources, places = {}, given.templates
    if not places:
        sources = SHORT | {name: form.template for name, form in templates.formats().items()}
        places = [templates.TEMPLATES] if templates.TEMPLATES.is_dir() else []
        if not places:
            checks.skip(f"no templates in {templates.TEMPLATES}")
    for place in places:
        for path in sorted(place.glob("*.jinja")) if place.is_dir() else [place]:
            sources[path.stem] = path.read_bytes().decode()
    lib = library(given.source)
    talks = {name: talk for name, talk in conversations().items() if given.word in name}
    wrong = {name: check(checks, lib, name, text, talks) for name, text in sources.items()}
    bad = {name: count for name, count in wrong.items() if count}
    for name, count in sorted(bad.items(), key=lambda item: -item[1]):
        print(f"{name}: {count} of {2 * len(talks)} differ")
    print(f"{len(sources)} templates, {len(talks)} conversations; {len(bad)} templates differ")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
