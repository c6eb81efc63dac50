"""Writes golden.json: rows of every kind, and what transformers makes of them with a tiny byte-level BPE tokenizer.

python3 golden.py   (Python 3.11, transformers 5.23.0, tokenizers 0.23.2)

Chat labels come from transformers' assistant mask of each template with {% generation %} written around what the assistant
says; the Go side sees the template without it and must find the same tokens. The templates are written for this test, in the
manner of the models that name them.
"""
import json
from tokenizers import Tokenizer, models, pre_tokenizers, processors, decoders
from transformers import PreTrainedTokenizerFast

alphabet = pre_tokenizers.ByteLevel.alphabet()


def byte_chars():  # GPT-2's table: byte -> character
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, n = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + n)
            n += 1
    return table


BYTES = byte_chars()
pairs = []
for m in ["e|r", "i|n", " |t", "in|g", "l|l", "o|n", "\n|\n", "t|h", "th|e", "a|n", "an|d", ":|Y", " |s", "s|e", ".|B", " |\n", "r|e", ">|\n"]:
    a, b = m.split("|")
    enc = lambda s: "".join(BYTES[x] for x in s.encode())
    pairs.append((enc(a), enc(b)))
vocab = {BYTES[b]: b for b in range(256)}
for a, b in pairs:
    vocab[a + b] = len(vocab)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<think>", "</think>"]


def tokenizer(eos, template=None):
    t = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(SPECIAL)
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    f = PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token=eos)
    f.chat_template = template
    return f


G, E = "{% generation %}", "{% endgeneration %}"
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}" + G + "{{ m['content'] + '<|im_end|>' }}" + E +
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
THINKING = (
    "{%- if tools %}\n    {{- '<|im_start|>system\\n# Tools\\n' }}\n    {%- for tool in tools %}\n        {{- tool | tojson + '\\n' }}\n    {%- endfor %}\n    {{- '<|im_end|>\\n' }}\n{%- endif %}\n"
    "{%- set ns = namespace(last=messages|length - 1, search=true) %}\n"
    "{%- for m in messages[::-1] %}\n    {%- set i = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.search and m.role == 'user' and m.content is string and not(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}\n"
    "        {%- set ns.search = false %}\n        {%- set ns.last = i %}\n    {%- endif %}\n{%- endfor %}\n"
    "{%- for m in messages %}\n    {%- if m.content is string %}\n        {%- set content = m.content %}\n    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n"
    "    {%- if m.role == 'assistant' %}\n        {%- set reason = '' %}\n        {%- if '</think>' in content %}\n"
    "            {%- set reason = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
    "            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n"
    "        {{- '<|im_start|>assistant\\n' }}" + G + "\n        {%- if loop.index0 > ns.last and (loop.last or reason) %}\n"
    "            {{- '<think>\\n' + reason.strip('\\n') + '\\n</think>\\n\\n' + content }}\n        {%- else %}\n            {{- content }}\n        {%- endif %}\n"
    "        {{- '<|im_end|>' }}" + E + "{{- '\\n' }}\n    {%- else %}\n        {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}")
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set sys = false %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/assistant') }}{% endif %}"
    "{% if loop.index0 == 0 and sys != false %}{% set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}" + G +
    "{{ ' ' + content.strip() + ' ' + eos_token }}" + E + "{% endif %}{% endfor %}")
LLAMA3 = (
    "{% set loop_messages = messages %}{% for m in loop_messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}{% if m['role'] == 'assistant' %}" + G +
    "{{ m['content'] | trim + '<|eot_id|>' }}" + E + "{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}")
LLAMA31 = ("{%- if not date_string is defined %}\n    {%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n{{- bos_token }}\n"
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}\n{{- 'Today Date: ' + date_string + '\\n\\n' }}\n{{- system_message }}\n{{- '<|eot_id|>' }}\n"
    "{%- for m in messages %}\n    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}{%- if m['role'] == 'assistant' %}" + G + "{{- m['content'] | trim + '<|eot_id|>' }}" + E +
    "{%- else %}{{- m['content'] | trim + '<|eot_id|>' }}{%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n")
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set sys = messages[0]['content'] %}{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}"
    "{{- bos_token }}{%- for m in rest %}{%- if m['role'] == 'user' %}{%- if loop.last and sys is defined %}{{- '[INST] ' + sys + '\\n\\n' + m['content'] + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}{%- elif m['role'] == 'assistant' %}" + G + "{{- ' ' + m['content'] + eos_token }}" + E +
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported!') }}{%- endif %}{%- endfor %}")
FAMILIES = {
    "chatml": (CHATML, "<|im_end|>"), "chatml-other-eos": (CHATML, "</s>"), "thinking": (THINKING, "<|im_end|>"), "llama2": (LLAMA2, "</s>"),
    "llama3": (LLAMA3.replace("{% endfor %}", "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"), "<|eot_id|>"),
    "llama3-always-prompts": (LLAMA3 + "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}", "</s>"),
    "llama31": (LLAMA31, "<|eot_id|>"), "mistral": (MISTRAL, "</s>"),
}


def plain(t):
    return t.replace(G, "").replace(E, "")


u = lambda c: {"role": "user", "content": c}
a = lambda c: {"role": "assistant", "content": c}
s = lambda c: {"role": "system", "content": c}
TALKS = [
    [u("What is the sum of 1 and 2?"), a("The sum is 3.")],
    [s("Be brief and kind."), u("Hi there"), a("Hello."), u("Sing the naïve ☃ song\n\nin two lines"), a("Ring, ring\nand thing 日本")],
    [u("Same"), a("Same"), u("Same"), a("Same"), u("again?"), a("Same")],
    [u("Think"), a("<think>\nTen and ten\n</think>\n\nTwenty."), u("And more?"), a("<think>\nthe other\n</think>\n\nThirty.\n")],
    [u("  spaces around  "), a("  kept or not  "), u("last word is the user's")],
    [u("Quote </s> and <|im_end|> please"), a("A </s> and an <|im_end|> and an <|eot_id|> in text")],
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds & <sums>", "parameters": {"zeta": 1, "alpha": [True, None, 1.5]}}}]
out = {"merges": [[list(bytes([{v: k for k, v in BYTES.items()}[c] for c in x])) for x in p] for p in pairs], "special": SPECIAL, "chat": [], "rows": []}
for name, (template, eos) in FAMILIES.items():
    tok = tokenizer(eos, template)
    for talk in TALKS:
        for tools in [None, TOOLS] if name == "thinking" else [None]:
            c = {"name": name, "template": plain(template), "marked": template, "eos": eos, "messages": talk}
            if tools:
                c["tools"] = tools
            r = tok.apply_chat_template(talk, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            c["text"] = tok.apply_chat_template(talk, tools=tools, tokenize=False)
            assert c["text"] == tok.apply_chat_template(talk, tools=tools, tokenize=False, chat_template=plain(template)), name
            c["prompted"] = tok.apply_chat_template(talk, tools=tools, tokenize=False, add_generation_prompt=True)
            c["ids"] = r["input_ids"]
            c["labels"] = [i if m else -100 for i, m in zip(r["input_ids"], r["assistant_masks"])]
            out["chat"].append(c)

tok = tokenizer("</s>")
P1 = ("Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
      "appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:")
P2 = ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
      "### Instruction:\n{instruction}\n\n### Response:")


def answer(row, prompt, response):
    r = tok(prompt + response, return_offsets_mapping=True)
    ids = r["input_ids"] + [tok.eos_token_id]
    labels = [i if e > len(prompt) else -100 for i, (_, e) in zip(r["input_ids"], r["offset_mapping"])] + [tok.eos_token_id]
    out["rows"].append({"row": row, "ids": ids, "labels": labels})


for text in ["The thing and the other.", " ☃ naïve\n\n\tЖ", "x", "a </s> in text", "line\u2028separator \U0001f600"]:
    ids = tok(text)["input_ids"] + [tok.eos_token_id]
    out["rows"].append({"row": {"text": text}, "ids": ids, "labels": ids})
for p, c in [("Question: why?\nAnswer:", " Because of the thing."), ("", "no prompt"), ("ends in a merge: i", "ng and more"), ("th", "e"), ("a b ", "the"), ("naïve", "té ☃"), ("x:", "Yes")]:
    answer({"prompt": p, "completion": c}, p, c)
for r in [{"instruction": "Add.", "input": "1 and 2", "output": "3"}, {"instruction": "Sing %s %d!", "input": "", "output": "Ring\nring"}, {"instruction": "No input", "output": "Yes", "text": "ignored"}]:
    answer(r, (P1 if r.get("input") else P2).format(**r), r["output"])
# The same with a SentencePiece-style tokenizer, which begins every text with a space: pieces of a text do not tokenise alone as
# they do within it.
out["sentencepiece"] = []
tok = PreTrainedTokenizerFast(tokenizer_file="../tokenizer/testdata/llama2/tokenizer.json", bos_token="<s>", eos_token="</s>")
for name in ["llama2", "mistral"]:
    template, _ = FAMILIES[name]
    for talk in TALKS:
        r = tok.apply_chat_template(talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, chat_template=template)
        out["sentencepiece"].append({"template": plain(template), "row": {"messages": talk}, "ids": r["input_ids"],
                                     "labels": [i if m else -100 for i, m in zip(r["input_ids"], r["assistant_masks"])]})
rows = out["rows"]
out["rows"] = []
for p, c in [("Question: why?\nAnswer:", " Because of the thing."), ("ends in a word: i", "ng and more"), ("naïve", "té ☃"), ("a b ", "the")]:
    answer({"prompt": p, "completion": c}, p, c)
out["sentencepiece"] += [dict(r, template="") for r in out["rows"]]
out["rows"] = rows
json.dump(out, open("golden.json", "w"), ensure_ascii=False, separators=(",", ":"))
print(len(out["chat"]), "conversations,", len(out["rows"]), "rows")
