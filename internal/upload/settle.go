package upload

import (
	"container/heap"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
)

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 60 * time.Second

	// baseTimeout is what an attempt gets for everything but its bytes:
	// credentials, connection, and the server's own time.
	baseTimeout = 30 * time.Second

	// minUnread is how many attempts a segment gets that the disk has lost, and
	// unreadFor how long they go on at least: a disk may come back.
	minUnread = 5
	unreadFor = time.Hour
)

func attemptTimeout(size, minRate int64) time.Duration {
	return baseTimeout + time.Duration(float64(size)/float64(minRate)*float64(time.Second))
}

// backoff returns a random wait of up to minBackoff doubled with each failure.
// The jitter is full, so that a fleet that failed together returns spread out.
func backoff(failures int) time.Duration {
	limit := maxBackoff
	if shift := failures - 1; shift < 9 {
		limit = min(limit, minBackoff<<shift)
	}
	return rand.N(limit) + 1
}

func asError(err error) *s3put.Error {
	if err == nil {
		return nil
	}
	var e *s3put.Error
	if !errors.As(err, &e) {
		e = &s3put.Error{Class: s3put.Transient, Err: err}
	}
	return e
}

// settle takes the end of an attempt and starts what follows from it. It
// returns the refusal that parks the segment, if this one does.
func (u *Uploader) settle(it *item, refusal *s3put.Error) *Refusal {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.running, it)
	defer u.startLocked()
	if refusal == nil {
		u.succeededLocked(it)
		return nil
	}
	if it.atOnce(refusal.Class) {
		u.readyLocked(it)
		return nil
	}
	switch refusal.Class {
	case s3put.Transient, s3put.Integrity:
		u.delayLocked(it)
		u.slowLocked(it)
		return nil
	case s3put.Unreadable:
		if !it.lost(refusal) {
			u.delayLocked(it) // alone: S3 is not at fault
			return nil
		}
		refusal.Class = s3put.Damaged
		fallthrough
	case s3put.Damaged:
		if len(u.parked) == 0 { // it was what the bucket refused
			u.refusals, u.why = [2]int{}, nil
		}
		return nil
	}
	return u.refusedOnceLocked(it, refusal)
}

// atOnce reports whether to try again without a backoff, which each class that
// allows it does once.
func (it *item) atOnce(class s3put.Class) bool {
	var spent *bool
	switch class {
	case s3put.Refresh:
		spent = &it.refreshed
	case s3put.Skew:
		spent = &it.reclocked
	case s3put.Elsewhere:
		spent = &it.redirected
	default:
		return false
	}
	again := !*spent
	*spent = true
	return again
}

func (u *Uploader) succeededLocked(it *item) {
	u.failures, u.refusals[it.apart] = 0, 0
	u.gate = time.Time{}
	u.slots = min(u.slots+1, u.set.Concurrency)
	if it.wasParked {
		u.unparkLocked() // what was wrong is mended
	} else if len(u.parked) == 0 {
		u.why = nil
	}
}

// lost reports whether the disk has so often failed to read a segment that it
// will not do so any more. An attempt that came before its time, because
// somebody was in a hurry, is no further proof.
func (it *item) lost(refusal *s3put.Error) bool {
	var read *spool.ReadError
	if !errors.As(refusal, &read) || !read.Lost() || it.started.Before(it.notBefore) {
		return false
	}
	if it.unread == 0 {
		it.unreadSince = time.Now()
	}
	it.unread++
	return it.unread >= minUnread && time.Since(it.unreadSince) >= unreadFor
}

// delayLocked has a segment back off by its own failures. When S3 is at fault
// slowLocked has everything back off by the failures in a row, so that an outage
// costs one small probe at a time and one odd segment does not hold up the
// others.
func (u *Uploader) delayLocked(it *item) {
	it.failures++
	it.refreshed, it.reclocked, it.redirected = false, false, false
	it.notBefore = time.Now().Add(backoff(it.failures))
	heap.Push(&u.delayed, it)
}

func (u *Uploader) slowLocked(it *item) {
	now := time.Now()
	if it.started.Before(u.gate) {
		return // one of several that failed together: counted already
	}
	u.failures++
	u.gate = now.Add(backoff(u.failures))
	u.slots = max(1, u.slots/2)
}

func (u *Uploader) refusedOnceLocked(it *item, refusal *s3put.Error) *Refusal {
	if it.round != u.round { // it may have begun before it was mended
		u.readyLocked(it)
		return nil
	}
	it.wasParked = true
	it.refreshed, it.reclocked, it.redirected = false, false, false
	if len(u.parked) == 0 && u.probe.Before(time.Now()) {
		u.probe = time.Now().Add(u.set.RetryParked)
	}
	u.parked = append(u.parked, it)
	u.refusals[it.apart]++
	err := *refusal
	err.Class = s3put.Parked // whatever it was, it is tried slowly now
	u.why = &Refusal{Segment: it.seg, Attempts: it.attempts, Err: &err}
	return u.why
}
