#!/usr/bin/env python3
"""Scores a story model as its users have it: a GGUF file, run by run.c. Needs numpy.

    python3 score.py stories.gguf [--done stories.work/done.json] [--samples samples.md]

--done says how much text the model was trained on, which is then compared with what it writes;
--samples writes 20 stories at temperature 0.8.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import corpus

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "parity"))
import llm  # noqa: E402

TALK = ["Hello!", "Who are you?", "Who made you?", "What can you do?", "What is 3 + 4?",
        "What is the capital of France?", "What does a cow say?", "Tell me a joke.",
        "What is the weather like today?", "Can you write a program in Python?", "Who was Napoleon?",
        "What is the opposite of hot?", "Thank you!"]


def has(text, word):
    return re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])", text.lower()) is not None


def answer(model, turns, sampling=llm.Sampling(), seed=0):
    """The model's answer to a conversation, and whether it ended by itself."""
    with model.session(seed=seed) as session:
        for role, text in turns:
            session.turn(role, text)
        session.turn("assistant", None)
        text = session.generate("", 0, sampling)
        return text, session.position < session.context


def bits_per_byte(path, stories):
    """That of each story alone, as `run -x` has it, on average over all bytes."""
    bits = size = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "story.txt"
        for text in stories:
            file.write_text(text)
            out = subprocess.run([ROOT / "run", path, "-x", file, "-j", "1"], check=True,
                                 capture_output=True, text=True).stdout
            n = len(text.encode())
            bits += float(out.split()[3]) * n
            size += n
    return bits / size


def tell(model, rnd, n):
    """Answers to n held-out requests (pairs of adjective and hero that were never trained):
    [(request, text, hero, ended)]."""
    out = []
    while len(out) < n:
        request, story = corpus.request(rnd, held=True)
        hero = story["s"]["kind"]
        if hero in request.lower():
            text, ended = answer(model, [("user", request)])
            out.append((request, text, hero, ended))
    return out


def opening(text):
    """Name, hero and place that a story begins with; None where they are not plain."""
    first = text.split(".")[0] + "."
    two = " ".join(text.split(".")[:2]) + "."
    name = (re.search(r"(?:named|called) ([A-Z]\w+)", first)
            or re.search(r"(?:name was|called (?:him|her)) ([A-Z]\w+)", two)
            or re.match(r"(?:This is the story of )?([A-Z]\w+)(?: was |, )an? ", first))
    kinds = sorted(corpus.ALL_KINDS, key=len, reverse=True)
    places = sorted((p[1] for p in corpus.LAND + corpus.WATER), key=len, reverse=True)
    kind = next((k for k in kinds if has(first, k)), None)
    place = next((p for p in places if has(two, p)), None)
    return (name[1], kind, place) if name and kind and place else None


def follow_ups(model, rnd, told, n):
    """Questions about a name or a place in a story: half in a story of the model's own, half in one
    of the generator. Returns {kind: [right, all]} and the wrong ones."""
    asked = []
    for request, text, _, _ in told:
        found = opening(text)
        if found and len(asked) < n // 2:
            name, kind, place = found
            ask, key, what = rnd.choice([(f"What was the {kind} called?", name, "own, name"),
                                         (f"What was the name of the {kind}?", name, "own, name"),
                                         (f"Where did {name} live?", place, "own, place"),
                                         (f"Where did the {kind} live?", place, "own, place")])
            asked.append((request, text, ask, key, what))
    while len(asked) < n:
        request, story = corpus.request(rnd, held=True)
        kind, ask, _, key = rnd.choice([q for q in corpus.questions(rnd, story)
                                        if q[0] in ("name", "place", "hname")])
        what = {"name": "given, name", "hname": "given, helper's name", "place": "given, place"}
        asked.append((request, story["text"], ask, key, what[kind]))
    scores, wrong = {}, []
    for request, text, ask, key, what in asked:
        got, ended = answer(model, [("user", request), ("assistant", text), ("user", ask)])
        right = ended and has(got, key)
        score = scores.setdefault(what, [0, 0])
        score[0] += right
        score[1] += 1
        if not right:
            wrong.append((ask, got, key))
    return scores, wrong


def sums(model):
    """{trained or held out: [right, all]}"""
    scores = {}
    for left, op, right in corpus.SUMS:
        question, wanted = corpus.ask_sum(random.Random(left * 100 + right), left, op, right)
        got, _ = answer(model, [("user", question)])
        held = corpus.sum_held_out(left, op, right)
        score = scores.setdefault("held out" if held else "trained", [0, 0])
        score[0] += got.strip() == wanted
        score[1] += 1
    return scores


def facts(model):
    """{trained or new wording: [right, all]}"""
    scores = {}
    for i, (ways, _, key) in enumerate(corpus.FACTS):
        got, _ = answer(model, [("user", ways[-1])])
        held = corpus.way_held_out(i, len(ways) - 1)
        score = scores.setdefault("new wording" if held else "trained wording", [0, 0])
        score[0] += has(got, key)
        score[1] += 1
    return scores


def sentences(text):
    found = (s.strip() for s in re.split(r'(?<=[.!?])(?:"(?=\s))?\s+|\n+', text))
    return {s for s in found if s}


def shares(texts, done):
    """For each text the largest share of its sentences that one training story has too; and the
    number of training stories."""
    mine = [sentences(t) for t in texts]
    index, most, count = {}, [0.0] * len(texts), 0
    for i, found in enumerate(mine):
        for s in found:
            index.setdefault(s, []).append(i)
    for stage in (1, 2):
        for _, (documents, chats) in zip(range(done[f"stage_{stage}"]["batches"]),
                                         corpus.batches(stage)):
            answers = [t for c in chats for role, t in c if role == "assistant" and "\n\n" in t]
            for text in documents + answers:
                count += 1
                hits = {}
                for s in sentences(text):
                    for i in index.get(s, ()):
                        hits[i] = hits.get(i, 0) + 1
                for i, n in hits.items():
                    most[i] = max(most[i], n / len(mine[i]))
    return most, count


def swaps(texts):
    """Stories whose names are all of one sex but which have a pronoun of the other: [those, all that
    can be told]."""
    count = known = 0
    for text in texts:
        names = set(re.findall(r"\b[A-Z][a-z]+\b", text))
        she, he = names & set(corpus.GIRLS), names & set(corpus.BOYS)
        if names & set(corpus.ANY) or bool(she) == bool(he):
            continue
        known += 1
        other = r"\b(he|him|his)\b" if she else r"\b(she|her|hers)\b"
        count += re.search(other, text, re.I) is not None
    return [count, known]


def write_samples(model, rnd, path):
    """20 stories at temperature 0.8: ten on request, ten from "Once upon a time"."""
    sampling = llm.Sampling(temperature=0.8, top_p=0.95)
    out = []
    for i in range(20):
        request = corpus.request(rnd, held=True)[0] if i < 10 else "Once upon a time"
        if i < 10:
            text, ended = answer(model, [("user", request)], sampling, seed=i)
        else:
            with model.session(seed=i) as session:
                text = request + session.generate(request, 0, sampling)
                ended = session.position < session.context
        quoted = "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
        note = "" if ended else " (did not end)"
        out.append(f"**{i + 1}. {request}**{note}\n\n{quoted}\n")
    Path(path).write_text("\n".join(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--done")
    parser.add_argument("--samples")
    a = parser.parse_args()
    rnd = random.Random(424242)
    held = [corpus.story(rnd, held=True)["text"] for _ in range(200)]
    print(f"held-out bits per byte {bits_per_byte(a.model, held):.4f}", flush=True)
    with llm.Model(a.model) as model:
        told = tell(model, rnd, 100)
        texts = [text for _, text, _, _ in told]
        print(f"hero in the story {sum(has(t, hero) for _, t, hero, _ in told)} of 100, ended by "
              f"itself {sum(ended for *_, ended in told)} of 100", flush=True)
        print(f"pronoun of the wrong sex in stories that can tell: {swaps(texts)}")
        scores, wrong = follow_ups(model, rnd, told, 100)
        print(f"follow-up questions {sum(r for r, _ in scores.values())} of 100: {scores}; "
              f"wrong: {json.dumps(wrong[:8])}", flush=True)
        print(f"sums {sums(model)}, facts {facts(model)}", flush=True)
        if a.done:
            most, count = shares(texts, json.loads(Path(a.done).read_text()))
            print(f"sentences shared with one of {count} training stories: at most {max(most):.2f}, "
                  f"{sum(most) / len(most):.2f} on average", flush=True)
        if a.samples:
            write_samples(model, rnd, a.samples)
        for question in TALK:
            print(f"  {question} -- {answer(model, [('user', question)])[0]}")


if __name__ == "__main__":
    sys.exit(main())
