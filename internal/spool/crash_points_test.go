package spool_test

import (
	"hash/fnv"
	"io"
	"sync"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// trail is the latest disk operations of a life.
type trail struct {
	mu    sync.Mutex
	phase string // of the life
	calls []crashfs.Call
}

// trailLength is the number of operations in a trail; repetitions count once.
const trailLength = 8

func (t *trail) begin(phase string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
}

func (t *trail) step(call crashfs.Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.calls); n > 0 && t.calls[n-1] == call {
		return
	}
	if t.calls = append(t.calls, call); len(t.calls) > trailLength {
		t.calls = t.calls[1:]
	}
}

// points counts the different points at which lives have ended: the kind of
// end, the phase, and the trail.
type points struct {
	mu   sync.Mutex
	seen map[uint64]bool
}

func (p *points) add(how string, t *trail) {
	hash := fnv.New64a()
	t.mu.Lock()
	io.WriteString(hash, how+" "+t.phase)
	for _, call := range t.calls {
		io.WriteString(hash, " "+string(call))
	}
	t.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[hash.Sum64()] = true
}
