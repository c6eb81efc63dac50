// Package nccl is the C interface of NVIDIA's collective communication library in Go, with the names of nccl.h:
//
//	lib, _ := nccl.Open("")                                        dlopen, no header, no link-time dependency
//	id, _ := lib.GetUniqueId()                                     one process makes it, all get it
//	comm, _ := lib.CommInitRankConfig(ctx, n, id, rank, nccl.Config{})
//	comm.AllReduce(grad, grad, len, nccl.Float32, nccl.Sum, stream)    grad_r ← Σ_k grad_k, queued on the stream
//	comm.Wait(ctx); comm.Finalize(ctx); comm.Destroy()
//
// Its one idea: nothing may wait for ever. NCCL knows no time-outs; a peer that died or went elsewhere is waited for until
// the end of the job. So every communicator is non-blocking: a call begins something, Wait polls until it is done or
// a deadline has passed, and Abort, on a thread of its own and with a budget, is what follows. If even that does not
// return, only the end of the process helps, and the error says so.
//
// Addresses (of device memory, of streams) are uintptr: they are never Go memory. Calls on one communicator exclude each
// other. CommInitRankConfig takes the GPU from the calling thread's current CUDA context: lock the goroutine to its thread
// (runtime.LockOSThread) and make the context current first. Between GroupStart and GroupEnd the goroutine is locked to
// its thread, because NCCL keeps the group there.
//
// Do not fork from a process that has made a unique id or a communicator: NCCL's sockets are inherited.
//
// Libraries from 2.18 to 2.30 are served. What came later than 2.18 is looked up when the library is opened: Has and
// Missing tell, and a call to what is missing is an error that names the version that has it. Without the build
// tag cuda the package still builds, and Open says what it lacks.
package nccl
