package train

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// List is a list of strings; in YAML a sequence or one comma-separated string, as a flag the latter.
type List []string

// UnmarshalYAML accepts a sequence of strings or one comma-separated string.
func (l *List) UnmarshalYAML(b []byte) error {
	var many []string
	if yaml.Unmarshal(b, &many) == nil {
		*l = many
		return nil
	}
	var one string
	if err := yaml.Unmarshal(b, &one); err != nil {
		return err
	}
	return l.Set(one)
}

// Set replaces the list by the parts of s.
func (l *List) Set(s string) error {
	*l = nil
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			*l = append(*l, p)
		}
	}
	return nil
}

func (l *List) String() string { return strings.Join(*l, ",") }

// Type names the value in help texts.
func (l *List) Type() string { return "list" }

// ReadYAML lays the file's keys over c. Unknown and mistyped keys are errors with line and column.
func (c *Config) ReadYAML(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("train: configuration: %w", err)
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		return nil
	}
	if err = checkIntegers(b); err == nil {
		err = yaml.UnmarshalWithOptions(b, c, yaml.Strict())
	}
	if err != nil {
		return fmt.Errorf("train: configuration %s: %s", path, yaml.FormatError(plain(err), false, true))
	}
	return nil
}

// checkIntegers refuses 1.5 where an integer belongs: the decoder would take 1 for it.
func checkIntegers(text []byte) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return err
	}
	integers := map[string]string{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if k := f.Type.Kind(); k == reflect.Int || k == reflect.Uint64 {
			integers[f.Tag.Get("yaml")] = f.Name
		}
	}
	for _, doc := range file.Docs {
		m, _ := doc.Body.(*ast.MappingNode)
		if m == nil {
			continue
		}
		for _, v := range m.Values {
			name := integers[v.Key.String()]
			if _, fraction := v.Value.(*ast.FloatNode); fraction && name != "" {
				return &yaml.TypeError{DstType: reflect.TypeFor[int](), SrcType: reflect.TypeFor[float64](), StructFieldName: &name, Token: v.Value.GetToken()}
			}
		}
	}
	return nil
}

// plain says in the file's words what the decoder says in Go's.
func plain(err error) error {
	var e *yaml.TypeError
	if !errors.As(err, &e) || e.StructFieldName == nil {
		return err
	}
	f, known := reflect.TypeFor[Config]().FieldByName(strings.TrimPrefix(*e.StructFieldName, "Config."))
	if !known {
		return err
	}
	want := map[reflect.Kind]string{reflect.Int: "an integer", reflect.Uint64: "an integer of at least 0", reflect.Float64: "a number", reflect.Bool: "true or false",
		reflect.String: "a string", reflect.Slice: "a list of strings"}[f.Type.Kind()]
	return &yaml.SyntaxError{Message: f.Tag.Get("yaml") + " must be " + want, Token: e.Token}
}

// YAML is the configuration as a file that ReadYAML reads.
func (c *Config) YAML() []byte {
	b, err := yaml.Marshal(c)
	if err != nil {
		panic("train: configuration does not marshal: " + err.Error())
	}
	return b
}
