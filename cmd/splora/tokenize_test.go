package main

import "testing"

func TestTokenizeTakesOneFile(t *testing.T) {
	w := newWorld(t)
	w.refused(t, []string{"tokenize", "--model", w.path("model"), "a", "b"}, exitUsage, "one FILE")
}
