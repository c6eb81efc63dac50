package quickstart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// split is split.json: which packages of the standard library the shipped model has never seen, and which it is fine-tuned on.
type split struct {
	TrainedOn string `json:"trained_on"`
	Rules     struct {
		MaxFileBytes int `json:"max_file_bytes"`
	} `json:"rules"`
	HeldOut  []string `json:"held_out"`
	FineTune []string `json:"fine_tune"`
}

func readSplit() (s split, err error) {
	b, err := model.ReadFile("model/split.json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// goroot is where the Go distribution lies: as the go command says, else GOROOT.
func goroot() (string, error) {
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		if dir := strings.TrimSpace(string(out)); dir != "" {
			return dir, nil
		}
	}
	if dir := os.Getenv("GOROOT"); dir != "" {
		return dir, nil
	}
	return "", errors.New("quickstart: no Go distribution found: the text that the model is tuned on is the standard library's source; install Go, or set GOROOT")
}

// texts are the sources of the packages below src, file by file: no tests, nothing generated, nothing huge.
func (s split) texts(src string, packages []string) ([]string, error) {
	var paths []string
	for _, p := range packages {
		list, err := os.ReadDir(filepath.Join(src, filepath.FromSlash(p)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // another Go version may lack a package
		}
		if err != nil {
			return nil, fmt.Errorf("quickstart: %w", err)
		}
		for _, e := range list {
			if n := e.Name(); !e.IsDir() && strings.HasSuffix(n, ".go") && !strings.HasSuffix(n, "_test.go") {
				paths = append(paths, p+"/"+n)
			}
		}
	}
	slices.Sort(paths)
	var out []string
	for _, p := range paths {
		b, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(p)))
		if err != nil {
			return nil, fmt.Errorf("quickstart: %w", err)
		}
		if len(b) <= s.Rules.MaxFileBytes && utf8.Valid(b) && !isGenerated(string(b)) {
			out = append(out, string(b))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("quickstart: %s has none of the packages %s: is it a whole Go distribution?", src, strings.Join(packages, ", "))
	}
	return out, nil
}

// isGenerated looks for the mark of generated code before the package clause.
func isGenerated(text string) bool {
	head := text
	if at := regexp.MustCompile(`(?m)^package `).FindStringIndex(text); at != nil {
		head = text[:at[0]]
	}
	return regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`).MatchString(head)
}

// writeTexts writes the held-out text as one file and the fine-tuning text as rows.
func (s split) writeTexts(heldOut, fineTune string) error {
	root, err := goroot()
	if err != nil {
		return err
	}
	src := filepath.Join(root, "src")
	held, err := s.texts(src, s.HeldOut)
	if err != nil {
		return err
	}
	tune, err := s.texts(src, s.FineTune)
	if err != nil {
		return err
	}
	if err := os.WriteFile(heldOut, []byte(strings.Join(held, "")), 0o644); err != nil {
		return err
	}
	var rows strings.Builder
	e := json.NewEncoder(&rows)
	for _, t := range tune {
		if err := e.Encode(map[string]string{"text": t}); err != nil {
			return err
		}
	}
	return os.WriteFile(fineTune, []byte(rows.String()), 0o644)
}
