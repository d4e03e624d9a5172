package s3sink

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
)

// Hooks are functions that the sink calls when the state of an object changes.
// Nil hooks are skipped. Hooks are called one at a time, in order, on a separate
// goroutine and without a lock, so a hook may call any method of the sink except
// Close. If 1,024 calls are queued, further calls are skipped and counted in
// [Stats].MissedHooks: a slow hook never delays events. A panic of a hook is
// logged. For exact totals use [Sink.Stats].
type Hooks struct {
	Sealed   func(Sealed)   // an object is complete and queued for upload
	Attempt  func(Attempt)  // an upload attempt has ended
	Uploaded func(Uploaded) // an object is in S3
	Parked   func(Parked)   // S3 refuses an object until an operator acts
	Corrupt  func(Corrupt)  // an object was damaged in memory or in the spool, and some or all of its events are lost

	CredentialRefresh func(CredentialRefresh) // STS has answered, or failed to answer, a request for a session
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	Bucket, Key   string
	Source        string    // the source id, not escaped
	Day           time.Time // received-day, 00:00 UTC
	Sequence      uint64    // position among the objects of a run
	Events        int64
	Bytes         int64 // as stored
	RawBytes      int64 // of NDJSON
	FirstReceived time.Time
	LastReceived  time.Time
}

// Sealed is the argument of the hook Sealed.
type Sealed struct {
	Object ObjectInfo
	Reason SealReason
}

// Attempt is the argument of the hook Attempt. Err is nil or an [*UploadError]. An
// error that wraps context.Canceled means that Close or a parallel attempt of the
// same object ended this attempt.
type Attempt struct {
	Object   ObjectInfo
	Number   int // 1 for the first
	Duration time.Duration
	Err      error
}

// Uploaded is the argument of the hook Uploaded.
type Uploaded struct {
	Object    ObjectInfo
	ETag      string
	VersionID string
	Attempts  int
	Duration  time.Duration // from seal to acknowledgement

	// Existed is true if S3 already had the object: an earlier attempt had
	// stored it, and its answer was lost or had not arrived yet.
	Existed bool
}

// Parked is the argument of the hook Parked.
type Parked struct {
	Object ObjectInfo
	Err    *UploadError
}

// Corrupt is the argument of the hook Corrupt. If a previous run had closed the
// object, Object.Events counts only the lost events; its other events go into
// another object. Err wraps [ErrDamaged].
type Corrupt struct {
	Object ObjectInfo
	Err    *UploadError
}

// CredentialRefresh is the argument of the hook CredentialRefresh.
type CredentialRefresh struct {
	Role     string        // ARN of the role
	Expires  time.Time     // end of the session in use; zero without a session
	Duration time.Duration // of the request to STS
	Err      error         // nil: a new session is in use
}

// SealReason is the reason why an object was closed.
type SealReason int

// Reasons to close an object. The zero value means that the object is open.
const (
	_              SealReason = iota
	SealedBySize              // the next block would exceed MaxObjectBytes, or MaxObjectEvents
	SealedByEvents            // MaxObjectEvents is reached
	SealedByAge               // MaxObjectAge has passed
	SealedByFlush
	SealedByClose
	SealedByMemory     // MaxMemory ran short
	SealedByPartitions // MaxOpenPartitions was exceeded
	SealedByRecovery   // a previous run had left it open
	SealedByClock      // the clock went back to its day: later events of that day need a later key
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

// hookQueue is the greatest number of queued hook calls.
const hookQueue = 1024

// hookRunner calls hooks. Its goroutine exists only while calls are queued.
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

// drain waits until the queued calls have ended, or until ctx ends.
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
