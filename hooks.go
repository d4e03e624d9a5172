package s3sink

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

// Hooks are told what happens to objects; nil ones are skipped. They are called
// one at a time, in order, on a goroutine of their own and without a lock, so a
// hook may call any method of the sink except Close. A hook that falls 1,024
// calls behind misses the next ones, which [Stats] counts; events are never
// held up. A hook that panics is logged. For exact totals use [Sink.Stats].
type Hooks struct {
	Sealed   func(Sealed)   // an object is complete and will be sent
	Attempt  func(Attempt)  // an attempt to send one has ended
	Uploaded func(Uploaded) // S3 has it
	Parked   func(Parked)   // S3 refuses it until somebody acts
	Corrupt  func(Corrupt)  // it was damaged, in memory or in the spool, and events of it are lost

	CredentialRefresh func(CredentialRefresh) // STS was asked for a session of a role
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	Bucket, Key   string
	Source        string    // the source id as it was given
	Day           time.Time // received-day, 00:00 UTC
	Sequence      uint64    // orders the objects of a run
	Events        int64
	Bytes         int64 // as stored
	RawBytes      int64 // of NDJSON
	FirstReceived time.Time
	LastReceived  time.Time
}

// Sealed is what the hook of that name is told.
type Sealed struct {
	Object ObjectInfo
	Reason SealReason
}

// Attempt is what the hook of that name is told. Err is nil or an
// [*UploadError]. One that wraps context.Canceled was cut off: by Close, or because
// another attempt of the object was made beside it.
type Attempt struct {
	Object   ObjectInfo
	Number   int // 1 for the first
	Duration time.Duration
	Err      error
}

// Uploaded is what the hook of that name is told.
type Uploaded struct {
	Object    ObjectInfo
	ETag      string
	VersionID string
	Attempts  int
	Duration  time.Duration // from seal to acknowledgement

	// Existed says that S3 had the object already: an earlier attempt had
	// stored it and its answer was lost, or has not come yet.
	Existed bool
}

// Parked is what the hook of that name is told.
type Parked struct {
	Object ObjectInfo
	Err    *UploadError
}

// Corrupt is what the hook of that name is told. Of an object that an earlier
// run had closed, Object.Events are those that are lost, and the others go into
// another object. Err wraps [ErrDamaged].
type Corrupt struct {
	Object ObjectInfo
	Err    *UploadError
}

// CredentialRefresh is what the hook of that name is told.
type CredentialRefresh struct {
	Role     string        // its ARN
	Expires  time.Time     // when the session that is used now ends; zero if there is none
	Duration time.Duration // of the call
	Err      error         // nil: the session is new
}

// SealReason is why an object was closed.
type SealReason int

// The reasons. The zero value means that the object is open.
const (
	_              SealReason = iota
	SealedBySize              // the next block would exceed MaxObjectBytes, or MaxObjectEvents
	SealedByEvents            // MaxObjectEvents is reached
	SealedByAge               // MaxObjectAge has passed
	SealedByFlush
	SealedByClose
	SealedByMemory     // MaxMemory ran short
	SealedByPartitions // MaxOpenPartitions was exceeded
	SealedByRecovery   // an earlier run had left it open
	SealedByClock      // the clock went back to its day, whose later events must come later
)

func (r SealReason) String() string {
	names := [...]string{"open", "size", "events", "age", "flush", "close", "memory", "partitions", "recovery", "clock"}
	if r < 0 || int(r) >= len(names) {
		return "unknown"
	}
	return names[r]
}

func objectInfo(seg *spool.Segment) ObjectInfo {
	return ObjectInfo{
		Bucket: seg.Bucket, Key: seg.Key, Source: seg.Source, Day: seg.Day, Sequence: seg.Sequence,
		Events: seg.Events, Bytes: seg.Size(), RawBytes: seg.Raw,
		FirstReceived: seg.First, LastReceived: seg.Last,
	}
}

const hookQueue = 1024

// hookRunner calls hooks. Its goroutine exists only while there are calls.
type hookRunner struct {
	guard  guard
	missed atomic.Int64

	mu      sync.Mutex
	calls   []func()
	running bool
	idle    chan struct{} // closed when the running goroutine ends
}

func (h *hookRunner) call(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.calls) >= hookQueue {
		h.missed.Add(1)
		return
	}
	h.calls = append(h.calls, f)
	if !h.running {
		h.running = true
		h.idle = make(chan struct{})
		go h.run()
	}
}

func (h *hookRunner) run() {
	for {
		f, ok := h.next()
		if !ok {
			return
		}
		_ = h.guard.call("a hook", func() error { f(); return nil }) // call logs a panic
	}
}

func (h *hookRunner) next() (f func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.calls) == 0 {
		h.running, h.calls = false, nil
		close(h.idle)
		return nil, false
	}
	f = h.calls[0]
	h.calls = h.calls[1:]
	return f, true
}

// drain waits for the calls that are queued, until ctx ends.
func (h *hookRunner) drain(ctx context.Context) {
	h.mu.Lock()
	running, idle := h.running, h.idle
	h.mu.Unlock()
	if !running {
		return
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
