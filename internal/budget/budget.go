// Package budget bounds the memory of buffered events. Bytes are taken before
// they are filled and given back when they are freed, so the bound holds at every
// moment, not on average.
package budget

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// ErrClosed is what [Budget.Take] returns after [Budget.Close].
var ErrClosed = errors.New("budget: closed")

// Budget is a number of bytes to share. It is safe for concurrent use.
type Budget struct {
	size int64
	wait func()

	mu      sync.Mutex
	closed  bool
	used    int64
	peak    int64
	waiters list.List // of *waiter, first come first served
}

type waiter struct {
	bytes   int64
	granted bool
	wake    chan struct{} // closed when granted, or when the budget is closed
}

// New returns a budget of size bytes. It calls wait, without a lock, whenever a
// [Budget.Take] begins to wait, so that the owner can free bytes.
func New(size int64, wait func()) *Budget { return &Budget{size: size, wait: wait} }

// TryTake takes n bytes, or reports that there is no room. Waiting calls of
// [Budget.Take] are served first.
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
	w := &waiter{bytes: n, wake: make(chan struct{})}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	place := b.waiters.PushBack(w)
	b.grantLocked() // room may have come since
	b.mu.Unlock()
	b.wait()
	select {
	case <-w.wake:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case w.granted: // perhaps while ctx ended: the bytes are ours, so keep them
		return nil
	case b.closed:
		return ErrClosed
	}
	b.waiters.Remove(place)
	b.grantLocked() // those behind may ask for less
	return context.Cause(ctx)
}

// Close ends every wait, and every later one, with [ErrClosed].
func (b *Budget) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for e := b.waiters.Front(); e != nil; e = e.Next() {
		close(e.Value.(*waiter).wake)
	}
	b.waiters.Init()
}

// Give returns n bytes that were taken.
func (b *Budget) Give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.grantLocked()
}

// Wanted returns the bytes that the first waiting [Budget.Take] asks for, or 0.
func (b *Budget) Wanted() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.waiters.Front(); e != nil {
		return e.Value.(*waiter).bytes
	}
	return 0
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
		w.granted = true
		close(w.wake)
	}
}

func (b *Budget) takeLocked(n int64) {
	b.used += n
	b.peak = max(b.peak, b.used)
}
