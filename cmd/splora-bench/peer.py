"""The peer: training steps of a pruned LLaMA in PyTorch, one method per process, one JSON line on stdout.

    lora              PEFT's LoRA over the pruned base          y = x Wt + s (x At) Bt
    lora-half         the same with its adapters in the compute type, which PEFT keeps in float32 unless told otherwise
    splora-naive      the masked merge, left to autograd        y = x (M * (W + s B A))t
    splora-gc         the same, the merge alone under torch.utils.checkpoint
    splora-recompute  the same as an autograd.Function that keeps x alone and merges again in backward
    spp               SPP (Lu et al. 2024)                      y = x (W * (1 + s R(A) * b))t, each of A's 16 rows for out/16 outputs
    spp-gc            the same under torch.utils.checkpoint, its authors' choice

--recompute block checkpoints every decoder block; none keeps all activations. --dtype is that of weights and activations;
adapters and AdamW stay float32. Weights and tokens are random: a dense product takes the same time for any numbers. Time for
making the weights is reported apart, so that it can be left out. The line has the fields of `splora-bench step`, on a GPU
those of `splora-bench gpu-step`.
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
parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
parser.add_argument("--device", default="cpu")
parser.add_argument("--kv-heads", type=int, default=0)  # 0: as many as heads
parser.add_argument("--method", default="lora", choices=["lora", "lora-half", "splora-naive", "splora-gc", "splora-recompute", "spp", "spp-gc"])
arg = parser.parse_args()
began = arg.began / 1e9 or time.time()

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.set_num_threads(arg.threads)
torch.manual_seed(0)
SCALE = arg.alpha / arg.rank
GPU = arg.device.startswith("cuda")
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
    return (w + SCALE * (b @ a).to(w.dtype)) * mask


def scaled(x, w, a, b):
    factor = SCALE * a.repeat_interleave(w.shape[0] // a.shape[0], 0) * b
    return nn.functional.linear(x, w * (1 + factor.to(w.dtype)))


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
        g = g.mul_(mask).to(a.dtype)
        return dx, None, None, SCALE * (b.t() @ g), SCALE * (g @ a.t())


class Masked(nn.Module):
    """A frozen pruned linear whose adapter is merged under the mask."""

    def __init__(self, linear):
        super().__init__()
        out, width = linear.weight.shape
        self.weight = linear.weight
        self.register_buffer("mask", keep(linear.weight))
        rank, columns = (16, 1) if arg.method.startswith("spp") else (arg.rank, arg.rank)
        self.a = nn.Parameter(torch.empty(rank, width, device=arg.device).uniform_(-(width**-0.5), width**-0.5))
        self.b = nn.Parameter(torch.zeros(out, columns, device=arg.device))

    def forward(self, x):
        if arg.method == "spp":
            return scaled(x, self.weight, self.a, self.b)
        if arg.method == "spp-gc":
            return checkpoint(scaled, x, self.weight, self.a, self.b, use_reentrant=False)
        if arg.method == "splora-recompute":
            return MergeAgain.apply(x, self.weight, self.mask, self.a, self.b)
        if arg.method == "splora-gc":
            return nn.functional.linear(x, checkpoint(merge, self.weight, self.mask, self.a, self.b, use_reentrant=False))
        return nn.functional.linear(x, merge(self.weight, self.mask, self.a, self.b))


def build():
    config = transformers.LlamaConfig(
        hidden_size=arg.hidden, intermediate_size=arg.inter, num_hidden_layers=arg.layers, vocab_size=arg.vocab,
        num_attention_heads=arg.heads, num_key_value_heads=arg.kv_heads or arg.heads, max_position_embeddings=max(4096, arg.seq),
        use_cache=False, attn_implementation="sdpa")
    torch.set_default_dtype(getattr(torch, arg.dtype))
    with torch.device(arg.device):
        model = transformers.LlamaForCausalLM(config).requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    for name, linear in list(model.named_modules()):
        if name.split(".")[-1] in TARGETS:
            linear.weight.mul_(keep(linear.weight))
            if not arg.method.startswith("lora"):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, Masked(linear))
    if arg.method.startswith("lora"):
        lora = LoraConfig(r=arg.rank, lora_alpha=arg.alpha, lora_dropout=0.0, target_modules=list(TARGETS))
        model = get_peft_model(model, lora, autocast_adapter_dtype=arg.method == "lora")
    if arg.recompute == "block":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


empty, _ = memory()
at = time.time()
model = build()
linears = sum(p.numel() for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2 and not p.requires_grad)
making = time.time() - at
trained = [p for p in model.parameters() if p.requires_grad]
adam = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)

steps, work, first = [], [], 0.0
for k in range(arg.steps):
    at, worked = time.time(), time.process_time()
    ids = torch.randint(0, arg.vocab, (arg.batch, arg.seq)).to(arg.device)
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

device = {}
if GPU:
    free, total = torch.cuda.mem_get_info()
    device = dict(device=torch.cuda.get_device_name(), device_used_bytes=total - free, device_allocated_bytes=torch.cuda.max_memory_allocated())
print(json.dumps(dict(
    device, linear_weights=linears, steps_s=steps, work_s=work, first_step_s=first, making_s=making, empty_rss_bytes=empty, peak_rss_bytes=memory()[1], loss=value,
    trained_values=sum(p.numel() for p in trained), compute=arg.dtype, threads=torch.get_num_threads(),
    backend="torch " + torch.__version__, recompute=arg.recompute)))
