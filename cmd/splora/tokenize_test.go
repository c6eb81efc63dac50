package main

import (
	"encoding/json"
	"fmt"
	"testing"
)

func TestTokenizeTakesOneFile(t *testing.T) {
	w := newWorld(t)
	w.refused(t, []string{"tokenize", "--model", w.path("model"), "a", "b"}, exitUsage, "one FILE")
}

func TestIDsThatAreNoTokensAreNotDecoded(t *testing.T) {
	w := newWorld(t)
	for text, want := range map[string]string{
		"[1,560]": "element 1 of the array is 560, which is no id of the tokenizer, whose vocabulary has the size 560", "[1,2,-1]": "element 2 of the array is -1",
		"[null]": "element 0 of the array is null", "[1.5]": "not a JSON array of ids", "{}": "not a JSON array of ids", "[3000000000]": "not a JSON array of ids",
	} {
		file := w.write(t, "ids.json", text)
		w.refused(t, []string{"tokenize", "--decode", "--model", w.path("model"), file}, exitFailed, "tokenize: "+file, want)
	}
}

// The wanted text is tokenizers': of the first bytes of a character alone, one U+FFFD for the part that is broken.
func TestBytesThatMakeNoCharacterAreDecodedAsTheReplacementCharacter(t *testing.T) {
	w := newWorld(t)
	euro := w.write(t, "euro.txt", "€")
	var ids []int32
	if err := json.Unmarshal([]byte(ok(t, "tokenize", "--model", w.path("model"), euro).stdout), &ids); err != nil || len(ids) != 3 {
		t.Fatal(ids, err)
	}
	broken := w.write(t, "ids.json", fmt.Sprintf("[%d,%d]", ids[0], ids[1]))
	if got := ok(t, "tokenize", "--decode", "--model", w.path("model"), broken).stdout; got != "\ufffd" {
		t.Errorf("got %+q", got)
	}
}
