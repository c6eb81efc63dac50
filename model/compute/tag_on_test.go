//go:build invariants

package compute_test

const invariants = true
