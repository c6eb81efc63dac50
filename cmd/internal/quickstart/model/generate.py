#!/usr/bin/env python3
"""Makes the small dense LLaMA that `splora quickstart` prunes and fine-tunes.

    torchrun --nproc-per-node 2 generate.py --threads 1    # tokenizer, training (resumes from --work), this folder's model files
    python check.py                                        # perplexities: dense, pruned, fine-tuned

One process does, too (`python generate.py`); one per core waits less for the others where the machine is shared.

Made with Python 3.11.7, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, numpy 2.4.6, go1.26.8, on 2 CPU cores with AMX.
Text: the Go standard library in GOROOT/src (corpus.py, split.json), every package but the held-out ones. Tests belong to
the training text: they are the same language by the same hands and nearly double it. Generated files and cmd do not.
Each file is one document, <|begin_of_text|> ids <|end_of_text|>; documents are shuffled anew in every epoch and cut into
rows of 256 tokens, of 512 in the last steps. Tokenizer: byte-level BPE, 4096 ids, LLaMA-3's pre-tokeniser, trained on the same documents.
Optimiser: Muon (momentum 0.95, updates scaled to AdamW's RMS) for the blocks' matrices, AdamW for the tied embedding and the
norms. Learning rate: linear warm-up, constant, then linear to 0 over the last `--decay` of the steps, which is why a
checkpoint of the constant part can be finished with any --steps. Numbers are bf16 where autocast makes them so: another
CPU, or another number of processes, gives another model of the same quality. The shipped one ran its first 626 steps in
one process and the rest in two (MODEL.md).
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import corpus
import llama

SEED = corpus.split()["seeds"]["training"]
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def make_tokenizer(texts):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=llama.VOCAB, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, t.token_to_id(BOS))])
    return t


def documents(tokenizer, texts):
    """[ids]: BOS (from the template), the file, EOS."""
    eos = tokenizer.token_to_id(EOS)
    return [np.array(e.ids + [eos], dtype=np.uint16) for e in tokenizer.encode_batch(texts)]


def rows(docs, seed, T):
    """Endless rows of T+1 ids: each epoch is a new order of the documents, cut without regard to their borders."""
    epoch = 0
    rest = np.empty(0, np.uint16)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(len(docs))
        stream = np.concatenate([rest] + [docs[i] for i in order])
        n = (len(stream) - 1) // T
        for a in np.random.default_rng([seed, epoch, 1]).permutation(n) * T:
            yield stream[a : a + T + 1].astype(np.int64)
        rest = stream[n * T :]
        epoch += 1


def rate(step, steps, warmup, decay):
    """Factor of the learning rate in step 0 … steps-1."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


def batches(docs, start, args):
    """[rows, T+1] from step start on: T is half the context at first (attention is half the time), the context at last."""
    longer = round(args.steps * (1 - args.long))
    for first, end, T in ((0, longer, llama.CONTEXT // 2), (longer, args.steps, llama.CONTEXT)):
        stream, n = rows(docs, SEED + T, T), args.tokens // T
        for step in range(first, end):
            b = np.stack([next(stream) for _ in range(n)])
            if step >= start:
                yield torch.from_numpy(b)


def optimizers(model, lr, weight_decay):
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save_checkpoint(path, step, model, opts):
    aside = path.with_suffix(".part")
    torch.save({"step": step, "model": model.state_dict(), "opts": [o.state_dict() for o in opts]}, aside)
    os.replace(aside, path)


def train(docs, args):
    torch.manual_seed(SEED)
    model = llama.Llama()
    opts = optimizers(model, args.lr, args.weight_decay)
    checkpoint, start = args.work / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        start = saved["step"]
        model.load_state_dict(saved["model"])
        for o, s in zip(opts, saved["opts"]):
            o.load_state_dict(s)
    loss_of = torch.compile(model, dynamic=False) if args.compile else model
    began = published = time.time()
    mean = None
    for step, batch in enumerate(batches(docs, start, args), start):
        for o in opts:
            for group in o.param_groups:
                group["lr"] = args.lr * rate(step, args.steps, args.warmup, args.decay)
        loss = one_step(loss_of, opts, batch, args)
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        if step % 20 == 0 and dist.get_rank() == 0:
            done = (step + 1 - start) * args.tokens
            print(f"step {step} loss {mean:.4f} tokens/s {done / (time.time() - began):.0f}", flush=True)
        if time.time() - published > args.save_every and dist.get_rank() == 0:
            save_checkpoint(checkpoint, step + 1, model, opts)
            published = time.time()
    if dist.get_rank() == 0:
        save_checkpoint(checkpoint, args.steps, model, opts)
    return model


def one_step(loss_of, opts, batch, args):
    """Every process takes its share of the batch; the gradients' mean makes the same step in each."""
    params = [p for o in opts for g in o.param_groups for p in g["params"]]
    parts = batch.chunk(args.parts)[dist.get_rank() :: dist.get_world_size()]
    total = torch.zeros(())
    for b in parts:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(b[:, :-1], b[:, 1:])
        (loss / args.parts).backward()
        total += loss.detach() / args.parts
    for t in [total] + [p.grad for p in params]:
        dist.all_reduce(t)
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    for o in opts:
        o.step()
        o.zero_grad()
    return total.item()


def save(model, tokenizer, out):
    """A Hugging Face folder: config.json, generation_config.json, model.safetensors (bf16), tokenizer.json, tokenizer_config.json."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    config = LlamaConfig(
        vocab_size=llama.VOCAB, hidden_size=llama.HIDDEN, intermediate_size=llama.INNER, num_hidden_layers=llama.LAYERS,
        num_attention_heads=llama.HEADS, num_key_value_heads=llama.KV_HEADS, head_dim=llama.HEAD_DIM,
        max_position_embeddings=llama.CONTEXT, rms_norm_eps=llama.EPS, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": llama.THETA}, bos_token_id=bos, eos_token_id=eos,
        pad_token_id=eos)
    hf = LlamaForCausalLM(config)
    missing, unexpected = hf.load_state_dict(model.state_dict(), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    ids = torch.arange(2 * 37).view(2, 37) * 53 % llama.VOCAB
    with torch.no_grad():
        apart = (hf(ids).logits - model.logits(ids)).norm() / model.logits(ids).norm()
    assert apart < 1e-5, f"transformers computes other logits: {apart}"
    hf.to(torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": True, "bos_token": BOS, "clean_up_tokenization_spaces": False, "eos_token": EOS,
        "model_max_length": llama.CONTEXT, "pad_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    read = AutoTokenizer.from_pretrained(out)
    sample = "package main\n\nfunc main() {\n\tprintln(\"héllo, 世界\", 12345)\n}\n"
    assert read(sample)["input_ids"] == tokenizer.encode(sample).ids and read.decode(read(sample)["input_ids"][1:]) == sample


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, default=Path("/tmp/splora-model"), help="checkpoints and the tokenised text")
    p.add_argument("--out", type=Path, default=corpus.HERE)
    p.add_argument("--steps", type=int, default=1200)
    p.add_argument("--tokens", type=int, default=8192, help="per step")
    p.add_argument("--parts", type=int, default=2, help="micro-batches per step")
    p.add_argument("--lr", type=float, default=8e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--warmup", type=int, default=60)
    p.add_argument("--decay", type=float, default=0.4)
    p.add_argument("--long", type=float, default=0.2, help="last part of the steps, with rows of the whole context")
    p.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--no-compile", dest="compile", action="store_false")
    p.add_argument("--publish-checkpoint", action="store_true", help="write the folder from the last checkpoint, do not train")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    args.work.mkdir(parents=True, exist_ok=True)

    kept = args.work / "tokenizer.json"
    if not kept.exists() and dist.get_rank() == 0:
        tokenizer = make_tokenizer([text for _, text in corpus.read("training")])
        tokenizer.save(str(kept))
    dist.barrier()
    tokenizer = Tokenizer.from_file(str(kept))
    if args.publish_checkpoint:
        model = llama.Llama()
        model.load_state_dict(torch.load(args.work / "checkpoint.pt")["model"])
    else:
        docs = documents(tokenizer, [text for _, text in corpus.read("training")])
        print(f"{len(docs)} documents, {sum(map(len, docs))} tokens, goroot {corpus.go_env('GOVERSION')}", flush=True)
        model = train(docs, args)
    if dist.get_rank() == 0:
        save(model, tokenizer, args.out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
