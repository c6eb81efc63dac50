// Package tokenizer turns text into token ids and back, as the tokenizer.json of a Hugging Face folder says.
//
//	text ─ added tokens cut out ─ normalise ─ cut into words ─ byte pair encoding ─ special tokens around ─► ids
//
// Byte pair encoding starts from the characters of a word (or its bytes, written in a visible alphabet) and joins, as
// long as it can, the two neighbours whose joining was learnt first. Everything else exists to find the words.
//
// The ids are those of Hugging Face tokenizers, for byte-level models (GPT-2, LLaMA 3, Qwen) and for SentencePiece
// models with byte fallback (LLaMA 2, Mistral), of what the file says: its truncation and padding sections are not applied,
// and neither is what transformers changes after reading it (its LlamaTokenizer 5.x puts a Metaspace pre-tokenizer in the
// place of LLaMA 2's normalizer, so that " a" becomes one ▁ fewer). Text that is not UTF-8 is read as Python reads it with
// errors="replace": U+FFFD for each broken part.
//
// The pre-tokenisers of GPT-2, LLaMA 3 and Qwen are scanners written by hand; other patterns run on a backtracking engine,
// an order of magnitude slower and with the letters of Unicode 15 instead of 16.
package tokenizer

import (
	"fmt"
	"strings"
	"sync"
)

// Tokenizer maps text to ids and ids to text. It is safe for concurrent use.
type Tokenizer struct {
	model      *bpe
	added      map[string]int32
	addedByID  map[int32]*addedToken
	decoded    map[int32]string // text of added tokens, normalised where they are looked for in normalised text
	raw        matcher          // added tokens looked for in the text as it comes
	normed     matcher          // and in the normalised text
	normalize  []normalizer
	pre        preTokenizer
	template   template
	decoders   []decoder
	hasDecoder bool
	vocabSize  int
	bos        firstID
	eos        firstID
	pad        firstID
	chat       string
	named      map[string]string
	scratch    sync.Pool
}

// Parse builds a tokenizer from the bytes of tokenizer.json and, unless nil, of tokenizer_config.json.
func Parse(tokenizerJSON, tokenizerConfigJSON []byte) (*Tokenizer, error) {
	c, err := parseConfig(tokenizerConfigJSON)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer_config.json: %w", err)
	}
	t, err := parse(tokenizerJSON, c)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.json: %w", err)
	}
	return t, nil
}

func parse(data []byte, c *config) (*Tokenizer, error) {
	s, err := parseSpec(data)
	if err != nil {
		return nil, err
	}
	return build(s, c)
}

func build(s *spec, c *config) (*Tokenizer, error) {
	c.complete()
	t := &Tokenizer{model: newBPE(s.model), chat: string(c.ChatTemplate), named: c.named, hasDecoder: !isNull(s.decoder)}
	t.scratch.New = func() any { return new(scratch) }
	var err error
	if t.normalize, err = newNormalizers(s.normalizer, "normalizer"); err != nil {
		return nil, err
	}
	if t.pre, err = newPreTokenizer(s.preTokenizer); err != nil {
		return nil, err
	}
	if t.decoders, err = newDecoders(s.decoder, "decoder"); err != nil {
		return nil, err
	}
	if err = t.addTokens(s, c); err != nil {
		return nil, err
	}
	if !t.pre.byteLevel {
		t.model.cuts = newCutTable(t.model)
	}
	t.model.merges, t.model.results = nil, nil
	if err = t.setTemplate(s, c); err != nil {
		return nil, err
	}
	t.bos, t.eos, t.pad = t.find(c.BOS, c.BOSID), t.find(c.EOS, c.EOSID), t.find(c.Pad, c.PadID)
	return t, nil
}

// addTokens registers the file's added tokens, then those that only the configuration knows.
func (t *Tokenizer) addTokens(s *spec, c *config) error {
	tokens, listed := s.added, make(map[string]bool)
	for _, a := range tokens {
		listed[a.Content] = true
	}
	more, err := c.addedTokens()
	if err != nil {
		return err
	}
	for _, special := range []specialToken{c.BOS, c.EOS, c.Unk, c.Pad} {
		if _, ok := s.model.vocab[string(special)]; ok {
			more = append(more, addedToken{Content: string(special), Special: true})
		}
	}
	for _, a := range more {
		if !listed[a.Content] {
			listed[a.Content] = true
			tokens = append(tokens, a)
		}
	}
	t.added, t.addedByID, t.decoded = map[string]int32{}, map[int32]*addedToken{}, map[int32]string{}
	t.vocabSize = len(t.model.tokens)
	resolved := resolveAdded(tokens, s.model.vocab)
	for i := range resolved {
		t.addToken(&resolved[i])
	}
	return nil
}

func (t *Tokenizer) addToken(a *addedToken) {
	t.added[a.Content], t.addedByID[a.ID], t.decoded[a.ID] = a.ID, a, a.Content
	t.vocabSize = max(t.vocabSize, int(a.ID)+1)
	if a.normalized() {
		t.decoded[a.ID] = t.normalized(a.Content)
		t.normed.add(t.decoded[a.ID], a)
	} else {
		t.raw.add(a.Content, a)
	}
}

func (t *Tokenizer) setTemplate(s *spec, c *config) error {
	templates, err := newTemplates(s.postProcessor, "post_processor")
	if err != nil {
		return err
	}
	t.template = nest(templates)
	if s.llama {
		t.template = t.llamaTemplate(c)
	}
	for _, id := range append(append([]int32(nil), t.template.before...), t.template.after...) {
		if id < 0 || int(id) >= t.vocabSize {
			return fmt.Errorf("post_processor adds the id %d, which is not in the vocabulary of %d", id, t.vocabSize)
		}
	}
	return nil
}

// find is the id of a special token by name, else by the id that the configuration gives.
func (t *Tokenizer) find(name specialToken, given firstID) firstID {
	if id, ok := t.ID(string(name)); ok && name != "" {
		return firstID{id, true}
	}
	given.ok = given.ok && given.id >= 0 && int(given.id) < t.vocabSize
	return given
}

func (t *Tokenizer) normalized(s string) string {
	for _, n := range t.normalize {
		if s != "" {
			s = n(s)
		}
	}
	return s
}

// Encode gives the ids of text; special adds the special tokens of the post-processor (BOS, …). Special tokens that
// are written in the text become their ids either way.
func (t *Tokenizer) Encode(text string, special bool) []int32 {
	return t.EncodeAppend(make([]int32, 0, len(text)/3+4), text, special)
}

// EncodeAppend appends the ids of text to dst.
func (t *Tokenizer) EncodeAppend(dst []int32, text string, special bool) []int32 {
	text = validUTF8(text)
	sc := t.scratch.Get().(*scratch)
	if special {
		dst = append(dst, t.template.before...)
	}
	id := func(id int32) { dst = append(dst, id) }
	t.raw.split(text, func(part string, lo int) {
		t.normed.split(t.normalized(part), func(part string, normLo int) {
			dst = t.encodePart(dst, part, lo == 0 && normLo == 0, sc)
		}, id)
	}, id)
	if special {
		dst = append(dst, t.template.after...)
	}
	if cap(sc.links) < maxKept && cap(sc.ids) < maxKept && cap(sc.pieces) < maxKept {
		t.scratch.Put(sc)
	}
	return dst
}

// maxKept is the size from which working memory is given back instead of kept for the next call.
const maxKept = 1 << 18

// encodePart appends the ids of normalised text without added tokens.
func (t *Tokenizer) encodePart(dst []int32, s string, first bool, sc *scratch) []int32 {
	if len(t.pre.stages) == 0 {
		return t.encodeWords(dst, s, sc)
	}
	for _, p := range t.pre.run(s, first, sc) {
		dst = t.encodeWords(dst, p.text, sc)
	}
	return dst
}

func (t *Tokenizer) encodeWords(dst []int32, s string, sc *scratch) []int32 {
	if t.pre.words == nil {
		if t.pre.byteLevel {
			return t.model.word(dst, s, true, sc)
		}
		return t.model.text(dst, s, sc)
	}
	for i := 0; i < len(s); {
		end := t.pre.words(s, i)
		if t.pre.byteLevel {
			dst = t.model.word(dst, s[i:end], true, sc)
		} else {
			dst = t.model.text(dst, s[i:end], sc)
		}
		i = end
	}
	return dst
}

// Decode gives the text of ids; skipSpecial leaves special tokens out. Ids without a token are left out, too, and
// bytes that make no character become U+FFFD.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		token, ok := t.decoded[id]
		if !ok {
			if token, ok = t.modelToken(id); !ok {
				continue
			}
		}
		if a := t.addedByID[id]; !skipSpecial || a == nil || !a.Special {
			tokens = append(tokens, token)
		}
	}
	if !t.hasDecoder {
		return strings.Join(tokens, " ")
	}
	for _, d := range t.decoders {
		tokens = d(tokens)
	}
	return strings.Join(tokens, "")
}

func (t *Tokenizer) modelToken(id int32) (string, bool) {
	if id < 0 || int(id) >= len(t.model.tokens) {
		return "", false
	}
	token := t.model.tokens[id]
	if token != "" {
		return token, true
	}
	given, ok := t.model.vocab[""]
	return "", ok && given == id
}

// Token is the vocabulary's string for id, "" if there is none.
func (t *Tokenizer) Token(id int32) string {
	if a := t.addedByID[id]; a != nil {
		return a.Content
	}
	token, _ := t.modelToken(id)
	return token
}

// Has tells whether id is that of a token.
func (t *Tokenizer) Has(id int32) bool {
	_, ok := t.modelToken(id)
	return ok || t.addedByID[id] != nil
}

// ID is the id of a vocabulary string.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.added[token]; ok {
		return id, true
	}
	id, ok := t.model.vocab[token]
	return id, ok
}

// VocabSize is the largest id + 1, added tokens included.
func (t *Tokenizer) VocabSize() int { return t.vocabSize }

// BOS is the token that begins a sequence, by the configuration.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos.id, t.bos.ok }

// EOS is the token that ends a sequence, by the configuration.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos.id, t.eos.ok }

// Pad is the token that fills sequences up, by the configuration.
func (t *Tokenizer) Pad() (int32, bool) { return t.pad.id, t.pad.ok }

// ChatTemplate is the Jinja source of the chat template, "" if there is none.
func (t *Tokenizer) ChatTemplate() string { return t.chat }

// SpecialTokens are the special tokens that the configuration names, by those names: bos_token, …; what transformers gives
// to chat templates. It is not to be changed.
func (t *Tokenizer) SpecialTokens() map[string]string { return t.named }
