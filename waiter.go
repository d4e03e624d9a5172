package s3sink

import (
	"context"
	"math"
)

// waiter waits until the blocks below a number, of one source or of all, are
// delivered or given up.
type waiter struct {
	source *Source // nil: all
	below  uint64
	blocks int // still to come
	done   chan struct{}

	damaged int64 // events of them in objects that were set aside; read when done
}

// wait returns true when the blocks are settled, also if ctx has ended too, and
// false when ctx ends first.
func (w *waiter) wait(ctx context.Context) bool {
	select {
	case <-w.done:
		return true
	default:
	}
	select {
	case <-w.done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *waiter) wants(blk *block) bool {
	return blk.number < w.below && (w.source == nil || w.source == blk.part.source)
}

// await returns a waiter for what is pending now, of one source or (nil) of
// all.
func (b *batcher) await(s *Source) *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.awaitLocked(&waiter{source: s, below: b.blocks, done: make(chan struct{})})
}

// awaitAll returns a waiter for all that is pending, of earlier runs too.
func (b *batcher) awaitAll() *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.awaitLocked(&waiter{below: math.MaxUint64, done: make(chan struct{})})
}

func (b *batcher) awaitLocked(w *waiter) *waiter {
	for blk := range b.pending {
		if w.wants(blk) {
			w.blocks++
		}
	}
	if w.blocks == 0 {
		close(w.done)
		return w
	}
	b.waiters[w] = struct{}{}
	return w
}

// abandon forgets a waiter that nobody waits for any more.
func (b *batcher) abandon(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiters, w)
}
