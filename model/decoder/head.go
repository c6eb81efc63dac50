package decoder

import (
	"github.com/splora/splora/model/tensor"
)

// head gives the losses of the rows that have a target, and those rows. Unless d is absent, it sets d [N,C] to the gradient of
// Σ loss with respect to x. Logits stand ChunkRows at a time, and are formed once: their gradient replaces them.
func (m *Model) head(p *pass, x, d tensor.Tensor, b *Batch) (loss []float32, rows []int32) {
	var targets []int32
	for i, t := range b.Targets {
		if t >= 0 {
			rows, targets = append(rows, int32(i)), append(targets, t)
		}
	}
	if !d.Absent() {
		m.Fill(d, 0)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	defer m.Acts.Reset(m.Acts.Mark())
	l, r, t := m.pushFloat(1, len(rows)), m.upload(rows), m.upload(targets)
	for i := 0; i < len(rows); i += m.Options.ChunkRows {
		n := min(m.Options.ChunkRows, len(rows)-i)
		m.headChunk(l.Window(i, 1, n), x, d, r.Window(i, 1, n), t.Window(i, 1, n))
	}
	loss = make([]float32, len(rows))
	m.Download(tensor.Of(loss).Mem.Host, l)
	return loss, rows
}

// headChunk sets loss = CE(Head·RMSNorm(x_rows), target) and, unless d is absent, d_rows to its gradient.
func (m *Model) headChunk(loss, x, d, rows, target tensor.Tensor) {
	defer m.Acts.Reset(m.Acts.Mark())
	n, c := rows.Cols, m.Config.Hidden
	xr, rstd, logits := m.logits(x, rows)
	m.CrossEntropy(loss, logits, target, !d.Absent())
	if d.Absent() {
		return
	}
	dn, dx := m.push(n, c), m.push(n, c)
	m.Gemm(dn, 1, logits, false, m.Weights.Head(), false, 0)
	m.RMSNormBackward(dx, dn, xr, m.Weights.FinalNorm(), rstd, 0)
	m.Scatter(d, dx, rows)
}

// logits pushes xr = x_rows, and Head·RMSNorm(xr) [n,V].
func (m *Model) logits(x, rows tensor.Tensor) (xr, rstd, logits tensor.Tensor) {
	n, c := rows.Cols, m.Config.Hidden
	xr, rstd = m.push(n, c), m.pushFloat(1, n)
	xn := m.push(n, c)
	m.Gather(xr, x, rows)
	m.RMSNorm(xn, rstd, xr, m.Weights.FinalNorm(), m.Config.Eps)
	logits = m.push(n, m.Config.Vocab)
	m.Gemm(logits, 1, xn, false, m.Weights.Head(), true, 0)
	return xr, rstd, logits
}

// Logits gives the logits of the given rows of the batch (of all, when nil), [len(rows), V], on the host.
func (m *Model) Logits(b Batch, rows []int32) ([]float32, error) {
	if err := m.check(&b); err != nil {
		return nil, err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	p := m.begin(&b)
	x := m.embed(p, &b)
	m.run(p, x)
	if rows == nil {
		rows = count(p.n())
	}
	return m.download(x, rows), m.Sync()
}

func count(n int) []int32 {
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(i)
	}
	return rows
}

// download gives the logits of some rows of x on the host, chunk by chunk.
func (m *Model) download(x tensor.Tensor, rows []int32) []float32 {
	v := m.Config.Vocab
	out := make([]float32, len(rows)*v)
	for i := 0; i < len(rows); i += m.Options.ChunkRows {
		mark := m.Acts.Mark()
		n := min(m.Options.ChunkRows, len(rows)-i)
		_, _, logits := m.logits(x, m.upload(rows[i:i+n]))
		m.downloadWide(out[i*v:(i+n)*v], logits)
		m.Acts.Reset(mark)
	}
	return out
}

// downloadWide sets dst to an activation's elements, as float32.
func (m *Model) downloadWide(dst []float32, t tensor.Tensor) {
	if t.DType == tensor.F32 {
		m.Download(tensor.Of(dst).Mem.Host, t)
		return
	}
	host := tensor.New(t.DType, t.Rows, t.Cols)
	m.Download(host.Mem.Host, t)
	tensor.Widen(dst, host)
}
