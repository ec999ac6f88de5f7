"""Runs the parity scripts: run.c, tokenizer.c and export.py against the reference implementations.

    python3 tests/parity/run.py                      all of them
    python3 tests/parity/run.py SCRIPT [ARGUMENT...] one, e.g. `models gqa`
    python3 tests/parity/run.py --family NAME...     what compares models, for these families

Every script ends with a line `N passed, N failed` (and `, N skipped`); the last line here is their
sum. The exit status is 1 if a check failed or a script ended without that line.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = ["formats", "quants", "models", "llamacpp", "stories", "bundled", "smollm2",
           "divergence", "templates", "templates_text", "export_check", "tokenizers_parity"]
BY_FAMILY = ["models", "llamacpp"]
CLOSING = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped(?:: .*)?)?")

# PyTorch and run.c each have OpenMP threads; those of one must not spin while the other computes.
ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"}


def run(name, arguments):
    """Passes the script's output on as it comes; returns (passed, failed, skipped)."""
    print(f"== {name}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, str(HERE / f"{name}.py"), *arguments],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", env=ENVIRONMENT)
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    status = process.wait()
    closing = CLOSING.fullmatch(last)
    print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
    if not closing:
        print(f"FAILED: {name} ended with status {status} and no closing line", flush=True)
        return 0, 1, 0
    passed, failed, skipped = (int(n or 0) for n in closing.groups())
    if status and not failed:
        print(f"FAILED: {name} ended with status {status}", flush=True)
        failed = 1
    return passed, failed, skipped


def main():
    names, arguments = SCRIPTS, sys.argv[2:]
    if sys.argv[1:2] == ["--family"]:
        names = BY_FAMILY
    elif len(sys.argv) > 1:
        names = [sys.argv[1].removesuffix(".py")]
        if names[0] not in SCRIPTS:
            print(f"run.py: no script {names[0]}; there are {' '.join(SCRIPTS)}", file=sys.stderr)
            return 2
    results = [run(name, arguments) for name in names if (HERE / f"{name}.py").exists()]
    passed, failed, skipped = (sum(column) for column in zip(*results, strict=True))
    skipped_text = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{skipped_text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
