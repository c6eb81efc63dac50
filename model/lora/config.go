package lora

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/splora/splora/model/tensor"
)

// AllLinear is the target that names every linear of the blocks.
const AllLinear = "all-linear"

// Config says which adapters a model gets.
type Config struct {
	Method Method
	// Rank is r; 0 means 16.
	Rank int
	// Alpha is α; 0 means 32.
	Alpha float64
	// RSLoRA takes s = α/√r instead of α/r (Kalajdzievski 2023).
	RSLoRA bool
	// Dropout is the probability with which plain LoRA drops an input of the adapter's path, [0, 1).
	Dropout float64
	// Seed is that of dropout's masks.
	Seed uint64
	// Targets are names of linears as PEFT's target_modules has them ("q_proj"), or AllLinear; empty means AllLinear.
	Targets []string
}

// DropoutAt is the dropout of the layer of that name at an optimizer step, for rows of the given identity (I32 [1,N]).
func (c Config) DropoutAt(name string, step int, ids tensor.Tensor) Dropout {
	if c.Dropout == 0 || c.Method != LoRA {
		return Dropout{}
	}
	return Dropout{P: float32(c.Dropout), Seed: mix(stream(c.Seed, name) + uint64(step)*gamma), IDs: ids}
}

// Defaults fills in what is zero.
func (c Config) Defaults() Config {
	if c.Rank == 0 {
		c.Rank = 16
	}
	if c.Alpha == 0 {
		c.Alpha = 32
	}
	if len(c.Targets) == 0 {
		c.Targets = []string{AllLinear}
	}
	return c
}

// Scale is s = α/r, or α/√r.
func (c Config) Scale() float64 {
	c = c.Defaults()
	if c.RSLoRA {
		return c.Alpha / math.Sqrt(float64(c.Rank))
	}
	return c.Alpha / float64(c.Rank)
}

// Validate names the field that cannot be; linears are the names that Targets may hold.
func (c Config) Validate(linears []string) error {
	c = c.Defaults()
	switch {
	case c.Method > LoRA:
		return fmt.Errorf("lora: method: unknown method %d; use splora or lora", c.Method)
	case c.Rank < 0:
		return fmt.Errorf("lora: rank: %d; must be at least 1", c.Rank)
	case !(c.Alpha > 0) || math.IsInf(c.Alpha, 1):
		return fmt.Errorf("lora: alpha: %v; must be greater than 0", c.Alpha)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("lora: dropout: %v; must be in [0, 1)", c.Dropout)
	case c.Dropout > 0 && c.Method == SPLoRA:
		return fmt.Errorf("lora: dropout: %v with method splora: y = x·(M ⊙ (W + s·B·A))ᵀ has no adapter path whose input could be dropped; use dropout 0, or method lora", c.Dropout)
	}
	for _, t := range c.Targets {
		if t != AllLinear && !slices.Contains(linears, t) {
			return fmt.Errorf("lora: targets: no linear %q; there are %s, or %s for all of them", t, strings.Join(linears, ", "), AllLinear)
		}
	}
	return nil
}

// Adapts reports whether linear is among the targets.
func (c Config) Adapts(linear string) bool {
	c = c.Defaults()
	return slices.Contains(c.Targets, AllLinear) || slices.Contains(c.Targets, linear)
}

// ParseMethod reads "splora" or "lora".
func ParseMethod(s string) (Method, error) {
	for m := SPLoRA; m <= LoRA; m++ {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("lora: method: unknown method %q; use splora or lora", s)
}

func (m Method) String() string { return [...]string{"splora", "lora"}[m] }
