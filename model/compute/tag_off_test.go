//go:build !invariants

package compute_test

const invariants = false
