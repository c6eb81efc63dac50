package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestASeedWithoutSamplingIsSaidToHaveNoEffect(t *testing.T) {
	w := newWorld(t)
	for temperature, want := range map[string]bool{"0": true, "1": false} {
		code, _, errs := call("generate", "--model", w.path("model"), "--ids", "1", "--max-new-tokens", "1", "--seed", "3", "--temperature", temperature)
		if code != exitDone || strings.Contains(errs, "note: --seed has no effect") != want {
			t.Errorf("at %s: exit %d\n%s", temperature, code, errs)
		}
	}
}

func TestGenerateLaysAChatPromptOutByTheModelsTemplate(t *testing.T) {
	w := newWorld(t)
	w.refused(t, []string{"generate", "--model", w.path("model"), "--chat", "--prompt", "hi"}, exitFailed, "template")
	w.refused(t, []string{"generate", "--model", w.path("model"), "--chat", "--ids", "1"}, exitUsage, "--prompt")
	w.write(t, "model/tokenizer_config.json",
		`{"eos_token":"<|end|>","chat_template":"{% for m in messages %}[{{ m.role }}] {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"}`)
	ids := func(args ...string) []int32 {
		var v struct {
			IDs []int32 `json:"prompt_ids"`
		}
		o := ok(t, append([]string{"generate", "--json", "--max-new-tokens", "1", "--model", w.path("model")}, args...)...)
		if err := json.Unmarshal([]byte(o.stdout), &v); err != nil {
			t.Fatal(err)
		}
		return v.IDs
	}
	var want []int32
	laidOut := w.write(t, "laid-out.txt", "[user] the row says<|end|>[assistant]")
	if err := json.Unmarshal([]byte(ok(t, "tokenize", "--special=false", "--model", w.path("model"), laidOut).stdout), &want); err != nil {
		t.Fatal(err)
	}
	if got := ids("--chat", "--prompt", "the row says"); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("%v, want %v", got, want)
	}
	if plain := ids("--prompt", "the row says"); strings.Contains(fmt.Sprint(plain), fmt.Sprint(want)) {
		t.Errorf("without --chat the prompt was laid out, too: %v", plain)
	}
}
