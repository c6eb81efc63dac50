package data

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// file writes a file to a directory of the test and returns its path.
func file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if strings.HasSuffix(name, ".gz") {
		var b strings.Builder
		z := gzip.NewWriter(&b)
		z.Write([]byte(content))
		z.Close()
		content = b.String()
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func open1(t testing.TB, c Config, tok Tokenizer) *Set {
	t.Helper()
	s, err := Open(context.Background(), c, tok)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tokensOf returns the tokens of all rows.
func tokensOf(s *Set) (out [][]int32) {
	for i := range s.Len() {
		out = append(out, slices.Clone(s.Row(i).Tokens))
	}
	return out
}

func same(a, b [][]int32) bool { return slices.EqualFunc(a, b, slices.Equal[[]int32]) }

// ids returns pre-tokenised rows of the given lengths whose ids are all different.
func ids(lengths ...int) string {
	var b strings.Builder
	next := 0
	for _, n := range lengths {
		b.WriteString(`{"input_ids":[`)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprint(&b, next)
			next++
		}
		b.WriteString("]}\n")
	}
	return b.String()
}

func TestFilesOfAllFormsGiveTheSameRows(t *testing.T) {
	rows := []string{`{"input_ids":[1,2,3]}`, `{"input_ids":[4,5]}`, `{"input_ids":[6,7,8,9]}`}
	lines := strings.Join(rows, "\n")
	want := [][]int32{{1, 2, 3}, {4, 5}, {6, 7, 8, 9}}
	for name, content := range map[string]string{
		"a.jsonl": lines, "b.jsonl": lines + "\n", "c.jsonl": "\ufeff" + strings.ReplaceAll(lines, "\n", "\r\n\r\n"), "d.jsonl.gz": lines,
		"e.json": "[\n" + strings.Join(rows, ",\n") + "]\n", "f.json": lines, "g.JSON.GZ": "[" + strings.Join(rows, ",") + "]", "h.ndjson": lines,
	} {
		if strings.HasSuffix(name, ".GZ") {
			name = strings.ToLower(name)
		}
		if got := tokensOf(open1(t, Config{Files: []string{file(t, name, content)}, Seq: 8, VocabSize: 10}, nil)); !same(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	two := []string{file(t, "x.jsonl", rows[0]), file(t, "y, z.jsonl", rows[1]+"\n"+rows[2])}
	if got := tokensOf(open1(t, Config{Files: two, Seq: 8, VocabSize: 10}, nil)); !same(got, want) {
		t.Errorf("two files: %v", got)
	}
}

func TestAPlainTextFileIsOneDocumentCutInBlocks(t *testing.T) {
	_, tok := golden(t)
	path := file(t, "a.txt", "abcdefghijklmnopqrstuvwxyz")
	s := open1(t, Config{Files: []string{path}, Seq: 8}, tok)
	var all []int32
	for _, r := range tokensOf(s) {
		all = append(all, r...)
	}
	eos, _ := tok.EOS()
	if want := append(tok.Encode("abcdefghijklmnopqrstuvwxyz", true), eos); !slices.Equal(all, want) || s.Longest() != 8 {
		t.Errorf("got %v, want %v", all, want)
	}
	whole, err := Samples(path, tok, 0)
	if err != nil || len(whole) != 1 || !slices.Equal(whole[0], tok.Encode("abcdefghijklmnopqrstuvwxyz", true)) {
		t.Errorf("samples: %v %v", whole, err)
	}
	if _, err := Open(context.Background(), Config{Files: []string{path}, Seq: 8, TooLong: Error}, tok); err == nil {
		t.Error("a long text passes --too-long error")
	}
}

func TestRowsThatAreTooLongAreTruncatedSplitOrRefused(t *testing.T) {
	// 3 tokens; 7 with all trained; 6 with only the last trained; 5 with only the second trained
	path := file(t, "a.jsonl", `{"input_ids":[1,2,3]}
{"input_ids":[1,2,3,4,5,6,7]}
{"input_ids":[1,2,3,4,5,6],"labels":[-100,-100,-100,-100,-100,6]}
{"input_ids":[1,2,3,4,5],"labels":[-100,2,-100,-100,-100]}
`)
	s := open1(t, Config{Files: []string{path}, Seq: 4, VocabSize: 10}, nil)
	if got, want := tokensOf(s), [][]int32{{1, 2, 3}, {1, 2, 3, 4}, {1, 2, 3, 4}}; !same(got, want) {
		t.Errorf("truncate: %v, want %v", got, want)
	}
	want := Stats{Rows: 4, Truncated: 3, Dropped: 1, FirstDropped: path + ":3", Documents: 3, Sequences: 3, Tokens: 11, Trained: 2 + 3 + 1}
	if s.Stats() != want {
		t.Errorf("truncate: %+v, want %+v", s.Stats(), want)
	}
	s = open1(t, Config{Files: []string{path}, Seq: 4, VocabSize: 10, TooLong: Split}, nil)
	if got, want := tokensOf(s), [][]int32{{1, 2, 3}, {1, 2, 3, 4}, {5, 6, 7}, {5, 6}, {1, 2, 3, 4}}; !same(got, want) {
		t.Errorf("split: %v, want %v", got, want)
	}
	want = Stats{Rows: 4, Split: 3, Dropped: 2, FirstDropped: path + ":3", Documents: 5, Sequences: 5, Tokens: 16, Trained: 2 + 3 + 2 + 1 + 1}
	if s.Stats() != want {
		t.Errorf("split: %+v, want %+v", s.Stats(), want)
	}
	_, err := Open(context.Background(), Config{Files: []string{path}, Seq: 4, VocabSize: 10, TooLong: Error}, nil)
	if err == nil || !strings.Contains(err.Error(), path+":2: 7 tokens, --seq allows 4") {
		t.Errorf("error: %v", err)
	}
	_, err = Open(context.Background(), Config{Files: []string{file(t, "b.jsonl", `{"input_ids":[1,2,3],"labels":[-100,-100,3]}`)}, Seq: 2, VocabSize: 10}, nil)
	if err == nil || !strings.Contains(err.Error(), "none of 1 rows has a trained token within 2 tokens") {
		t.Errorf("all dropped: %v", err)
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	good := `{"input_ids":[1,2]}`
	for _, c := range []struct{ name, content, want string }{
		{"a.jsonl", good + "\n\n" + `{"input_ids":[1,`, ":3: malformed JSON"},
		{"b.jsonl", good + "\n" + `{"foo":1}` + "\n", `:2: unknown kind of row with the keys {"foo"}`},
		{"c.json", "[\n" + good + ",\n\n{\"foo\": 1},\n" + good + "]", ":4: unknown kind"},
		{"d.json", "[" + good, ":1: the array of rows does not end"},
		{"e.json", "[" + good + "]\n" + good, ":2: more follows the array of rows"},
		{"f.jsonl", "", "no rows"},
		{"g.jsonl", good + "\n" + `{"input_ids":[1,20]}`, ":2: token 1 has id 20, outside the vocabulary of 10"},
		{"h.json", "[" + good + "\n,\nnope]", ":3: "},
		{"i.txt", "", "empty sample"},
		{"j.txt", "\xff\xfe", "not UTF-8"},
	} {
		_, tok := golden(t)
		path := file(t, c.name, c.content)
		_, err := Open(context.Background(), Config{Files: []string{path}, Seq: 4, VocabSize: 10}, tok)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := Open(context.Background(), Config{Files: []string{"/nowhere.jsonl"}, Seq: 4}, nil); err == nil || !strings.Contains(err.Error(), "/nowhere.jsonl") {
		t.Errorf("missing file: %v", err)
	}
	for _, c := range []Config{{Seq: 4}, {Files: []string{"x", ""}, Seq: 4}, {Files: []string{"x"}, Seq: 1}, {Files: []string{"x"}, Seq: 4, TooLong: "cut"}} {
		if _, err := Open(context.Background(), c, nil); err == nil {
			t.Errorf("%+v passes", c)
		}
	}
}

func TestTheFirstBadRowIsTheErrorHoweverManyGoroutinesRead(t *testing.T) {
	good := `{"input_ids":[1,2` + strings.Repeat(" ", 3000) + `]}` + "\n" // some twenty rows to a chunk
	path := file(t, "a.jsonl", strings.Repeat(good, 120)+"{}\n"+strings.Repeat(good, 40)+"nonsense\n"+strings.Repeat(good, 40))
	for range 3 {
		_, err := Open(context.Background(), Config{Files: []string{path}, Seq: 8, VocabSize: 10}, nil)
		if err == nil || !strings.Contains(err.Error(), path+":121: unknown kind") {
			t.Fatalf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, Config{Files: []string{path}, Seq: 8, VocabSize: 10}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSamplesAreRowsInOrderUncut(t *testing.T) {
	path := file(t, "a.jsonl", ids(5, 3, 9))
	got, err := Samples(path, nil, 100)
	if err != nil || !same(got, [][]int32{{0, 1, 2, 3, 4}, {5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15, 16}}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := Samples(path, nil, 16); err == nil || !strings.Contains(err.Error(), path+":3: token 8 has id 16") {
		t.Errorf("got %v", err)
	}
	got, err = Calibration(path, nil, 100, 2, 4, 0)
	if err != nil || !same(got, [][]int32{{0, 1, 2, 3}, {5, 6, 7}}) {
		t.Errorf("%v %v", got, err)
	}
}

func TestCalibrationWindowsAreDrawnFromTheTextBySeed(t *testing.T) {
	_, tok := golden(t)
	path := file(t, "a.txt", "0123456789abcdefghijklmnop")
	whole := tok.Encode("0123456789abcdefghijklmnop", true)
	draw := func(seed uint64) [][]int32 {
		got, err := Calibration(path, tok, 0, 20, 6, seed)
		if err != nil || len(got) != 20 {
			t.Fatal(got, err)
		}
		return got
	}
	for _, w := range draw(1) {
		if at := slices.Index(whole, w[0]); len(w) != 6 || !slices.Equal(w, whole[at:at+6]) {
			t.Errorf("%v is no window of the text", w)
		}
	}
	if !same(draw(1), draw(1)) || same(draw(1), draw(2)) {
		t.Error("windows do not follow the seed")
	}
	if _, err := Calibration(path, tok, 0, 1, 1000, 0); err == nil || !strings.Contains(err.Error(), "fewer than one calibration sample of 1000") {
		t.Errorf("got %v", err)
	}
}

func TestProgressIsToldWhileRowsAreRead(t *testing.T) {
	var told []int
	c := Config{Files: []string{file(t, "a.jsonl", strings.Repeat("{\"input_ids\":[1,2]}\n", 2500))}, Seq: 8, VocabSize: 10, Progress: func(n int) { told = append(told, n) }}
	if open1(t, c, nil); !slices.Equal(told, []int{1024, 2048}) {
		t.Errorf("told %v", told)
	}
}

func TestALineMayBeHuge(t *testing.T) {
	row := `{"input_ids":[1,` + strings.Repeat(" ", 5<<18) + `2,3]}`
	s := open1(t, Config{Files: []string{file(t, "a.jsonl", row+"\n"+row)}, Seq: 8, VocabSize: 10}, nil)
	if got := tokensOf(s); !same(got, [][]int32{{1, 2, 3}, {1, 2, 3}}) {
		t.Errorf("%v", got)
	}
}

func TestPackingKeepsEveryDocumentWholeAndApart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seq := rapid.IntRange(4, 40).Draw(rt, "seq")
		lengths := rapid.SliceOfN(rapid.IntRange(2, seq), 1, 100).Draw(rt, "lengths")
		c := Config{Files: []string{file(t, "a.jsonl", ids(lengths...))}, Seq: seq, Packing: true, VocabSize: 1 << 20}
		s, err := Open(context.Background(), c, nil)
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		var b Batch
		all := make([]int, s.Len())
		for i := range all {
			all[i] = i
		}
		s.Batch(&b, all, 1)
		seen := map[int32]int{} // first id of each document → its length
		active := 0
		for row := range b.B {
			r := s.Row(row)
			if len(r.Tokens) > seq {
				rt.Fatalf("row %d has %d tokens", row, len(r.Tokens))
			}
			for i := range r.Tokens {
				at := row*b.T + i
				first := r.Tokens[i] - r.Positions[i] // ids of a document rise by one from its first
				seen[first]++
				begins := r.Positions[i] == 0
				if begins != (i == 0 || r.Docs[i] != r.Docs[i-1]) || !begins && r.Positions[i] != r.Positions[i-1]+1 {
					rt.Fatalf("row %d: positions %v, documents %v", row, r.Positions, r.Docs)
				}
				want := int32(Ignore)
				if i+1 < len(r.Tokens) && r.Docs[i+1] == r.Docs[i] {
					want = r.Tokens[i] + 1
					active++
				}
				if b.Targets[at] != want || b.Tokens[at] != r.Tokens[i] || b.Docs[at] != r.Docs[i] || b.Positions[at] != r.Positions[i] {
					rt.Fatalf("row %d, token %d: target %d, want %d", row, i, b.Targets[at], want)
				}
			}
			for at := row*b.T + len(r.Tokens); at < (row+1)*b.T; at++ {
				if b.Docs[at] != -1 || b.Targets[at] != Ignore || b.Tokens[at] != 0 {
					rt.Fatalf("padding at %d: document %d, target %d", at, b.Docs[at], b.Targets[at])
				}
			}
		}
		first := int32(0)
		for _, n := range lengths {
			if seen[first] != n {
				rt.Fatalf("the document from id %d has %d tokens in the rows, %d in the file", first, seen[first], n)
			}
			first += int32(n)
		}
		if st := s.Stats(); b.Active != active || st.Trained != int64(active) || st.Tokens != int64(first) || int(st.Documents) != len(lengths) {
			rt.Fatalf("%d targets are active; batch says %d, %+v", active, b.Active, st)
		}
	})
}

func TestPackingIsFirstFit(t *testing.T) {
	s := open1(t, Config{Files: []string{file(t, "a.jsonl", ids(6, 5, 3, 2, 4, 2))}, Seq: 10, Packing: true, VocabSize: 100}, nil)
	// 6+3 in the first, 5+2 (2 does not fit after 9) and then no 4, a third with 4; the last 2 goes to the second
	want := [][]int32{{0, 1, 2, 3, 4, 5, 11, 12, 13}, {6, 7, 8, 9, 10, 14, 15, 20, 21}, {16, 17, 18, 19}}
	if got := tokensOf(s); !same(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestABatchIsPaddedAndReusesItsMemory(t *testing.T) {
	s := open1(t, Config{Files: []string{file(t, "a.jsonl", ids(5, 3, 7))}, Seq: 8, VocabSize: 100}, nil)
	var b Batch
	s.Batch(&b, []int{1, 0}, 4)
	x := int32(Ignore)
	if b.B != 2 || b.T != 8 || b.Active != 2+4 || !slices.Equal(b.Rows, []int{1, 0}) ||
		!slices.Equal(b.Tokens, []int32{5, 6, 7, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0}) ||
		!slices.Equal(b.Targets, []int32{6, 7, x, x, x, x, x, x, 1, 2, 3, 4, x, x, x, x}) ||
		!slices.Equal(b.Positions, []int32{0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0}) ||
		!slices.Equal(b.Docs, []int32{0, 0, 0, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, -1, -1, -1}) {
		t.Errorf("%+v", b)
	}
	rows := []int{2, 0, 1}
	s.Batch(&b, rows, 1)
	if b.T != 7 || b.B != 3 {
		t.Errorf("%d × %d", b.B, b.T)
	}
	if n := testing.AllocsPerRun(20, func() { s.Batch(&b, rows, 1) }); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}

func TestWindowsDropTheRemainderAndPredictAllButTheirFirst(t *testing.T) {
	w := Windows([]int32{1, 2, 3, 4, 5, 6, 7, 8}, 3)
	if !same(w, [][]int32{{1, 2, 3}, {4, 5, 6}}) {
		t.Fatalf("%v", w)
	}
	var b Batch
	b.Fill([]Row{Plain(w[0]), Plain(w[1])}, 1)
	if b.Active != 4 || !slices.Equal(b.Targets, []int32{2, 3, Ignore, 5, 6, Ignore}) {
		t.Errorf("%+v", b)
	}
	if len(Windows([]int32{1, 2}, 3)) != 0 {
		t.Error("a window of two of three")
	}
}

func TestAPreviewShowsWhatIsTrained(t *testing.T) {
	_, tok := golden(t)
	s := open1(t, Config{Files: []string{file(t, "a.jsonl", `{"prompt":"ab","completion":"cd\n"}`+"\n"+`{"text":"x"}`)}, Seq: 16, Packing: true}, tok)
	var out strings.Builder
	if err := Preview(&out, s.Row(0), tok, false); err != nil {
		t.Fatal(err)
	}
	want := "10 tokens, 6 trained, 2 documents\n  − <s> a b\n  + c d \"\\n\" </s>\n  document 1\n  − <s>\n  + x </s>\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDataThatCannotBeReadTwiceIsRefusedBeforeItIsRead(t *testing.T) {
	_, tok := golden(t)
	pipe := filepath.Join(t.TempDir(), "rows.jsonl") // nobody writes to it, so that reading would not end
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.jsonl")
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	good := file(t, "a.jsonl", `{"text":"a"}`)
	for path, want := range map[string]string{pipe: "write it to a file first", link: "write it to a file first", t.TempDir(): "is a folder"} {
		for _, c := range []Config{{Files: []string{good, path}, Seq: 8}, {Files: []string{good, path}, Seq: 8, CacheDir: t.TempDir(), TokenizerHash: "bpe"}} {
			if _, err := Open(context.Background(), c, tok); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s named and %q", err, path, want)
			}
		}
	}
	if _, err := Calibration(pipe, tok, 0, 1, 8, 1); err == nil || !strings.Contains(err.Error(), "write it to a file first") {
		t.Errorf("calibration: %v", err)
	}
	if err := os.Symlink(good, link+"2.jsonl"); err != nil {
		t.Fatal(err)
	}
	open1(t, Config{Files: []string{link + "2.jsonl"}, Seq: 8}, tok)
}
