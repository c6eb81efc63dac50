//go:build !cuda

package nccl

import "errors"

func dlopen(string) (abi, error) {
	return nil, errors.New("nccl: this program was built without NCCL: build it with cgo and -tags cuda on Linux")
}

// built tells whether this program can open a library at all.
const built = false
