package s3sink

import (
	"context"
	"math"
)

// recovered is the number of the blocks of earlier runs.
const recovered = math.MaxUint64

// waiter waits until the blocks of this run below a number and the blocks of
// earlier runs, of one source or of all, are delivered or given up.
type waiter struct {
	source *Source // nil: all
	below  uint64
	blocks int // still to come; the recovery counts as one while it goes on
	done   chan struct{}

	damaged int64 // events of them in objects that were set aside; read when done
}

// wait returns true when the blocks are settled, also if ctx has ended too, and
// false when ctx ends or the sink is closed first. Close itself passes nil.
func (w *waiter) wait(ctx context.Context, closed <-chan struct{}) bool {
	select {
	case <-ctx.Done():
	case <-closed:
	case <-w.done:
	}
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *waiter) wants(blk *block) bool {
	return (blk.number < w.below || blk.number == recovered) && (w.source == nil || w.source == blk.source)
}

// await returns a waiter for the blocks that are pending now, of one source or
// (nil) of all, and for those that a recovery has still to find.
func (b *batcher) await(s *Source) *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &waiter{source: s, below: b.blocks, done: make(chan struct{})}
	for blk := range b.pending {
		if w.wants(blk) {
			w.blocks++
		}
	}
	if b.recovering {
		w.blocks++
	}
	if w.blocks == 0 {
		close(w.done)
		return w
	}
	b.waiters[w] = struct{}{}
	return w
}

// countLocked notes that one of the things that a waiter waits for has ended.
func (b *batcher) countLocked(w *waiter) {
	w.blocks--
	if w.blocks == 0 {
		close(w.done)
		delete(b.waiters, w)
	}
}

// abandon forgets a waiter that nobody waits for any more.
func (b *batcher) abandon(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiters, w)
}
