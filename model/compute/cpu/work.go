package cpu

// Work counts what the kernels were given since the backend began: figures that follow from the shapes alone, whatever the machine's mood and
// the number of threads. A product packs each operand once; a change that packs twice, or merges twice, shows here on every run.
type Work struct {
	Packed int // elements written into the panels of products
	Tiles  int // tiles that a product's kernel makes, once for each block of inner elements
	Merged int // elements of W̃ that were formed
	Words  int // of the mask, 64 inputs each, that walks over kept weights took, once for every register of tokens
	Tasks  int // times that work was handed to the threads
}

func (w *Work) add(x Work) {
	w.Packed += x.Packed
	w.Tiles += x.Tiles
	w.Merged += x.Merged
	w.Words += x.Words
	w.Tasks += x.Tasks
}

// Work is the sum over all threads so far.
func (b *Backend) Work() Work {
	all := Work{Tasks: b.pool.tasks}
	for i := range b.pool.workers {
		all.add(b.pool.workers[i].work)
	}
	return all
}
