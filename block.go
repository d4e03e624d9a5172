package s3sink

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

// A block holds the lines that are compressed together, in a chain of chunks.
// Each chunk is charged to the memory budget before it is filled. The first
// chunk is small, because ten thousand quiet sources have ten thousand open
// blocks.
const (
	firstChunk = 4 << 10
	nextChunk  = 16 << 10

	// A block is cut at minBlock raw bytes, so that compression starts early.
	// While all compressors are busy it grows up to maxBlock, because a longer
	// block compresses better and faster.
	minBlock = 256 << 10
	maxBlock = 1 << 20

	// recordBytes is charged for a block in addition to its lines: the records
	// of the block, its partition and its object, until the object is
	// delivered. It was measured with one event per object, where these records
	// are nearly all of the memory.
	recordBytes = 1536
)

// block is first open (Track adds lines), then cut (it waits for compression, or
// for the blocks before it), then in a segment (appended).
type block struct {
	part   *partition // nil for a block of a previous run
	source *Source
	events atomic.Int64 // incremented under Source.mu, read by Stats

	// Guarded by Source.mu while the block is open; owned by the compressor
	// after the cut.
	chunks      [][]byte
	raw         int
	first, last time.Time // received times, earliest and latest

	// Guarded by batcher.mu.
	cut          bool
	framed       bool // compression has ended
	appended     bool // in a segment
	frame        *spool.Frame
	held         int64     // bytes of the budget
	staged       int       // raw bytes that are in the journal or in a running commit
	dirtySince   time.Time // no unstaged line is older
	payload      int64     // bytes of its frame in memory, while it is in a segment
	stagesInUse  int       // stages whose lines the journal still reads from chunks
	spooled      bool      // its frame is on disk
	syncedEvents int64     // events in stages on disk; if spooled, every event is on disk
	sealed       bool      // its segment is sealed
	startsObject bool      // must not share an object with the block before it
	sealsAfter   SealReason
	number       uint64    // in the order of opening within this run, or recoveredBlock
	opened       time.Time // with a monotonic clock reading
}

// bytesFor returns the bytes that must be taken from the budget before n more
// bytes fit. A nil block still has to be opened, which needs bytes too.
func (b *block) bytesFor(n int) (bytes int64) {
	if b == nil {
		return recordBytes + chunkBytes(true, n)
	}
	last := b.chunks[len(b.chunks)-1]
	return chunkBytes(false, n-(cap(last)-len(last)))
}

// chunkBytes returns the size of the chunks that n more bytes need.
func chunkBytes(first bool, n int) (bytes int64) {
	if n <= 0 {
		return 0
	}
	if first {
		return firstChunk + chunkBytes(false, n-firstChunk)
	}
	return int64((n + nextChunk - 1) / nextChunk * nextChunk)
}

// add appends line and a newline. The caller has taken bytesFor from the budget.
func (b *block) add(line []byte, received time.Time) {
	b.write(line)
	b.write(newline)
	b.raw += len(line) + 1
	if b.first.IsZero() || received.Before(b.first) { // the clock can go back
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

// unstaged returns the lines that are not staged yet, with their offset in the
// block, and counts them as staged. The bytes do not change until the block is
// freed.
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

// free returns the chunks to their pools.
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

// chunkPool pools chunks of one size. It holds array pointers: putting a slice
// into an interface would allocate each time.
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
