"""Adapters as PEFT writes them, for the tests; and a check that PEFT reads ours.

    python make.py                # writes lora/, rslora/, dora/ and golden.json beside this file
    python make.py check DIR      # loads the adapter in DIR (as TestAnAdapterSurvives… writes it) with PEFT and prints its scales

torch 2.15.0, transformers 5.23.0, peft 0.21.2
"""
import hashlib, json, os, shutil, sys, warnings
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from peft import LoraConfig, PeftModel, get_peft_model

here = os.path.dirname(os.path.abspath(__file__))
config = LlamaConfig(vocab_size=17, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)


def base():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def facts(m):
    out = {}
    for n, p in m.named_modules():
        if hasattr(p, "lora_A") and "default" in p.lora_A:
            a, b = p.lora_A["default"].weight, p.lora_B["default"].weight
            sha = lambda t: hashlib.sha256(t.detach().float().contiguous().numpy().astype("<f4").tobytes()).hexdigest()
            out[n.removeprefix("base_model.model.")] = {"scale": p.scaling["default"], "a": list(a.shape), "b": list(b.shape), "sha_a": sha(a), "sha_b": sha(b)}
    return out


if sys.argv[1:2] == ["check"]:
    warnings.simplefilter("always")
    print(json.dumps(facts(PeftModel.from_pretrained(base(), sys.argv[2])), indent=1))
    sys.exit()

golden = {}
for name, c in {
    "lora": LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "down_proj", "up_proj"], task_type="CAUSAL_LM",
                       rank_pattern={r"layers\.1\.self_attn\.q_proj": 2, "up_proj": 3}, alpha_pattern={"down_proj": 20}),
    "rslora": LoraConfig(r=3, lora_alpha=6, use_rslora=True, target_modules="all-linear", init_lora_weights="gaussian"),
    "dora": LoraConfig(r=2, target_modules=["v_proj"], use_dora=True),
}.items():
    m = get_peft_model(base(), c)
    with torch.no_grad():
        for n, p in m.named_parameters():
            if "lora_B" in n:
                p.normal_()
    if name == "rslora":
        m = m.half()
    dir = os.path.join(here, name)
    shutil.rmtree(dir, ignore_errors=True)
    m.save_pretrained(dir)
    os.remove(os.path.join(dir, "README.md"))
    golden[name] = facts(m)
json.dump(golden, open(os.path.join(here, "golden.json"), "w"), indent=1)
