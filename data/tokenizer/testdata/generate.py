"""Makes the small tokenizers and the golden ids of this folder.

    python3 generate.py        (in this folder)

Python 3.11, tokenizers 0.23.3, transformers 5.23.0, sentencepiece 0.2.3. The result depends on these versions only.
"""
import io, json, os, random, sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from compare import EMOJI, SPACES, WORDS, random_text

TEXT = """
The quick brown fox doesn't jump over the lazy dogs; they'll say it's what we've done, I'm sure. HELLO World 2024!
func main() {\n\tfor i := 0; i < 100; i++ {\n\t\tfmt.Println("i =", i)\n\t}\n}\n\nreturn nil, fmt.Errorf("x: %w", err)
Größe, naïve, façade, Ångström, Tiếng Việt, Język polski, Türkçe, Αλφάβητο, Привет мир, שלום עולם, مرحبا بالعالم, नमस्ते दुनिया
你好世界，今天天气很好。日本語のテキスト、カタカナ。한국어 텍스트입니다 안녕하세요 สวัสดีชาวโลก ▁ 👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️ 😀😀
1234567 3.14159 0xFF 10,000 1/2 ½ ² a=b; c==d; e!=f    four    spaces\r\n\r\nthe end of the line of the text
""" * 3

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
OTHER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{M}]+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def texts():
    out = ["", " ", "  a", "a ", "Hello world!", " Hello  world", "'s'S'ſ 'LL we'll", "<s>a</s> <s> b", "x<|end|>y", "\0\x01\x7f"]
    out += ["".join(EMOJI), " ".join(WORDS), "x".join(SPACES), "".join(SPACES), "中" * 90, "the " * 40, "=" * 150, "\u0301\u0323" * 40]
    out += ["e\u0301\u0323 q\u0307\u0323 \u212b ﬁ \u1112\u1161\u11ab \u0344 \u0958 a\u0898\u0323", "a<b>c <b> d\t<b>\ne", "foo DAY today day  day\n Day", "ab_sw_ sw sw. sws"]
    rng = random.Random(2)
    out += [random_text(rng)[:70] for _ in range(40)]
    return out


def train(pre, special, size=420, normalizer=None, alphabet=None, **model):
    t = Tokenizer(models.BPE(**model))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet or [], show_progress=False)
    t.train_from_iterator(TEXT.split("\n\n"), trainer)
    return t


def byte_level(pattern=None, normalizer=None, special=(), prefix=False, **model):
    if pattern is None:
        pre = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    else:
        pre = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t = train(pre, list(special), 560, normalizer, pre_tokenizers.ByteLevel.alphabet(), **model)
    t.decoder = decoders.ByteLevel()
    return t


def template(bos, bos_id, eos=None, eos_id=None):
    special = [(bos, bos_id)] + ([(eos, eos_id)] if eos else [])
    return processors.TemplateProcessing(single=f"{bos} $A" + (f" {eos}" if eos else ""), special_tokens=special)


def sentencepiece_like(form):
    special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    n = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t = train(pre_tokenizers.Metaspace("▁", "never"), special, 560, n, byte_fallback=form != "unk", fuse_unk=True, unk_token="<unk>")
    j = json.loads(t.to_str())
    j["pre_tokenizer"] = None
    j["added_tokens"] = j["added_tokens"][:3]
    j["post_processor"] = json.loads(Tokenizer(models.BPE()).to_str())["post_processor"]
    if form == "metaspace":
        j["normalizer"] = None
        j["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    if form == "unk":  # unknown characters stay unknown; the words are cut
        j["normalizer"] = None
        j["model"]["byte_fallback"] = False
        j["model"]["fuse_unk"] = False
        j["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
        j["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    t = Tokenizer.from_str(json.dumps(j))
    t.post_processor = template("<s>", 1, "</s>" if form == "metaspace" else None, 2)
    if form != "unk":
        t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return t


def few_bytes():
    """A byte-level model that knows few bytes, with an unknown token."""
    t = train(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<unk>"], 200, None, list("aetĠ"), unk_token="<unk>", fuse_unk=True)
    j = json.loads(t.to_str())
    kept = {k: v for k, v in j["model"]["vocab"].items() if k == "<unk>" or all(c in "abcdefghijklmnopqrstuvwxyzĠ" for c in k)}
    j["model"]["vocab"] = {k: i for i, k in enumerate(kept)}
    j["model"]["merges"] = [m for m in j["model"]["merges"] if all(x in kept for x in (m[0], m[1], m[0] + m[1]))]
    t = Tokenizer.from_str(json.dumps(j))
    t.decoder = decoders.ByteLevel()
    return t


def affixes():
    """The oldest kind: marks at the beginning or the end of words."""
    t = train(pre_tokenizers.Whitespace(), ["<unk>"], 330, None, unk_token="<unk>", continuing_subword_prefix="#", end_of_word_suffix="</w>")
    t.decoder = decoders.BPEDecoder("</w>")
    return t


def added():
    t = byte_level(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), special=["<s>"])
    t.add_special_tokens([AddedToken("<b>", lstrip=True, rstrip=True, special=True), AddedToken("<|end|>", special=True)])
    t.add_tokens([AddedToken("Day", normalized=True), AddedToken("sw", single_word=True, normalized=False),
                  AddedToken("ﬁ", normalized=False, rstrip=True), AddedToken("</s>", lstrip=True, normalized=False), AddedToken("==", normalized=False),
                  AddedToken("====", normalized=False), AddedToken("a=b", normalized=True)])
    t.post_processor = processors.Sequence([processors.ByteLevel(), template("<s>", 0, "<|end|>", t.token_to_id("<|end|>"))])
    return t


def families():
    gpt2 = byte_level(special=["<|end|>"])
    prefixed = byte_level(prefix=True, special=["<s>", "</s>"])
    prefixed.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    llama3 = byte_level(LLAMA3, special=["<|end|>"], ignore_merges=True)
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<|end|>", 0)])
    j = json.loads(llama3.to_str())  # a word of the vocabulary that no merge makes
    j["model"]["vocab"]["Ġquickest"] = max(j["model"]["vocab"].values()) + 1
    llama3 = Tokenizer.from_str(json.dumps(j))
    return {
        "gpt2": gpt2, "roberta": prefixed, "llama3": llama3, "qwen2": byte_level(QWEN2, normalizers.NFC(), special=["<|end|>"]),
        "otherregex": byte_level(OTHER, special=["<|end|>"]), "added": added(), "llama2": sentencepiece_like("normalizer"),
        "metaspace": sentencepiece_like("metaspace"), "unk": sentencepiece_like("unk"),
        "fewbytes": few_bytes(), "affixes": affixes(),
    }


def legacy_merges(text):
    """Merges as "a b", as tokenizers before 0.20 wrote them."""
    j = json.loads(text)
    j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]
    return json.dumps(j, ensure_ascii=True)


def golden(t, docs):
    out = []
    for d in docs:
        ids, special = t.encode(d, add_special_tokens=False).ids, t.encode(d, add_special_tokens=True).ids
        at = next((k for k in range(len(special) - len(ids) + 1) if special[k:k + len(ids)] == ids), 0)
        text, bare = t.decode(ids, skip_special_tokens=False), t.decode(special, skip_special_tokens=True)
        g = {"ids": ids, "before": special[:at], "after": special[at + len(ids):]}
        if text != d:
            g["text"] = text
        if bare != text:
            g["bare"] = bare
        out.append(g)
    return out


PIECES = [  # pre-tokenizers and normalizers, tried on the model of gpt2
    {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [p, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}}
    for p in [{"type": "Split", "pattern": {"Regex": r"\d|[a-c]+|\s"}, "behavior": b, "invert": i}
              for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)] + [
        {"type": "Split", "pattern": {"String": "o"}, "behavior": "MergedWithPrevious", "invert": False},
        {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False},
        {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Removed", "invert": True},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ]
] + [{"normalizer": n} for n in [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Replace", "pattern": {"Regex": r"[\s,]+"}, "content": " "}, {"type": "Replace", "pattern": {"String": "'"}, "content": ""},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "a"}]},
]]


def pieces(base, docs):
    out = []
    for change in PIECES:
        j = json.loads(base)
        j.update(change)
        t = Tokenizer.from_str(json.dumps(j))
        out.append({"change": change, "ids": [t.encode(d, add_special_tokens=False).ids for d in docs]})
    return out


def decoder_cases():
    lists = [["▁Hello", "▁wor", "ld", "▁"], ["  a  ", " b ", "c"], ["<0xE2>", "<0x82>", "<0xAC>", "x", "<0xE2>", "<0x82>", "<0xZZ>"],
             ["Ġa", "ð", "ŁĺĢ", "é", "中"], ["low</w>", "er", "</w>"], ["aab", "ba"], []]
    kinds = [decoders.ByteLevel(), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 2), decoders.Strip("a", 2, 0), decoders.Replace("a", "xy"),
             decoders.Replace(Regex("[ab]+"), "-"), decoders.Metaspace("▁", "always"), decoders.Metaspace("▁", "never"), decoders.BPEDecoder("</w>"),
             decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])]
    t, out = Tokenizer(models.BPE()), []
    for d in kinds:
        t.decoder = d
        j = json.loads(t.to_str())["decoder"]
        ok = [l for l in lists if not (j["type"] == "Strip" and any(len(x) < j["stop"] for x in l)) and (l or j["type"] != "BPEDecoder")]  # those panic
        out.append({"decoder": j, "tokens": ok, "texts": [d.decode(l) for l in ok]})
    return out


def sentencepiece_model(docs):
    """A tokenizer.model, and the ids of the tokenizer that transformers' rules make of it."""
    model = io.BytesIO()
    lines = [l for l in TEXT.split("\n") if l.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=700, byte_fallback=True, character_coverage=0.98,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, num_threads=1,
        allow_whitespace_only_pieces=True, user_defined_symbols=["<|end|>"], minloglevel=2)
    os.makedirs("sentencepiece", exist_ok=True)
    open("sentencepiece/tokenizer.model", "wb").write(model.getvalue())
    from transformers.convert_slow_tokenizer import generate_merges
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scores = {sp.id_to_piece(i): sp.get_score(i) for i in range(sp.get_piece_size())}
    vocab = {p: i for i, p in enumerate(scores)}
    merges = generate_merges(vocab, scores, skip_tokens=["<unk>", "<s>", "</s>"])
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ("<unk>", "<s>", "</s>")])
    t.add_tokens([AddedToken("<|end|>", normalized=False)])
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = template("<s>", 1)
    plain = [d for d in docs if not any(s in d for s in ("<unk>", "<s>", "</s>", "<|end|>", "<0x", "\0", "▁", "\u2581"))]
    other = [d for d in plain if d and sp.encode(d) != t.encode(d, add_special_tokens=False).ids]
    print("sentencepiece itself differs from its conversion on", len(other), "of", len(plain), [ascii(o)[:60] for o in other])
    return golden(t, docs)


def dump(path, value):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def main():
    docs = texts()
    dump("texts.json", docs)
    for name, t in families().items():
        text = t.to_str()
        if name in ("qwen2", "llama2"):
            text = legacy_merges(text)
            t = Tokenizer.from_str(text)
        os.makedirs(name, exist_ok=True)
        open(f"{name}/tokenizer.json", "w", encoding="utf-8").write(text + "\n")
        dump(f"{name}/golden.json", golden(t, docs))
        if name == "gpt2":
            pick = (5, 6, 11, 13, 17, 26, 35)
            dump("pieces.json", {"texts": pick, "cases": pieces(text, [docs[k] for k in pick])})
    dump("decoders.json", decoder_cases())
    dump("sentencepiece/golden.json", sentencepiece_model(docs))


main()
