package data

// bins is how many unfinished sequences packing keeps open: more leave less room unused, and need more memory.
const bins = 64

// packer lays documents into sequences of at most seq tokens by first fit: a document goes to the oldest open sequence
// that has room. When bins are open and none has, the fullest (the oldest of them) is finished. So the result depends on
// the documents and their order alone, memory on bins·seq. A document is never cut here.
type packer struct {
	seq  int
	emit func(docs []sample) error
	open []bin // oldest first
}

type bin struct {
	docs []sample
	used int
}

func (p *packer) add(s sample) error {
	for i := range p.open {
		if p.open[i].used+len(s.tokens) <= p.seq {
			return p.put(i, s)
		}
	}
	if len(p.open) == bins {
		fullest := 0
		for i := range p.open {
			if p.open[i].used > p.open[fullest].used {
				fullest = i
			}
		}
		if err := p.finish(fullest); err != nil {
			return err
		}
	}
	p.open = append(p.open, bin{})
	return p.put(len(p.open)-1, s)
}

func (p *packer) put(i int, s sample) error {
	b := &p.open[i]
	b.docs = append(b.docs, s)
	b.used += len(s.tokens)
	if b.used == p.seq {
		return p.finish(i)
	}
	return nil
}

func (p *packer) finish(i int) error {
	docs := p.open[i].docs
	p.open = append(p.open[:i], p.open[i+1:]...)
	return p.emit(docs)
}

// flush finishes what is open, oldest first.
func (p *packer) flush() error {
	for len(p.open) > 0 {
		if err := p.finish(0); err != nil {
			return err
		}
	}
	return nil
}
