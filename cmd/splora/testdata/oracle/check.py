"""What splora's commands and transformers, PEFT and PyTorch make of the same folders: a table of errors.

    go build -o /tmp/splora ./cmd/splora && python cmd/splora/testdata/oracle/check.py /tmp/splora [TEXTFILE]

Versions as in oracle.py. Every family, storage type and spelling of config.json; texts through the folder's own tokenizer; prune, train,
merge and back into transformers; adapters to PEFT and from it. Exits with 1 if an error is above its limit.
"""
import json, os, shutil, subprocess, sys, tempfile, warnings

import oracle
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config, logging
from safetensors.torch import load_file

warnings.simplefilter("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
SPLORA = sys.argv[1]
TEXT = sys.argv[2] if len(sys.argv) > 2 else os.path.join(subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True).stdout.strip(), "src/strings/replace.go")
TMP = tempfile.mkdtemp()
SEQ = 48
text = open(TEXT, encoding="utf-8").read()[:6000]
failed, table = [], {}


def at(*names):
    return os.path.join(TMP, *names)


def splora(*args, code=0):
    p = subprocess.run([SPLORA, *map(str, args)], capture_output=True, text=True)
    if p.returncode != code:
        sys.exit(f"splora {' '.join(map(str, args))}: exit {p.returncode}\n{p.stdout}{p.stderr}")
    return p.stdout


def say(what, case, error, limit):
    ok = error <= limit
    n, worst, _ = table.get(what, (0, 0.0, limit))
    table[what] = (n + 1, max(worst, error), limit)
    print(f"{'ok  ' if ok else 'FAIL'}  {what:<58} {case:<34} {error:9.2e}  (limit {limit:.0e})", flush=True)
    if not ok:
        failed.append((what, case))


def rel(a, b):
    return abs(a - b) / abs(b)


def make_tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator([text], trainers.BpeTrainer(vocab_size=340, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>")


TOK = make_tokenizer()
small = dict(vocab_size=len(TOK), hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
             max_position_embeddings=160, bos_token_id=0, eos_token_id=1, pad_token_id=None, tie_word_embeddings=False)
rope = lambda **k: {"rope_parameters": k}
ARCHS = {
    "llama GQA": LlamaConfig(**small),
    "llama MHA, biases, tied": LlamaConfig(**{**small, "num_key_value_heads": 6, "tie_word_embeddings": True}, attention_bias=True, mlp_bias=True),
    "llama head_dim 10": LlamaConfig(**small, head_dim=10),
    "llama3 rope": LlamaConfig(**small, **rope(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "linear rope": LlamaConfig(**small, **rope(rope_type="linear", rope_theta=10000.0, factor=2.0)),
    "mistral window 11": MistralConfig(**small, sliding_window=11),
    "mistral no window": MistralConfig(**small, sliding_window=None),
    "qwen2 tied": Qwen2Config(**{**small, "tie_word_embeddings": True}),
    "qwen2 upper windows": Qwen2Config(**small, use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3": Qwen3Config(**small, head_dim=12),
    "qwen3 biases": Qwen3Config(**small, head_dim=8, attention_bias=True),
}


def folder(name, dtype, spelling=5, shards="50GB", seed=3):
    dir = at(f"{name} {dtype} {spelling}".replace(" ", "-").replace(",", ""))
    oracle.save(oracle.build(ARCHS[name], dtype, seed), dir, spelling, shards)
    TOK.save_pretrained(dir)
    return dir


def evaluate(dir, *more):
    return json.loads(splora("eval", "--model", dir, "--data", at("text.txt"), "--seq", SEQ, "--json", *more))["ppl"]


def reference(model):
    return oracle.perplexity(model, TOK(text)["input_ids"], SEQ)["ppl"]


def families():
    for k, name in enumerate(ARCHS):
        for j, dtype in enumerate(["float32", "bfloat16", "float16"]):
            for spelling in (4, 5):
                dir = folder(name, dtype, spelling, "60KB" if (j + spelling) % 2 else "50GB")
                model = oracle.load(dir)
                case = f"{name}, {dtype}, v{spelling}"
                say("eval of a text: perplexity against transformers", case, rel(evaluate(dir), reference(model)), 1e-4)
                prompt = TOK(text[50 * k : 50 * k + 40])["input_ids"]
                want, gap = oracle.greedy(model, prompt)
                got = json.loads(splora("generate", "--model", dir, "--ids", ",".join(map(str, prompt)), "--max-new-tokens", oracle.NEW, "--json"))["ids"]
                say("generate: greedy ids that differ from transformers'", case, sum(a != b for a, b in zip(got, want)) + abs(len(got) - len(want)) if gap > 1e-4 else 0, 0)


def pipeline():
    rows = [json.dumps({"text": text[i : i + 300]}) for i in range(0, 5700, 300)]
    open(at("train.jsonl"), "w").write("\n".join(rows) + "\n")
    samples = [TOK(text)["input_ids"][i : i + SEQ] for i in range(0, 8 * SEQ, SEQ)]
    oracle.write_rows(at("calibration.jsonl"), [{"input_ids": s} for s in samples])
    for k, name in enumerate(ARCHS):
        dtype = ["float32", "bfloat16", "float16"][k % 3]
        pattern = ["2:4", "0.5", "4:8", "0.7", "1:4"][k % 5]
        case, dense = f"{name}, {dtype}, {pattern}", folder(name, dtype)
        pruned, run, merged = (dense + x for x in ("-pruned", "-run", "-merged"))
        splora("prune", "--model", dense, "--out", pruned, "--pattern", pattern, "--calibration", at("calibration.jsonl"))
        masks(dense, pruned, samples, pattern, case)
        train(pruned, run, "splora")
        splora("merge", "--model", pruned, "--adapter", run, "--out", merged)
        verified = json.loads(splora("verify", "--base", pruned, "--merged", merged, "--json"))
        say("verify: non-zeros at pruned places", case, verified["extra"], 0)
        formula(pruned, run, merged, case)
        opened = oracle.load(merged)
        say("merged folder: transformers against splora eval", case, rel(evaluate(merged), reference(opened)), 1e-4)
        say("merged folder against base + adapter (one rounding)", case, rel(evaluate(merged), evaluate(pruned, "--adapter", run)), {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}[dtype])
        tok, ours = AutoTokenizer.from_pretrained(merged), AutoTokenizer.from_pretrained(dense)
        say("merged folder: AutoTokenizer's ids that differ", case, 0 if tok(text)["input_ids"] == ours(text)["input_ids"] else 1, 0)
        if k < 4:
            peft(pruned, run, case)


def train(pruned, run, method):
    splora("train", "--model", pruned, "--data", at("train.jsonl"), "--out", run, "--method", method, "--seq", 64, "--rank", 4, "--alpha", 10, "--lr", 0.01,
           "--max-steps", 5, "--accum", 3, "--cache-dir", at("cache"))


def masks(dense, pruned, samples, pattern, case):
    """The mask file against the published procedure; other choices only where the scores are equal to 1e-5."""
    want, bits = oracle.wanda(oracle.load(dense), samples, pattern), load_file(os.path.join(pruned, "mask.safetensors"))
    wrong = total = 0
    worst = 0.0
    for name, score in ((n[:-6], s) for n, s in want.items() if n.endswith(".score")):
        w = want[name + ".mask"]
        b = bits[name + ".mask"]
        got = ((b[:, torch.arange(w.shape[1]) // 8] >> (torch.arange(w.shape[1]) % 8)) & 1).to(torch.uint8)
        wrong, total = wrong + (got != w).sum().item(), total + w.numel()
        for i in (got != w).any(1).nonzero().flatten().tolist():
            lost, won = score[i][(got[i] < w[i])].sort()[0], score[i][(got[i] > w[i])].sort()[0]
            worst = max(worst, ((lost - won).abs() / lost).max().item() if len(lost) == len(won) else 1)
    say("wanda: mask bits that differ from PyTorch's / all", case, wrong / total, 1e-3)
    say("wanda: relative gap of the scores that were swapped", case, worst, 1e-5)


def adapter(run):
    c, t = json.load(open(os.path.join(run, "adapter_config.json"))), load_file(os.path.join(run, "adapter_model.safetensors"))
    s = c["lora_alpha"] / c["r"]
    names = sorted(n[len("base_model.model.") : -len(".lora_A.weight")] for n in t if n.endswith("lora_A.weight"))
    return {n: (t[f"base_model.model.{n}.lora_A.weight"].double(), t[f"base_model.model.{n}.lora_B.weight"].double(), s) for n in names}


def formula(pruned, run, merged, case):
    """Merged weights against M ⊙ (W + s·B·A) in float64, rounded once."""
    before, after = weights(pruned), weights(merged)
    wrong = total = 0
    for n, (a, b, s) in adapter(run).items():
        w, got = before[n + ".weight"], after[n + ".weight"]
        want = ((w != 0) * (w.double() + s * b @ a)).to(w.dtype)
        if w.dtype == torch.float32:
            wrong += (~torch.isclose(got, want, rtol=1e-5, atol=1e-7)).sum().item()
        else:
            wrong += (got != want).sum().item()
        total += w.numel()
    say("merge: weights that are not the formula's, rounded / all", case, wrong / total, 1e-3)
    say("merge: other tensors that changed", case, sum(not torch.equal(before[n], after[n]) for n in before if n[: -len(".weight")] not in adapter(run)), 0)


def weights(dir):
    out = {}
    for f in os.listdir(dir):
        if f.startswith("model") and f.endswith(".safetensors"):
            out.update(load_file(os.path.join(dir, f)))
    return out


def peft(pruned, run, case):
    """Our adapters in PEFT, and PEFT's here."""
    dense, unmarked = reference(PeftModel.from_pretrained(oracle.load(pruned), run)), run + "-unmarked"
    shutil.copytree(run, unmarked, ignore=shutil.ignore_patterns("checkpoint-*"))
    path = os.path.join(unmarked, "adapter_config.json")
    c = json.load(open(path))
    assert c.pop("splora")["masked_merge"] and c.pop("sparse_adapter")
    json.dump(c, open(path, "w"))
    say("splora adapter in PEFT, which leaves out the mask, against lora", case, rel(evaluate(pruned, "--adapter", unmarked), dense), 1e-4)
    say("and not equal to the masked one", case, 0 if dense != evaluate(pruned, "--adapter", run) else 1, 0)
    plain = run + "-lora"
    train(pruned, plain, "lora")
    say("lora adapter: PEFT against splora eval --adapter", case, rel(evaluate(pruned, "--adapter", plain), reference(PeftModel.from_pretrained(oracle.load(pruned), plain))), 1e-4)
    theirs, merged = run + "-peft", run + "-peft-merged"
    model = get_peft_model(oracle.load(pruned), LoraConfig(r=5, lora_alpha=3, use_rslora=True, target_modules=["k_proj", "o_proj", "down_proj"],
                           rank_pattern={"down_proj": 7}, alpha_pattern={"layers.1.self_attn.k_proj": 8}, task_type="CAUSAL_LM"))
    g = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_" in n:
                p.copy_(0.2 * torch.randn(p.shape, generator=g))
    model.save_pretrained(theirs)
    say("PEFT's adapter: splora eval --adapter against PEFT", case, rel(evaluate(pruned, "--adapter", theirs), reference(model)), 1e-4)
    splora("merge", "--model", pruned, "--adapter", theirs, "--out", merged)
    want, got = dict(oracle.linears(model.merge_and_unload())), weights(merged)
    wrong = total = 0
    for n, m in want.items():
        x = got[n + ".weight"]
        same = torch.isclose(x, m.weight, rtol=1e-5, atol=1e-7) if x.dtype == torch.float32 else x == m.weight.to(x.dtype)
        wrong, total = wrong + (~same).sum().item(), total + x.numel()
    say("PEFT's adapter: weights unlike merge_and_unload / all", case, wrong / total, 1e-3)


open(at("text.txt"), "w", encoding="utf-8").write(text)
families()
pipeline()
print(f"\n{'':<68} cases  largest")
for what, (n, worst, limit) in table.items():
    print(f"{what:<68} {n:5d}  {worst:.1e}")
print(f"{len(failed)} failed", failed)
sys.exit(bool(failed))
