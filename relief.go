package s3sink

import (
	"cmp"
	"slices"
)

// Relief frees memory when MaxMemory is nearly used up. It runs on a goroutine
// of its own that holds no lock, because its callers hold Source.mu:
//
//  1. Track holds the lock of source A and finds memory short. The largest
//     partition belongs to source B, so sealing it needs the lock of B.
//  2. Track of source B does the same at that moment: it holds the lock of B,
//     and the largest partition belongs to A.
//  3. If each sealed the partition itself, both would wait forever.

// relieve requests relief and returns at once. Relief does nothing if enough
// memory is already being freed.
func (b *batcher) relieve() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return // Close has sealed every partition
	}
	b.reliefRequested = true
	if !b.relieving {
		b.relieving = true
		b.relief.Go(b.runRelief)
	}
}

// relieveIfShort requests relief if seven eighths of the budget are used, or if
// a caller waits for memory.
func (b *batcher) relieveIfShort() {
	used, _ := b.budget.Used()
	if used > b.budget.Size()/8*7 || b.budget.Wanted() > 0 {
		b.relieve()
	}
}

// runRelief runs until no request is left. Requests that arrive during a pass
// share the next pass. A request during the last moments of a pass is not lost:
// reliefRequested and relieving change under one lock.
func (b *batcher) runRelief() {
	for {
		b.mu.Lock()
		if !b.reliefRequested {
			b.relieving = false
			b.mu.Unlock()
			return
		}
		b.reliefRequested = false
		b.mu.Unlock()
		b.sealLargest()
	}
}

// candidate is an open partition that relief may seal.
type candidate struct {
	part  *partition
	bytes int64 // freed by sealing the partition, and by nothing else
}

// sealLargest seals open partitions, largest first, until the memory deficit is
// covered. With a SpoolDir it only cuts their open blocks: the lines move to
// disk and the objects stay open.
func (b *batcher) sealLargest() {
	deficit, parts := b.memoryDeficit()
	slices.SortFunc(parts, func(x, y candidate) int { return cmp.Compare(y.bytes, x.bytes) })
	for _, c := range parts {
		if deficit <= 0 {
			return
		}
		if b.journal != nil {
			c.part.source.cutBlock(c.part)
		} else {
			c.part.source.seal(c.part, SealedByMemory)
		}
		deficit -= c.bytes
	}
}

// memoryDeficit returns how many bytes relief must still free, and the open
// partitions. The target is an eighth of the budget, which keeps the uploader
// busy while the rest is freed, or the bytes that callers wait for, if that is
// more. Bytes that are free or are being freed count towards the target.
//
// Bytes outside open partitions are being freed: they are compressed, uploaded
// or written to disk. There are three exceptions.
//
// Parked segments, if other uploads succeed. Otherwise:
//
//  1. The bucket denies the prefix of source A, whose segments fill the memory.
//  2. Relief takes the memory of A as being freed and seals nothing.
//  3. Sources that the bucket accepts wait for memory until an operator fixes
//     the policy, although sealing their own partitions would free some.
//
// Blocks on disk (b.spooledBudget), which hold a few bytes each until their
// object is delivered, perhaps hours later.
//
// Blocks of an open partition that are cut but not in its segment yet. They are
// being compressed: counting their raw size would make a small partition look
// like the largest one and seal it for nothing. Compression requests relief
// again when it ends.
func (b *batcher) memoryDeficit() (deficit int64, open []candidate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	deficit = max(b.budget.Size()/8, b.budget.Wanted()) - b.budget.Size() + b.spooledBudget
	for e := b.open.Front(); e != nil; e = e.Next() {
		p := e.Value.(*partition)
		bytes := p.held.Load() - p.heldByCut
		if b.journal != nil { // frames are being written to disk
			bytes = 0
			if p.lastOpened != nil && !p.lastOpened.cut {
				bytes = p.lastOpened.held
			}
		}
		deficit += bytes
		open = append(open, candidate{p, bytes})
	}
	for _, seg := range b.stuck() {
		for _, blk := range b.contents[seg] {
			if !blk.spooled {
				deficit += blk.held
			}
		}
	}
	return deficit, open
}
