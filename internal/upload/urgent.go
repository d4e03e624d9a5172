package upload

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 60 * time.Second

	// urgentBackoff is the longest backoff while a caller waits for delivery.
	urgentBackoff = time.Second

	// roomShare bounds the backoff while callers wait for room: the duration of
	// the outage divided by roomShare.
	roomShare = 60
)

// Caller is a kind of waiting caller.
type Caller int

const (
	// ForDelivery is a caller that waits for segments to be in S3. Close makes
	// no attempts after its ctx ends, so a backoff longer than the outage loses
	// events.
	ForDelivery Caller = iota

	// ForRoom is a caller that waits for memory that delivery frees. A pipeline
	// can wait for the whole outage.
	ForRoom
)

// Urgent registers a waiting caller, and release removes it. While callers are
// registered, backoffs are short, including the current ones, and an attempt without
// progress gets a spare attempt.
func (u *Uploader) Urgent(why Caller) (release func()) {
	u.count(why, 1)
	return func() { u.count(why, -1) }
}

func (u *Uploader) count(why Caller, change int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.callers[why] += change
	pace := calm
	switch {
	case u.callers[ForDelivery] > 0:
		pace = awaited
	case u.callers[ForRoom] > 0:
		pace = roomNeeded
	}
	if pace == u.pace {
		return
	}
	u.pace = pace
	for _, it := range u.delayed {
		it.notBefore = it.wait.end(u.pace)
	}
	heap.Init(&u.delayed)
	u.startLocked()
}

// pace sets the longest backoff.
type pace int

const (
	calm       pace = iota // no caller waits
	roomNeeded             // callers wait for room
	awaited                // callers wait for delivery
)

// limit returns the longest backoff in an outage of that duration so far.
func (p pace) limit(failing time.Duration) time.Duration {
	switch p {
	case awaited:
		return urgentBackoff
	case roomNeeded:
		return min(max(urgentBackoff, failing/roomShare), maxBackoff)
	}
	return maxBackoff
}

// wait is a backoff. Its random length is drawn once, as a share of the limit.
// Callers that come and go change the limit and never cause another draw: the
// shortest of many draws would be no backoff at all. The zero value has ended.
type wait struct {
	from     time.Time
	failures int           // in a row
	failing  time.Duration // from the first of them to the last
	share    float64
}

// newWait begins a backoff of at most minBackoff, doubled with each failure. At a
// calm pace the jitter is full, so that the sinks of a fleet spread their retries.
func newWait(failures int, since time.Time) wait {
	now := time.Now()
	return wait{from: now, failures: failures, failing: now.Sub(since), share: rand.Float64()}
}

// end returns the time at which the wait ends at a pace.
func (w wait) end(p pace) time.Time {
	if w.from.IsZero() {
		return time.Time{}
	}
	limit := p.limit(w.failing)
	if shift := w.failures - 1; shift < 9 {
		limit = min(limit, minBackoff<<shift)
	}
	share := w.share
	if p != calm {
		share = (1 + share) / 2 // halves the requests of a throttled fleet
	}
	return w.from.Add(time.Duration(share*float64(limit)) + 1)
}
