package s3sink

import (
	"log/slog"
	"sync"
	"time"
)

// LastingOutage is the time for which every upload must have failed before
// [Sink.Err] reports transient failures.
const LastingOutage = 5 * time.Minute

// uploadHealth holds the result of the most recent attempts.
type uploadHealth struct {
	mu    sync.Mutex
	last  *UploadError // error of the last attempt; nil if it succeeded
	since time.Time    // end of the first failed attempt since the last success
}

// failed records a failed attempt.
func (h *uploadHealth) failed(err *UploadError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		h.since = time.Now()
	}
	h.last = err
}

// clear records that an attempt succeeded, or that the failed object was set aside.
func (h *uploadHealth) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.since = nil, time.Time{}
}

// failing returns the last error and the time since which every attempt has
// failed, or nil and the zero time.
func (h *uploadHealth) failing() (*UploadError, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last, h.since
}

// refusalPeriod is the time between two log messages about refused events. A
// shortage ends after one period without a refused event.
const refusalPeriod = time.Minute

// refusals counts refused events. It logs the first one, their number once per
// period, and the end of the shortage. A refused call of Track only increments a
// counter. A timer writes the messages, so a slow Logger delays no event.
type refusals struct {
	logger *slog.Logger
	bucket string
	room   func(bytes int64) bool // reports whether Track would take an event that needs these bytes

	mu     sync.Mutex
	timer  *time.Timer // nil while no shortage is known
	since  time.Time   // of the first refused event
	count  int64       // refused since the last message
	total  int64       // refused since the shortage began
	need   int64       // the greatest number of bytes that a refused event needed
	last   error       // reason of the last refusal
	closed bool
}

// add counts an event that was refused with err.
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

// report writes one message. It ends the shortage if no event was refused for a
// period and there is room again.
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
	r.logger.Warn("s3sink: Track refuses events; a refused event is lost unless its caller keeps it and calls Track again", slog.String("bucket", r.bucket),
		slog.Int64("refused", count), slog.Int64("refused_in_all", total), slog.Any("error", why))
}

// close stops the timer and logs the refusals since the last message.
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
