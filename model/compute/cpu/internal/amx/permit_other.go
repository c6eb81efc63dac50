//go:build amd64 && !linux

package amx

// permitted is false: how to ask for tiles is known for Linux only.
func permitted() bool { return false }
