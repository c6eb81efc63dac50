package nccl

// abi is what crosses to C: one method per kind of prototype. symbols name the functions of nccl.h.
type abi interface {
	has(symbol string) bool
	getVersion() (int, Result)
	lastError(comm uintptr) string
	errorString(Result) string

	uniqueID(comm uintptr, id *UniqueId) Result // comm 0: ncclGetUniqueId, else ncclCommGetUniqueId
	initRank(comm *uintptr, nranks int, ids []UniqueId, rank int, c *config) Result

	// A communicator made out of another is written to a slot of C memory, perhaps long after the call has returned.
	newSlot() slot
	split(comm uintptr, color, key int, s slot, c *config) Result
	shrink(comm uintptr, exclude []int32, s slot, c *config, flags int) Result
	grow(comm uintptr, nranks int, id *UniqueId, rank int, s slot, c *config) Result

	comm(symbol string, comm uintptr) Result               // f(comm)
	commInt(symbol string, comm uintptr) (int, Result)     // f(comm, int *out)
	commFlags(symbol string, comm uintptr, f int) Result   // f(comm, int flags)
	memStats(comm uintptr, stat int) (uint64, Result)      // ncclCommMemStats
	register(comm, ptr uintptr, n int) (uintptr, Result)   // ncclCommRegister
	deregister(comm, handle uintptr) Result                // ncclCommDeregister
	memAlloc(n int) (uintptr, Result)                      // ncclMemAlloc
	memFree(ptr uintptr) Result                            // ncclMemFree
	group(symbol string) Result                            // ncclGroupStart, ncclGroupEnd
	collective(symbol string, comm uintptr, c call) Result // everything that moves data
}

// slot is where NCCL puts a communicator when it is done with it.
type slot interface {
	load() uintptr
	free() // when nothing is in progress any more
}

// call is a collective's arguments; which of them count depends on the function.
type call struct {
	send, recv uintptr
	count      int
	dtype      DataType
	op         RedOp
	root       int // or the peer
	stream     uintptr
}

// required is what every served library has.
var required = []string{
	"ncclGetVersion", "ncclGetErrorString", "ncclGetLastError", "ncclGetUniqueId", "ncclCommInitRankConfig",
	"ncclCommFinalize", "ncclCommDestroy", "ncclCommAbort", "ncclCommGetAsyncError", "ncclCommCount", "ncclCommCuDevice",
	"ncclCommUserRank", "ncclAllReduce", "ncclBroadcast", "ncclReduce", "ncclAllGather", "ncclReduceScatter", "ncclSend",
	"ncclRecv", "ncclGroupStart", "ncclGroupEnd", "ncclCommSplit",
}

// optional calls and the version that brought them.
var optional = []struct {
	symbol string
	since  Version
}{
	{"ncclMemAlloc", 21901}, {"ncclMemFree", 21901}, {"ncclCommRegister", 21901}, {"ncclCommDeregister", 21901},
	{"ncclCommInitRankScalable", 22304}, {"ncclCommShrink", 22703}, {"ncclCommRevoke", 22807},
	{"ncclCommGrow", 22902}, {"ncclCommGetUniqueId", 22902},
	{"ncclCommSuspend", 22907}, {"ncclCommResume", 22907}, {"ncclCommMemStats", 22907},
}
