package train

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
)

// Flags adds one flag per key of Config, named as the key with dashes, bound to c; c's values are the defaults shown.
func Flags(fs *pflag.FlagSet, c *Config) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, help := strings.ReplaceAll(f.Tag.Get("yaml"), "_", "-"), f.Tag.Get("help")
		switch p := v.Field(i).Addr().Interface().(type) {
		case *string:
			fs.StringVar(p, name, *p, help)
		case *int:
			fs.IntVar(p, name, *p, help)
		case *uint64:
			fs.Uint64Var(p, name, *p, help)
		case *float64:
			fs.Float64Var(p, name, *p, help)
		case *bool:
			fs.BoolVar(p, name, *p, help)
		case *List:
			fs.Var(p, name, help)
		default:
			panic("train: no flag for the type of " + f.Name)
		}
	}
}

// Resolve reads the file, if one is named, under the flags that the user gave: defaults < file < flags. fs is the parsed
// set that Flags bound to c.
func Resolve(fs *pflag.FlagSet, c *Config, file string) error {
	given := map[string]string{}
	fs.Visit(func(f *pflag.Flag) { given[f.Name] = f.Value.String() })
	if file != "" {
		*c = Defaults()
		if err := c.ReadYAML(file); err != nil {
			return usageError{err}
		}
		for name, value := range given {
			if err := fs.Set(name, value); err != nil {
				return usageError{err}
			}
		}
	}
	if _, too := given["epochs"]; too && c.MaxSteps > 0 {
		return usageError{fmt.Errorf("train: --epochs has no effect beside --max-steps %d: leave it out, or give --max-steps 0", c.MaxSteps)}
	}
	return c.Validate()
}
