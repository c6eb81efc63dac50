package compute

// Planned is what a Backend with memory of its own offers besides Memory: one allocation, made when the plan of a run is known.
type Planned interface {
	// Reserve allocates n bytes at once, which Alloc then cuts in pieces, each rounded up to Align. Without it Alloc allocates as
	// it goes. An error says how much there is.
	Reserve(n int) error
	Align() int
	// Seal ends the time of allocations: from here on Alloc panics.
	Seal()
	// Usage is the device's memory as it stands.
	Usage() (Usage, error)
}

// Usage is device memory, in bytes.
type Usage struct {
	Total, Free int
	// Before was in use when the backend had started: its context and kernels, and whatever else uses the device. Library is
	// what the vendor's libraries then took for themselves.
	Before, Library int
	// Own is the backend's scratch memory and its libraries' workspace. It is in Arena, which is all that was allocated for this
	// process, and in Used, what of it has been given out.
	Own, Arena, Used int
}
