"""The text: Go's standard library as it lies in GOROOT, split by package as split.json says.

training   every package that is not held out, with its tests   the tokenizer and the dense model
fine_tune  some of the training packages, without tests         fine-tuning and calibration
held_out   packages that neither has ever seen, without tests   perplexity
"""

import json
import os
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
GENERATED = re.compile(r"^// Code generated .* DO NOT EDIT\.$", re.M)
PACKAGE = re.compile(r"^package ", re.M)


def split():
    return json.loads((HERE / "split.json").read_text())


def go_env(name):
    return subprocess.check_output(["go", "env", name], text=True).strip()


def is_generated(text):
    clause = PACKAGE.search(text)
    return bool(GENERATED.search(text[: clause.start()] if clause else text))


def read(part):
    """[(path, text)] of part ("training", "fine_tune" or "held_out"), in bytewise order of the path."""
    s = split()
    src = Path(go_env("GOROOT")) / "src"
    held_out = set(s["held_out"])
    files = []
    for folder, below, names in os.walk(src):
        here = Path(folder).relative_to(src).as_posix()
        skip = s["rules"]["exclude_dirs"]
        below[:] = [d for d in below if d not in skip]
        if part == "training":
            wanted = here not in held_out
        else:
            wanted = here in s[part]
        if not wanted:
            continue
        for name in names:
            if not name.endswith(".go") or (part != "training" and name.endswith("_test.go")):
                continue
            raw = (Path(folder) / name).read_bytes()
            if len(raw) > s["rules"]["max_file_bytes"]:
                continue
            text = raw.decode("utf-8", errors="replace")
            if not is_generated(text):
                files.append((name if here == "." else f"{here}/{name}", text))
    return sorted(files, key=lambda f: f[0].encode())
