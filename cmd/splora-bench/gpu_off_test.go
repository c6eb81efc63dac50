//go:build !cuda

package main

import "testing"

func tests(m *testing.M) int { return m.Run() }
