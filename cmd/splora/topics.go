package main

import (
	"embed"
	"path"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed docs/*.md
var docs embed.FS

// topics are the pages of docs as "splora help TOPIC", and a list of them.
func topics() []*cobra.Command {
	list, err := docs.ReadDir("docs")
	if err != nil {
		panic(err)
	}
	var out []*cobra.Command
	index := "Longer pages, read with splora help TOPIC:\n"
	for _, e := range list {
		b, err := docs.ReadFile(path.Join("docs", e.Name()))
		if err != nil {
			panic(err)
		}
		name := strings.TrimSuffix(e.Name(), ".md")
		title, _, _ := strings.Cut(strings.TrimPrefix(string(b), "# "), "\n")
		out = append(out, &cobra.Command{Use: name, Short: title, Long: string(b)})
		index += "\n    " + name + strings.Repeat(" ", max(1, 14-len(name))) + title
	}
	return append(out, &cobra.Command{Use: "topics", Short: "The list of these pages", Long: index})
}
