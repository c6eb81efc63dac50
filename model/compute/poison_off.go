//go:build !invariants

package compute

import "github.com/splora/splora/model/tensor"

func poison(tensor.Tensor) {}
