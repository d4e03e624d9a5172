package s3sink

import (
	"log/slog"
	"sync"
	"time"
)

// LastingOutage is how long every upload must have failed before [Sink.Err]
// reports a failure that needs nobody to act.
const LastingOutage = 5 * time.Minute

// uploadHealth says whether uploads work, by the attempts that have ended.
type uploadHealth struct {
	mu    sync.Mutex
	last  *UploadError // why the last attempt failed; nil if it succeeded
	since time.Time    // when the first of an unbroken row of failed attempts ended
}

// failed notes a failed attempt.
func (h *uploadHealth) failed(err *UploadError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		h.since = time.Now()
	}
	h.last = err
}

// clear notes that an attempt succeeded, or that the object which failed is gone.
func (h *uploadHealth) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.since = nil, time.Time{}
}

// failing returns the last error and since when every attempt has failed, or nil
// and the zero time.
func (h *uploadHealth) failing() (*UploadError, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last, h.since
}

// refusalPeriod is the time between two log messages about refused events, and
// the time without a refused event after which events count as taken again.
const refusalPeriod = time.Minute

// refusals counts the events that found no room, and logs the first one, the
// number of them once a period, and the end. A call of Track that is refused adds
// to a counter; messages are written by a timer that runs only during a shortage,
// so a slow Logger holds up no event.
type refusals struct {
	logger *slog.Logger
	bucket string
	room   func(bytes int64) bool // whether an event that needs bytes of the budget would be taken now

	mu     sync.Mutex
	timer  *time.Timer // nil while events are taken
	since  time.Time   // of the first one
	count  int64       // since the last message
	total  int64       // since the first one
	need   int64       // the most bytes that a refused event wanted
	last   error       // why the last one was refused
	closed bool
}

// add counts an event that was refused because of err.
func (r *refusals) add(need int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.count++
	r.total++
	r.need, r.last = max(r.need, need), err
	if r.timer == nil {
		r.since = time.Now()
		r.timer = time.AfterFunc(0, r.report)
	}
}

// active reports whether events are being refused.
func (r *refusals) active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.timer != nil
}

// report writes one message, and ends the shortage after a period without a
// refused event if there is room again.
func (r *refusals) report() {
	r.mu.Lock()
	need := r.need
	r.mu.Unlock()
	room := r.room(need)

	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	count, total, lasted, last := r.count, r.total, time.Since(r.since), r.last
	r.count = 0
	over := count == 0 && room
	if over {
		r.timer, r.total, r.need, r.last = nil, 0, 0, nil
	} else {
		r.timer.Reset(refusalPeriod)
	}
	r.mu.Unlock()
	switch {
	case over:
		r.logger.Warn("s3sink: Track takes events again", slog.String("bucket", r.bucket),
			slog.Int64("refused", total), slog.Duration("after", lasted))
	case count > 0:
		r.warn(count, total, last)
	}
}

func (r *refusals) warn(count, total int64, why error) {
	r.logger.Warn("s3sink: Track refuses events; those that the caller does not keep are lost", slog.String("bucket", r.bucket),
		slog.Int64("refused", count), slog.Int64("refused_in_all", total), slog.Any("error", why))
}

// close ends the messages; the last one has the events that none has counted yet.
func (r *refusals) close() {
	r.mu.Lock()
	r.closed = true
	count, total, last := r.count, r.total, r.last
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.mu.Unlock()
	if count > 0 {
		r.warn(count, total, last)
	}
}
