// Package dist is how ranks work together: a Group of n ranks, each with the same vector length, and
//
//	AllReduce   v_r ← Σ_k v_k          the same bits on every rank
//	Broadcast   v_r ← v_root
//
// once per training step, over loopback in one process, over TCP between processes, or, for vectors in the memory of GPUs, over
// NCCL.
//
// Ring all-reduce. Cut v in n chunks, chunk c = v[⌊c·len/n⌋ : ⌊(c+1)·len/n⌋]. In n−1 steps every rank passes a partial
// sum to its right neighbour, in n−1 more the finished chunks:
//
//	reduce-scatter, step s: send chunk r−s−1, receive chunk r−s−2 and add v's own     (all mod n)
//	all-gather,     step s: send chunk r−s,   receive chunk r−s−1
//
// so chunk c is summed in the order ((v_{c+1} + v_{c+2}) + …) + v_c: fixed by n and the index alone, never by timing.
// Rank r sends 4·(2·len − |chunk r| − |chunk r+1|) bytes (RingBytes), which is 4·len·2(n−1)/n but for the rounding of
// chunks. What is received is what is sent on a little later, so a rank forwards piece by piece while it receives.
// There is no framing on the data connections. Between ranks of one host the floats go through memory that both have mapped, in the
// same order, and the connection only says when (shared.go).
//
// NCCL (Config.NCCL). A vector on a device is one call, in place, on the stream that computed it, and the call is over when the
// stream is and NCCL knows of no error. NCCL waits for ever for a rank that is lost or stuck, so it is never trusted to
// notice: the control channel and gossip say who is lost, a collective has a time-out, whose report says who waits and where the others
// are, and in either case every rank aborts its communicator, on a thread of its own; a rank whose abort hangs ends itself.
// The unique id is made in rank 0's process, travels with the assignment, and is new in each generation (nccl.go).
//
// Join builds such a group: memberlist finds the members (gossip.go), package rendezvous turns them into ranks, every
// connection is authenticated with the job's key before anything else (auth.go), and an acknowledged barrier ends it.
// Control traffic (small gathers, heartbeats, the reason of a failure) runs through rank 0, on connections of its own.
// Neither control nor data are encrypted, only gossip is: run it on a network you trust.
package dist
