package family

import (
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/tensor"
)

// Stream has the mapped linears of a packed folder read block by block, as they are leased: what has been used is no longer counted
// as this process's memory, and the next block is fetched meanwhile. So a model may be larger than the memory. To be called before
// anything else; a Hugging Face folder, whose sparse linears are packed in memory, takes no notice.
func (f *Folder) Stream() { f.stream = f.Packed }

// used gives back the pages of mapped memory that has been used, where the model is streamed; they are read again when they are wanted.
func (f *Folder) used(parts ...[]byte) {
	for _, p := range parts {
		if f.stream {
			safetensors.Forget(p)
		}
	}
}

// Weights is a loaded model as it is leased: as it is, or streamed.
func (f *Folder) Weights(r *decoder.Resident) decoder.Weights {
	if !f.stream {
		return r
	}
	return &streamed{r}
}

// streamed leases blocks of a mapped model.
type streamed struct{ *decoder.Resident }

// Prefetch tells the system that block i is wanted soon.
func (s *streamed) Prefetch(i int) { s.each(i, safetensors.WillNeed) }

// Release gives block i's pages back.
func (s *streamed) Release(i int) { s.each(i, safetensors.Forget) }

func (s *streamed) each(i int, advise func([]byte)) {
	for _, l := range s.Blocks[i].Linears {
		for _, m := range []tensor.Mem{l.W.Values.Mem, l.W.Bits, l.W.Starts} {
			advise(m.Host)
		}
	}
}

// Largest is the size of the largest block's linears, in bytes.
func Largest(r *decoder.Resident) (most int) {
	for _, b := range r.Blocks {
		n := 0
		for _, l := range b.Linears {
			n += l.W.Bytes()
		}
		most = max(most, n)
	}
	return most
}
