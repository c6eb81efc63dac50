//go:build unix

package launch

// checkModes: file modes say who can read a file.
const checkModes = true
