// Package budget bounds the memory that events occupy on their way: everything
// is taken before it is filled and given back when it is free, so the bound
// holds at every moment, not on average.
package budget

import (
	"container/list"
	"context"
	"sync"
)

// Budget is a number of bytes to share. It is safe for concurrent use.
type Budget struct {
	size int64

	mu      sync.Mutex
	used    int64
	peak    int64
	waiters list.List // of *waiter, first come first served
}

type waiter struct {
	bytes   int64
	granted chan struct{}
}

// New returns a budget of size bytes.
func New(size int64) *Budget { return &Budget{size: size} }

// TryTake takes n bytes, or reports that there is no room. Those that wait in
// [Budget.Take] come first.
func (b *Budget) TryTake(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters.Len() > 0 || b.used+n > b.size {
		return false
	}
	b.takeLocked(n)
	return true
}

// Take takes n bytes, waiting for room until ctx ends; then it returns ctx's
// cause and nothing is taken. It serves callers in the order they came.
func (b *Budget) Take(ctx context.Context, n int64) error {
	if b.TryTake(n) {
		return nil
	}
	w := &waiter{bytes: n, granted: make(chan struct{})}
	b.mu.Lock()
	place := b.waiters.PushBack(w)
	b.grantLocked() // room may have come since
	b.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted: // both at once: the bytes are ours, so keep them
		return nil
	default:
	}
	b.waiters.Remove(place)
	b.grantLocked() // those behind may ask for less
	return context.Cause(ctx)
}

// Give returns n bytes.
func (b *Budget) Give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.used < 0 {
		panic("budget: more given back than was taken")
	}
	b.grantLocked()
}

// Used returns the bytes taken now, and the most that ever were.
func (b *Budget) Used() (now, peak int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.peak
}

// Size returns the bound.
func (b *Budget) Size() int64 { return b.size }

func (b *Budget) grantLocked() {
	for e := b.waiters.Front(); e != nil; e = b.waiters.Front() {
		w := e.Value.(*waiter)
		if b.used+w.bytes > b.size {
			return
		}
		b.takeLocked(w.bytes)
		b.waiters.Remove(e)
		close(w.granted)
	}
}

func (b *Budget) takeLocked(n int64) {
	b.used += n
	b.peak = max(b.peak, b.used)
}
