package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/splora/splora/data/tokenizer"
)

func newTokenize() *cobra.Command {
	model, special, decode := "", true, false
	c := &cobra.Command{
		Use:   "tokenize [FILE]",
		Short: "Text to a JSON array of token ids, and back",
		Long:  "tokenize reads FILE or standard input and writes the ids of its text as one JSON array; with --decode it reads such an array and writes text, in which bytes that make no character are U+FFFD.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("tokenize takes one FILE, not %d; see %s --help", len(args), c.CommandPath())
			}
			return nil
		},
	}
	c.Flags().StringVar(&model, "model", "", "folder with the tokenizer")
	c.Flags().BoolVar(&special, "special", true, "add the tokenizer's own special tokens; with --decode, show special tokens")
	c.Flags().BoolVar(&decode, "decode", false, "ids to text")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := require(c, "model"); err != nil {
			return err
		}
		t, err := tokenizer.Load(model)
		if err != nil {
			return err
		}
		text, name, err := input(c, args)
		if err != nil {
			return err
		}
		if decode {
			ids, err := readIDs(text, t)
			if err != nil {
				return fmt.Errorf("tokenize: %s: %w", name, err)
			}
			_, err = io.WriteString(c.OutOrStdout(), t.Decode(ids, !special))
			return err
		}
		ids := t.Encode(string(text), special)
		if ids == nil {
			ids = []int32{}
		}
		return json.NewEncoder(c.OutOrStdout()).Encode(ids)
	}
	return c
}

// readIDs reads a JSON array of ids, all of them the tokenizer's.
func readIDs(text []byte, t *tokenizer.Tokenizer) ([]int32, error) {
	var list []*int32
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("not a JSON array of ids: %w", err)
	}
	ids := make([]int32, len(list))
	for i, id := range list {
		if id == nil {
			return nil, fmt.Errorf("element %d of the array is null, not an id", i)
		}
		if ids[i] = *id; !t.Has(*id) {
			return nil, fmt.Errorf("element %d of the array is %d, which is no id of the tokenizer, whose vocabulary has the size %d", i, *id, t.VocabSize())
		}
	}
	return ids, nil
}

// input reads the named file, or standard input.
func input(c *cobra.Command, args []string) (text []byte, name string, err error) {
	if len(args) == 0 || args[0] == "-" {
		text, err = io.ReadAll(c.InOrStdin())
		return text, "standard input", err
	}
	text, err = os.ReadFile(args[0])
	return text, args[0], err
}
