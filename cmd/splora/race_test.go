//go:build race

package main

// raceDetector: everything is an order of magnitude slower.
const raceDetector = true
