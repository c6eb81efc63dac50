//go:build !cuda

package nccl

import "errors"

var errNotBuilt = errors.New("nccl: this program was built without NCCL: build it with cgo and -tags cuda on Linux")

func dlopen(string) (abi, error) { return nil, errNotBuilt }

func dlopenDriver(string) (driverABI, error) { return nil, errNotBuilt }

// built tells whether this program can open a library at all.
const built = false
