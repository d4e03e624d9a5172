package s3sink

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

// A block is the lines that are compressed together: a chain of chunks, each
// paid for from the memory budget before it is filled. Ten thousand quiet
// sources have ten thousand open blocks, so the first chunk is small.
const (
	firstChunk = 4 << 10
	nextChunk  = 16 << 10

	// A block is cut at minBlock raw bytes, so that little waits for
	// compression; at maxBlock while the compressors are all busy anyway,
	// because a longer block compresses better and faster.
	minBlock = 256 << 10
	maxBlock = 1 << 20

	// recordBytes is charged for a block besides its lines: what remembers
	// it, its partition and its object until they are delivered. Measured with
	// one event an object, where it is nearly everything.
	recordBytes = 1536
)

// block is open (it takes lines), then cut (it waits for compression or for
// the blocks before it), then part of a segment.
type block struct {
	part   *partition // nil for a block of an earlier run
	source *Source
	events atomic.Int64 // added to under Source.mu, read by Stats

	// Under Source.mu while open; the compressor's when cut.
	chunks      [][]byte
	raw         int
	first, last time.Time // received

	// Under batcher.mu.
	cut        bool
	framed     bool
	appended   bool
	frame      *spool.Frame
	held       int64     // of the budget
	staged     int       // raw bytes that the journal has, or is about to
	since      time.Time // when they were, or the block was opened
	payload    int64     // bytes of its frame in memory, when it is in a segment
	views      int       // stages that read chunks
	spooled    bool      // its frame is on disk
	onDisk     int64     // events in stages that are; more than that only if spooled
	sealed     bool      // its segment is
	opensNew   bool      // the block before it must not be in the same object
	sealsAfter SealReason
	number     uint64    // rises with each block of this run; or recovered
	opened     time.Time // by the monotonic clock
}

// room returns what the budget must give before n more bytes fit.
func (b *block) room(n int) (bytes int64) {
	if b == nil {
		return recordBytes + chunkBytes(true, n)
	}
	last := b.chunks[len(b.chunks)-1]
	return chunkBytes(false, n-(cap(last)-len(last)))
}

func chunkBytes(first bool, n int) (bytes int64) {
	if n <= 0 {
		return 0
	}
	if first {
		return firstChunk + chunkBytes(false, n-firstChunk)
	}
	return int64((n + nextChunk - 1) / nextChunk * nextChunk)
}

// add appends line and a newline. The room was paid for.
func (b *block) add(line []byte, received time.Time) {
	b.write(line)
	b.write(newline)
	b.raw += len(line) + 1
	if b.first.IsZero() || received.Before(b.first) { // the clock may go back
		b.first = received
	}
	if received.After(b.last) {
		b.last = received
	}
	b.events.Add(1)
}

var newline = []byte{'\n'}

func (b *block) write(p []byte) {
	for len(p) > 0 {
		if len(b.chunks) == 0 {
			b.chunks = append(b.chunks, firstChunks.get())
		}
		last := &b.chunks[len(b.chunks)-1]
		if len(*last) == cap(*last) {
			b.chunks = append(b.chunks, nextChunks.get())
			continue
		}
		n := min(len(p), cap(*last)-len(*last))
		*last = append(*last, p[:n]...)
		p = p[n:]
	}
}

// unstaged returns the lines that the journal does not have, which stay as they
// are until the block is freed.
func (b *block) unstaged() (pieces [][]byte, from int64) {
	from = int64(b.staged)
	skip := b.staged
	for _, c := range b.chunks {
		if skip >= len(c) {
			skip -= len(c)
			continue
		}
		pieces = append(pieces, c[skip:len(c):len(c)])
		skip = 0
	}
	b.staged = b.raw
	return pieces, from
}

// free gives the chunks back to their pools.
func (b *block) free() {
	for i, c := range b.chunks {
		if i == 0 {
			firstChunks.put(c)
		} else {
			nextChunks.put(c)
		}
	}
	b.chunks = nil
}

// chunkPool pools chunks of one size. It holds array pointers, because a
// slice in an interface would cost an allocation each time.
type chunkPool[A any] struct {
	pool  sync.Pool
	slice func(*A) []byte
	array func([]byte) *A
}

func (p *chunkPool[A]) get() []byte {
	if a, ok := p.pool.Get().(*A); ok {
		return p.slice(a)
	}
	return p.slice(new(A))
}

func (p *chunkPool[A]) put(c []byte) { p.pool.Put(p.array(c)) }

var (
	firstChunks = chunkPool[[firstChunk]byte]{
		slice: func(a *[firstChunk]byte) []byte { return a[:0] },
		array: func(c []byte) *[firstChunk]byte { return (*[firstChunk]byte)(c[:firstChunk]) },
	}
	nextChunks = chunkPool[[nextChunk]byte]{
		slice: func(a *[nextChunk]byte) []byte { return a[:0] },
		array: func(c []byte) *[nextChunk]byte { return (*[nextChunk]byte)(c[:nextChunk]) },
	}
)
