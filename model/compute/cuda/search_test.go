//go:build cuda

package cuda

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFoldersAreThereAndEachPatternsNewestComesFirst(t *testing.T) {
	for _, f := range folders() {
		if st, err := os.Stat(f); err != nil || !st.IsDir() {
			t.Errorf("%s: %v", f, err)
		}
	}
	dir := t.TempDir()
	for _, v := range []string{"python3.11", "python3.12"} {
		if err := os.MkdirAll(filepath.Join(dir, v, "nvidia", "cublas", "lib"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{filepath.Join(dir, "python3.12/nvidia/cublas/lib"), filepath.Join(dir, "python3.11/nvidia/cublas/lib")}
	if got := glob(dir + "/python3*/nvidia/*/lib"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
