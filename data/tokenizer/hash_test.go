package tokenizer

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHashChangesWithEveryFileThatLoadReads(t *testing.T) {
	dir := folder(t, map[string]string{"tokenizer.json": tiny})
	seen := map[string]string{}
	for _, name := range []string{"", "README.md", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json", "chat_template.jinja"} {
		if name != "" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		h, err := Hash(dir)
		if err != nil {
			t.Fatal(err)
		}
		before, again := seen[h]
		if again != (name == "README.md") {
			t.Errorf("with %q: hash %s, before with %q", name, h, before)
		}
		seen[h] = name
	}
}
