package s3sink

import (
	"context"
	"math"
)

// recoveredBlock is the number of every block of a previous run. Flush and
// Close wait for these blocks whenever they were found.
const recoveredBlock = math.MaxUint64

// waiter is a call of Flush or Close that waits until blocks are settled: the
// blocks of this run with a number below a bound, and all blocks of previous
// runs, of one source or of all sources.
type waiter struct {
	source *Source // nil: every source
	below  uint64  // block numbers of this run
	blocks int     // not settled yet; an unfinished recovery counts as one
	done   chan struct{}

	damaged int64 // events of these blocks in objects that were set aside; read after done
}

// wait returns true when the blocks are settled, even if ctx has ended as well.
// It returns false if ctx ends or closed is closed first. Close passes a nil
// channel.
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
	return (blk.number < w.below || blk.number == recoveredBlock) && (w.source == nil || w.source == blk.source)
}

// await returns a waiter for the blocks of s that are pending now, and for the
// blocks of s that an unfinished recovery has yet to find. A nil s stands for
// every source.
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

// blockDoneLocked counts one block of w as settled, or the end of recovery.
func (b *batcher) blockDoneLocked(w *waiter) {
	w.blocks--
	if w.blocks == 0 {
		close(w.done)
		delete(b.waiters, w)
	}
}

// abandon removes a waiter whose caller has given up.
func (b *batcher) abandon(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiters, w)
}
