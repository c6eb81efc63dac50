package nccl

// The collectives. Each queues its work on the stream and returns: Wait, then wait for the stream. All ranks must call the
// same in the same order. count is of elements; addresses are of device memory.

func (c *Comm) collective(symbol string, a call) error {
	return c.do(symbol, func(h uintptr) Result {
		c.last = symbol
		return c.lib.abi.collective(symbol, h, a)
	})
}

// AllReduce sets every rank's recv [count] to the reduction of all sends. In place if send == recv.
func (c *Comm) AllReduce(send, recv uintptr, count int, t DataType, op RedOp, stream uintptr) error {
	return c.collective("ncclAllReduce", call{send: send, recv: recv, count: count, dtype: t, op: op, stream: stream})
}

// Reduce sets root's recv [count] to the reduction of all sends.
func (c *Comm) Reduce(send, recv uintptr, count int, t DataType, op RedOp, root int, stream uintptr) error {
	return c.collective("ncclReduce", call{send: send, recv: recv, count: count, dtype: t, op: op, root: root, stream: stream})
}

// Broadcast sets every rank's recv [count] to root's send.
func (c *Comm) Broadcast(send, recv uintptr, count int, t DataType, root int, stream uintptr) error {
	return c.collective("ncclBroadcast", call{send: send, recv: recv, count: count, dtype: t, root: root, stream: stream})
}

// AllGather sets every rank's recv [nranks × count] to all sends [count], by rank. In place if send is the rank's part of recv.
func (c *Comm) AllGather(send, recv uintptr, count int, t DataType, stream uintptr) error {
	return c.collective("ncclAllGather", call{send: send, recv: recv, count: count, dtype: t, stream: stream})
}

// ReduceScatter sets rank r's recv [count] to the r-th part of the reduction of all sends [nranks × count].
func (c *Comm) ReduceScatter(send, recv uintptr, count int, t DataType, op RedOp, stream uintptr) error {
	return c.collective("ncclReduceScatter", call{send: send, recv: recv, count: count, dtype: t, op: op, stream: stream})
}

// Send sends to a peer, which must Recv as much.
func (c *Comm) Send(send uintptr, count int, t DataType, peer int, stream uintptr) error {
	return c.collective("ncclSend", call{send: send, count: count, dtype: t, root: peer, stream: stream})
}

// Recv receives from a peer, which must Send as much.
func (c *Comm) Recv(recv uintptr, count int, t DataType, peer int, stream uintptr) error {
	return c.collective("ncclRecv", call{recv: recv, count: count, dtype: t, root: peer, stream: stream})
}
