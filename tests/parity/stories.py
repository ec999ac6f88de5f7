"""A trained model, where it is at hand: stories260K, exported from llama2.c's checkpoints, must tell
the story that llama2.c itself tells, and keep telling it well in coarser formats.

    python3 tests/parity/stories.py
"""

import math
import subprocess
import sys

import llm

FOLDER = llm.ROOT.parent / "shared" / "data" / "stories260k"

# How much less likely than in float32 each token of the story may become, in nats on average.
WORSE = {"f32": 1e-4, "f16": 1e-3, "bf16": 1e-2, "q8_0": 1e-2}


def export(version, kind):
    """Makes and returns a GGUF file."""
    output = llm.folder() / f"{version}-{kind}.gguf"
    subprocess.run([sys.executable, str(llm.ROOT / "export.py"),
                    str(FOLDER / f"checkpoint_{version}.bin"), "--tokenizer",
                    str(FOLDER / "tokenizer.bin"), "--type", kind, "-o", str(output)], check=True)
    return output


def main():
    checks = llm.Checks()
    if not FOLDER.exists():
        checks.skip("the model stories260K is not at hand")
        return checks.close()
    story = (FOLDER / "greedy.txt").read_text().removesuffix("\n")
    base = None
    for kind in WORSE:
        path = export("v0", kind)
        same = path.read_bytes() == export("v1", kind).read_bytes()
        checks.that(same, f"{kind}: checkpoints v0 and v1 give other files")
        with llm.Model(path) as model:
            tokens = model.encode(story, llm.BEGIN | llm.BOS)
            mean = model.likelihood(tokens)
            base = mean if base is None else base
            with model.session() as session:
                told = session.generate("", 300)
        checks.that(base - mean < WORSE[kind], f"{kind}: {base - mean:.2g} nats a token worse")
        if kind in ("f32", "f16"):
            checks.that(told.startswith(story), f"{kind}: not llama2.c's story: {told!r}")
        print(f"{kind:5} perplexity of the story {math.exp(-mean):.5f}; begins {told[:70]!r}")
    return checks.close()


if __name__ == "__main__":
    sys.exit(main())
