package tokenizer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sort"
	"unicode/utf8"
)

// parseSentencePiece reads a tokenizer.model of the BPE kind as the tokenizer.json that it would be converted to.
// Of the protobuf message (sentencepiece_model.proto) it needs: pieces = 1 {piece = 1, score = 2, type = 3},
// trainer_spec = 2 {model_type = 3, byte_fallback = 35}, normalizer_spec = 3 {precompiled_charsmap = 2,
// add_dummy_prefix = 3, remove_extra_whitespaces = 4}.
func parseSentencePiece(data []byte) (*spec, error) {
	p := spModel{dummyPrefix: true, trimSpaces: true, modelType: 1}
	if err := protoFields(data, p.field); err != nil {
		return nil, err
	}
	switch {
	case p.modelType != 2:
		return nil, fmt.Errorf("trainer_spec.model_type %d is not supported (known: 2, BPE)", p.modelType)
	case len(p.charsmap) > 0:
		return nil, errors.New("normalizer_spec.precompiled_charsmap is not supported (known: none, the identity)")
	case p.trimSpaces:
		return nil, errors.New("normalizer_spec.remove_extra_whitespaces is not supported")
	case len(p.pieces) == 0 || len(p.pieces) > maxID:
		return nil, fmt.Errorf("holds %d pieces", len(p.pieces))
	}
	return p.spec()
}

type spModel struct {
	pieces                                []spPiece
	charsmap                              []byte
	modelType                             uint64
	byteFallback, dummyPrefix, trimSpaces bool
}

type spPiece struct {
	text  string
	score float32
	kind  uint64
}

// Kinds of pieces.
const (
	spUnknown = 2
	spControl = 3
	spUser    = 4
)

func (p *spModel) field(number int, n uint64, data []byte) error {
	switch number {
	case 1:
		q := spPiece{kind: 1}
		p.pieces = append(p.pieces, q)
		return protoFields(data, p.pieces[len(p.pieces)-1].field)
	case 2:
		return protoFields(data, func(number int, n uint64, _ []byte) error {
			switch number {
			case 3:
				p.modelType = n
			case 35:
				p.byteFallback = n != 0
			}
			return nil
		})
	case 3:
		return protoFields(data, func(number int, n uint64, data []byte) error {
			switch number {
			case 2:
				p.charsmap = data
			case 3:
				p.dummyPrefix = n != 0
			case 4:
				p.trimSpaces = n != 0
			}
			return nil
		})
	}
	return nil
}

func (q *spPiece) field(number int, n uint64, data []byte) error {
	switch number {
	case 1:
		if q.text = string(data); !utf8.Valid(data) {
			return fmt.Errorf("the piece %q is not UTF-8", data)
		}
	case 2:
		q.score = math.Float32frombits(uint32(n))
	case 3:
		q.kind = n
	}
	return nil
}

// spec writes the model as the sections of a tokenizer.json.
func (p *spModel) spec() (*spec, error) {
	s := &spec{llama: true, model: modelSpec{Type: "BPE", FuseUnk: true, ByteFallback: p.byteFallback, vocab: map[string]int32{}}}
	raw := false
	for id, q := range p.pieces {
		s.model.vocab[q.text] = int32(id)
		if q.kind == spUnknown {
			s.model.Unk = q.text
		}
		if q.kind == spUnknown || q.kind == spControl || q.kind == spUser {
			s.added = append(s.added, addedToken{ID: int32(id), Content: q.text, Special: q.kind != spUser, Normalized: &raw})
		}
	}
	s.model.spMerges(p.pieces)
	prepend, strip := "", ""
	if p.dummyPrefix {
		prepend = `{"type":"Prepend","prepend":"▁"},`
		strip = `,{"type":"Strip","content":" ","start":1,"stop":0}`
	}
	s.normalizer = json.RawMessage(`{"type":"Sequence","normalizers":[` + prepend +
		`{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}`)
	s.decoder = json.RawMessage(`{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},` +
		`{"type":"ByteFallback"},{"type":"Fuse"}` + strip + `]}`)
	return s, nil
}

// spMerges ranks all ways to make a piece of two others: by the piece's score, then by the lengths, longer first.
func (m *modelSpec) spMerges(pieces []spPiece) {
	type way struct {
		left, right, result int32
		score               float32
		lenLeft, lenRight   int
	}
	var ways []way
	for id, q := range pieces {
		if q.kind == spUnknown || q.kind == spControl {
			continue
		}
		length, at := utf8.RuneCountInString(q.text), 0
		from := len(ways)
		for i := range q.text {
			left, ok1 := m.vocab[q.text[:i]]
			right, ok2 := m.vocab[q.text[i:]]
			if i > 0 && ok1 && ok2 {
				ways = append(ways, way{left, right, int32(id), q.score, at, length - at})
			}
			at++
		}
		own := ways[from:]
		sort.Slice(own, func(i, j int) bool {
			return own[i].left < own[j].left || own[i].left == own[j].left && own[i].right < own[j].right
		})
	}
	sort.SliceStable(ways, func(i, j int) bool {
		a, b := &ways[i], &ways[j]
		switch {
		case a.score != b.score:
			return a.score > b.score
		case a.lenLeft != b.lenLeft:
			return a.lenLeft > b.lenLeft
		}
		return a.lenRight > b.lenRight
	})
	for _, w := range ways {
		m.merges = append(m.merges, [2]int32{w.left, w.right})
		m.results = append(m.results, w.result)
	}
}

// protoFields calls visit for each field of a protobuf message: n holds a number, data the bytes of the others.
func protoFields(data []byte, visit func(number int, n uint64, data []byte) error) error {
	broken := errors.New("is no SentencePiece model: broken protobuf message")
	for len(data) > 0 {
		key, used := binary.Uvarint(data)
		if used <= 0 {
			return broken
		}
		data = data[used:]
		n, used, body := uint64(0), 0, []byte(nil)
		switch key & 7 {
		case 0:
			n, used = binary.Uvarint(data)
		case 1:
			if used = 8; len(data) >= 8 {
				n = binary.LittleEndian.Uint64(data)
			}
		case 2:
			size, m := binary.Uvarint(data)
			if m <= 0 || size > uint64(len(data)-m) {
				return broken
			}
			used = m + int(size)
			body = data[m:used]
		case 5:
			if used = 4; len(data) >= 4 {
				n = uint64(binary.LittleEndian.Uint32(data))
			}
		}
		if used <= 0 || used > len(data) {
			return broken
		}
		if err := visit(int(key>>3), n, body); err != nil {
			return err
		}
		data = data[used:]
	}
	return nil
}
