"""The peer: training steps of a pruned LLaMA in PyTorch, one method per process, one JSON line on stdout.

    lora              PEFT's LoRA over the pruned base          y = x Wt + s (x At) Bt
    splora-naive      the masked merge, left to autograd        y = x (M * (W + s B A))t
    splora-recompute  the same as an autograd.Function that keeps x alone and merges again in backward

--recompute block checkpoints every decoder block; none keeps all activations. Weights and tokens are random: a dense
product takes the same time for any numbers. Time for making the weights is reported apart, so that it can be left out.
The line has the fields of `splora-bench step`.
"""
import argparse
import json
import resource
import time

parser = argparse.ArgumentParser()
for name, default in dict(hidden=512, inter=1376, layers=8, heads=8, vocab=8192, seq=512, batch=1, rank=16, steps=6, threads=1, began=0).items():
    parser.add_argument("--" + name, type=int, default=default)
parser.add_argument("--alpha", type=float, default=32)
parser.add_argument("--pattern", default="2:4")
parser.add_argument("--recompute", choices=["none", "block"], default="none")
parser.add_argument("--method", choices=["lora", "splora-naive", "splora-recompute"], default="lora")
arg = parser.parse_args()
began = arg.began / 1e9 or time.time()

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

torch.set_num_threads(arg.threads)
torch.manual_seed(0)
SCALE = arg.alpha / arg.rank
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def memory():
    """Resident bytes now and at their peak."""
    try:
        with open("/proc/self/status") as f:
            rows = dict(line.split(":", 1) for line in f)
        return tuple(int(rows[k].split()[0]) * 1024 for k in ("VmRSS", "VmHWM"))
    except OSError:
        return 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def keep(weight):
    """The mask: the largest n of each m inputs, or the largest share of each row."""
    out, width = weight.shape
    if ":" in arg.pattern:
        n, m = map(int, arg.pattern.split(":"))
    else:
        n, m = round(width * (1 - float(arg.pattern))), width
    groups = weight.abs().reshape(out, width // m, m)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(-1, groups.topk(n, -1).indices, True).reshape(out, width)


def merge(w, mask, a, b):
    return (w + SCALE * (b @ a)) * mask


class MergeAgain(torch.autograd.Function):
    """y = x W~t. Neither W~ nor anything of its size lives from forward to backward."""

    @staticmethod
    def forward(ctx, x, w, mask, a, b):
        ctx.save_for_backward(x, w, mask, a, b)
        return nn.functional.linear(x, merge(w, mask, a, b))

    @staticmethod
    def backward(ctx, dy):
        x, w, mask, a, b = ctx.saved_tensors
        dx = dy @ merge(w, mask, a, b) if ctx.needs_input_grad[0] else None
        g = dy.reshape(-1, dy.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
        g.mul_(mask)
        return dx, None, None, SCALE * (b.t() @ g), SCALE * (g @ a.t())


class Masked(nn.Module):
    """A frozen pruned linear whose adapter is merged under the mask."""

    def __init__(self, linear):
        super().__init__()
        out, width = linear.weight.shape
        self.weight = linear.weight
        self.register_buffer("mask", keep(linear.weight))
        self.a = nn.Parameter(torch.empty(arg.rank, width).uniform_(-(width**-0.5), width**-0.5))
        self.b = nn.Parameter(torch.zeros(out, arg.rank))

    def forward(self, x):
        if arg.method == "splora-recompute":
            return MergeAgain.apply(x, self.weight, self.mask, self.a, self.b)
        return nn.functional.linear(x, merge(self.weight, self.mask, self.a, self.b))


def build():
    config = transformers.LlamaConfig(
        hidden_size=arg.hidden, intermediate_size=arg.inter, num_hidden_layers=arg.layers, vocab_size=arg.vocab,
        num_attention_heads=arg.heads, num_key_value_heads=arg.heads, max_position_embeddings=max(4096, arg.seq),
        use_cache=False, attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config).float().requires_grad_(False)
    for name, linear in list(model.named_modules()):
        if name.split(".")[-1] in TARGETS:
            linear.weight.mul_(keep(linear.weight))
            if arg.method != "lora":
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, Masked(linear))
    if arg.method == "lora":
        model = get_peft_model(model, LoraConfig(r=arg.rank, lora_alpha=arg.alpha, lora_dropout=0.0, target_modules=list(TARGETS)))
    if arg.recompute == "block":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


empty, _ = memory()
at = time.time()
model = build()
making = time.time() - at
trained = [p for p in model.parameters() if p.requires_grad]
adam = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)

steps, work, first = [], [], 0.0
for k in range(arg.steps):
    at, worked = time.time(), time.process_time()
    ids = torch.randint(0, arg.vocab, (arg.batch, arg.seq))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    adam.step()
    adam.zero_grad(set_to_none=True)
    value = loss.item()
    if k == 0:
        first = time.time() - began
    else:
        steps.append(time.time() - at)
        work.append(time.process_time() - worked)

print(json.dumps(dict(
    steps_s=steps, work_s=work, first_step_s=first, making_s=making, empty_rss_bytes=empty, peak_rss_bytes=memory()[1], loss=value,
    trained_values=sum(p.numel() for p in trained), compute="float32", threads=torch.get_num_threads(),
    backend="torch " + torch.__version__, recompute=arg.recompute)))
