package train

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
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
	keys, err := mapping(b)
	if err == nil && keys != nil {
		err = yaml.NodeToValue(keys, c, yaml.Strict())
	}
	if err != nil {
		return fmt.Errorf("train: configuration %s: %s", path, yaml.FormatError(plain(err), false, true))
	}
	return nil
}

// mapping is the text's one document, checked; nil when there is nothing but comments.
func mapping(text []byte) (ast.Node, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.DirectiveNode:
			continue
		}
		if body != nil {
			return nil, &yaml.SyntaxError{Message: "a second document, which would not be read: put all keys into one", Token: doc.Start}
		}
		body = doc.Body
	}
	if body == nil {
		return nil, nil
	}
	return body, checkKeys(body)
}

// checkKeys refuses what the decoder would bend without a word: 1 for 1.5 and for "1.5", 0 for !!int 1.5, nothing for a key that is
// no name.
func checkKeys(body ast.Node) error {
	m, ok := body.(*ast.MappingNode)
	if !ok {
		return &yaml.SyntaxError{Message: "not keys and values, as rank: 16", Token: body.GetToken()}
	}
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		fields[f.Tag.Get("yaml")] = f
	}
	for _, v := range m.Values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return &yaml.SyntaxError{Message: "a key must be a name, as rank: 16", Token: v.Key.GetToken()}
		}
		w := walk{key: key.Value}
		if ast.Walk(&w, v.Value); w.err != nil {
			return w.err
		}
		if f, known := fields[key.Value]; known && !holds(f.Type, v.Value) {
			return mistyped(f, v.Value.GetToken())
		}
	}
	return nil
}

// walk finds what the value of a setting has no use for.
type walk struct {
	key string
	err error
}

// Visit notes the first such node.
func (w *walk) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		w.err = &yaml.SyntaxError{Message: w.key + ": write the value itself: anchors (&), aliases (*) and tags (!) are not read", Token: n.GetToken()}
	}
	if w.err != nil {
		return nil
	}
	return w
}

// holds reports whether a value is of the type, as far as the decoder does not look. Without a value, a key changes nothing.
func holds(t reflect.Type, v ast.Node) bool {
	if _, empty := v.(*ast.NullNode); empty {
		return true
	}
	switch t.Kind() {
	case reflect.Int, reflect.Uint64:
		n, ok := v.(*ast.IntegerNode)
		if !ok {
			return false
		}
		_, err := strconv.ParseInt(fmt.Sprint(n.Value), 10, 64)
		if t.Kind() == reflect.Uint64 {
			_, err = strconv.ParseUint(fmt.Sprint(n.Value), 10, 64)
		}
		return err == nil
	case reflect.Slice:
		list, ok := v.(*ast.SequenceNode)
		return !ok || !slices.ContainsFunc(list.Values, func(v ast.Node) bool { _, scalar := v.(ast.ScalarNode); return !scalar })
	}
	return true
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
	return mistyped(f, e.Token)
}

// mistyped says what a key wants.
func mistyped(f reflect.StructField, at *token.Token) error {
	want := map[reflect.Kind]string{reflect.Int: fmt.Sprint("an integer up to ", most), reflect.Uint64: "an integer from 0 to 2^64-1", reflect.Float64: "a number", reflect.Bool: "true or false",
		reflect.String: "a string", reflect.Slice: "a list of strings"}[f.Type.Kind()]
	return &yaml.SyntaxError{Message: f.Tag.Get("yaml") + " must be " + want, Token: at}
}

// YAML is the configuration as a file that ReadYAML reads.
func (c *Config) YAML() []byte {
	b, err := yaml.Marshal(c)
	if err != nil {
		panic("train: configuration does not marshal: " + err.Error())
	}
	return b
}
