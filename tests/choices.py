"""Makes a file for tests/examples/choices.c from the JSON lines in which multiple-choice questions are
published: HellaSwag, ARC and MMLU, in their own layout or that of the Hugging Face hub.

    python3 tests/choices.py hellaswag_val.jsonl > hellaswag.tsv
    make examples && tests/tmp/choices model.gguf hellaswag.tsv

A line of the result has the number of the right choice, the prompt and the choices, with tabs between.
"""

import json
import re
import sys


def hellaswag(row):
    """The beginning of a description, and four endings."""
    def clean(text):
        return re.sub(r"\s+", " ", re.sub(r"\[.*?\]", "", text.replace(" [title]", ". "))).strip()

    prompt = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return int(row["label"]), prompt, [" " + clean(ending) for ending in row["endings"]]


def arc(row):
    """A question of a school exam; the answers are the choices."""
    question = row["question"]
    if isinstance(question, dict):  # AI2's layout
        texts = [c["text"] for c in question["choices"]]
        labels = [c["label"] for c in question["choices"]]
        question = question["stem"]
    else:
        texts, labels = row["choices"]["text"], row["choices"]["label"]
    answer = labels.index(row["answerKey"])
    return answer, f"Question: {question}\nAnswer:", [" " + t for t in texts]


def mmlu(row):
    """A question with its four answers in the prompt; their letters are the choices."""
    answer = row["answer"]
    answer = "ABCD".index(answer) if isinstance(answer, str) else answer
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"]))
    return answer, f"{row['question'].strip()}\n{listed}\nAnswer:", [" A", " B", " C", " D"]


def layout(row):
    if "endings" in row:
        return hellaswag
    if "answerKey" in row:
        return arc
    if "choices" in row and "answer" in row:
        return mmlu
    raise ValueError("neither HellaSwag nor ARC nor MMLU")


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                answer, prompt, choices = layout(row)(row)
            except (KeyError, TypeError, ValueError) as e:
                print(f"choices.py: {sys.argv[1]} line {number}: {e!r}", file=sys.stderr)
                return 1
            print("\t".join([str(answer), escape(prompt), *map(escape, choices)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
