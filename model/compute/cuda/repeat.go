//go:build cuda

package cuda

import "github.com/splora/splora/model/tensor"

// Repeat sets dst to piece, again and again: the first copy comes from the host, the others are made on the device, each as long as
// all before it.
func (b *Backend) Repeat(dst tensor.Tensor, piece []byte) {
	n, at := dst.Bytes(), dst.Mem.Device
	first := min(n, len(piece))
	head := tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: first, Mem: dst.Mem}
	b.Upload(head, piece[:first])
	for done := first; done < n && b.err == nil; {
		k := min(done, n-done)
		b.queue("copy", func() error { return b.q.Copy(at+uintptr(done), at, k) })
		done += k
	}
}
