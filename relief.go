package s3sink

import (
	"cmp"
	"slices"
)

// relieve sees to it that memory comes free: unless enough is on its way out,
// it seals the largest partitions. It returns at once.
func (b *batcher) relieve() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return // everything is on its way out
	}
	b.again = true
	if !b.relieving {
		b.relieving = true
		b.relief.Go(b.runRelief)
	}
}

// relieveIfShort is relieve, if the budget is so far used that it is due, or
// somebody waits for it.
func (b *batcher) relieveIfShort() {
	used, _ := b.budget.Used()
	if used > b.budget.Size()/8*7 || b.budget.Wanted() > 0 {
		b.relieve()
	}
}

// runRelief looks once for every time it was asked, or once for several.
func (b *batcher) runRelief() {
	for {
		b.mu.Lock()
		if !b.again {
			b.relieving = false
			b.mu.Unlock()
			return
		}
		b.again = false
		b.mu.Unlock()
		b.sealLargest()
	}
}

// candidate is a partition that could be sealed.
type candidate struct {
	part  *partition
	bytes int64 // that nothing but its sealing would free
}

// sealLargest seals as many open partitions as it takes, largest first.
func (b *batcher) sealLargest() {
	short, parts := b.short()
	slices.SortFunc(parts, func(x, y candidate) int { return cmp.Compare(y.bytes, x.bytes) })
	for _, c := range parts {
		if short <= 0 {
			return
		}
		if b.journal != nil {
			c.part.source.cutOpen(c.part) // the spool takes it
		} else {
			c.part.source.seal(c.part, SealedByMemory)
		}
		short -= c.bytes
	}
}

// short returns the open partitions, and how many bytes ought to be free or on
// their way out and are not: an eighth of the budget, which keeps the uploader
// busy while the rest comes free, or what somebody waits for. On its way out
// is what no open partition holds, unless it is parked while other uploads go
// through; and what a partition has cut but not in its segment yet: that gets
// smaller and may fill the segment, which is seen when it is there, and then
// this is asked again. What remembers a block on disk stays until its object is
// delivered, which may be a matter of hours.
func (b *batcher) short() (short int64, open []candidate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	short = max(b.budget.Size()/8, b.budget.Wanted()) - b.budget.Size() + b.spooled
	for e := b.open.Front(); e != nil; e = e.Next() {
		p := e.Value.(*partition)
		bytes := p.held.Load() - p.underWay
		if b.journal != nil { // frames are on their way to the disk
			bytes = 0
			if p.newest != nil && !p.newest.cut {
				bytes = p.newest.held
			}
		}
		short += bytes
		open = append(open, candidate{p, bytes})
	}
	for _, seg := range b.stuck() {
		for _, blk := range b.contents[seg] {
			if !blk.spooled {
				short += blk.held
			}
		}
	}
	return short, open
}
