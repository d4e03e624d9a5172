package upload

import (
	"container/heap"
	"errors"
	"slices"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
)

const (
	// baseTimeout is what an attempt gets for everything but its bytes:
	// credentials, connection, and the server's own time.
	baseTimeout = 30 * time.Second

	// maxRemembered is the number of failures in a row from which a success
	// subtracts one. A throttling S3 accepts some requests of each sink, and one
	// success must not reset the backoff.
	maxRemembered = 5

	// minUnread is how many attempts a segment gets that the disk has lost, and
	// unreadFor how long they go on at least: a disk may come back.
	minUnread = 5
	unreadFor = time.Hour
)

func attemptTimeout(size, minRate int64) time.Duration {
	return baseTimeout + time.Duration(float64(size)/float64(minRate)*float64(time.Second))
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

// outcome is the result for the segment after an attempt has ended. All fields
// are nil if another attempt of the segment runs, or will be made.
type outcome struct {
	delivered *Delivery
	parked    *Refusal
	damaged   *Refusal
}

// settle records the end of an attempt and starts the next ones. If two attempts
// of a segment run, the segment is settled when the last one ends, because
// until then the transport may read the segment's bytes. A success of either
// counts; then a refusal that is not transient; then a transient one.
func (u *Uploader) settle(a *attempt, result s3put.Result, refusal *s3put.Error) outcome {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.startLocked()
	it := a.it
	it.running = slices.DeleteFunc(it.running, func(other *attempt) bool { return other == a })
	switch {
	case refusal == nil:
		u.storedLocked(a, result)
	case a.cut:
	case len(it.running) > 0 && (refusal.Class == s3put.Transient || refusal.Class == s3put.Integrity):
		u.failedLocked(a)
		it.running[0].spare = it.running[0].spare && a.spare // takes over the slot
		return outcome{}
	default:
		it.refusal = refusal
		it.cutOthersLocked()
	}
	if len(it.running) > 0 {
		return outcome{}
	}
	delete(u.running, it)
	refusal, it.refusal = it.refusal, nil
	switch {
	case it.stored != nil:
		return outcome{delivered: &Delivery{Segment: it.seg, Result: *it.stored, Attempts: it.attempts, Duration: time.Since(it.sealed)}}
	case refusal == nil:
		u.readyLocked(it) // its spare attempt was cancelled
		return outcome{}
	}
	return u.refusedLastLocked(a, refusal)
}

// refusedLastLocked handles a refusal when no other attempt of the segment runs.
func (u *Uploader) refusedLastLocked(a *attempt, refusal *s3put.Error) outcome {
	it := a.it
	if it.atOnce(refusal.Class) {
		u.readyLocked(it)
		return outcome{}
	}
	switch refusal.Class {
	case s3put.Transient, s3put.Integrity:
		u.failedLocked(a)
		u.delayLocked(it)
		return outcome{}
	case s3put.Unreadable:
		if !a.lost(refusal) {
			it.failed() // alone: S3 is not at fault
			u.delayLocked(it)
			return outcome{}
		}
		refusal.Class = s3put.Damaged
		fallthrough
	case s3put.Damaged:
		if len(u.parked) == 0 { // it was what the bucket refused
			u.refusals, u.why = [2]int{}, nil
		}
		return outcome{damaged: &Refusal{Segment: it.seg, Attempts: it.attempts, Err: refusal}}
	}
	return outcome{parked: u.parkLocked(a, refusal)}
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

// storedLocked records a success. Of two successes it keeps the one with an ETag:
// the other one is the answer that the key was taken.
func (u *Uploader) storedLocked(a *attempt, result s3put.Result) {
	it := a.it
	if it.stored != nil {
		if it.stored.Existed {
			it.stored = &result
		}
		return
	}
	it.stored = &result
	it.cutOthersLocked()
	u.failures, u.failing = max(0, min(u.failures, maxRemembered)-1), time.Now()
	u.refusals[it.apart] = 0
	u.gate = wait{}
	u.slots = min(u.slots+1, u.set.Concurrency)
	if a.spare {
		u.spares = min(2*u.spares, u.set.Concurrency)
		u.spareNext = true // S3 is well: ready segments come first
	}
	if it.wasParked {
		u.unparkLocked() // what was wrong is mended
	} else if len(u.parked) == 0 {
		u.why = nil
	}
}

// lost reports whether reading a segment has failed so often that the disk has lost
// it. An attempt counts only after a backoff at a calm pace since the last one that
// counted: many attempts in a second prove nothing.
func (a *attempt) lost(refusal *s3put.Error) bool {
	it := a.it
	var read *spool.ReadError
	if !errors.As(refusal, &read) || !read.Lost() {
		return false
	}
	if it.unread == 0 {
		it.unreadSince = time.Now()
	}
	if !a.started.Before(it.unreadWait.end(calm)) {
		it.unread++
		it.unreadWait = newWait(it.unread, it.unreadSince)
	}
	return it.unread >= minUnread && time.Since(it.unreadSince) >= unreadFor
}

// failed counts a failure of the segment and begins its backoff.
func (it *item) failed() {
	it.failures++
	if it.failures == 1 {
		it.failing = time.Now()
	}
	it.refreshed, it.reclocked, it.redirected = false, false, false
	it.wait = newWait(it.failures, it.failing)
}

// delayLocked has a segment wait for its own backoff.
func (u *Uploader) delayLocked(it *item) {
	it.notBefore = it.wait.end(u.pace)
	heap.Push(&u.delayed, it)
}

// failedLocked counts a failure of S3. The segment backs off by its own failures,
// and the uploader by the failures in a row: an outage costs one probe at a
// time, and one failing segment does not delay the others. Attempts that fail
// together count as one failure in a row.
func (u *Uploader) failedLocked(a *attempt) {
	a.it.failed()
	if a.spare {
		u.spares = 1
	}
	if !a.started.After(u.gate.from) {
		return // it began before the last failure
	}
	u.failures++
	if u.failures == 1 {
		u.failing = time.Now()
	}
	u.gate = newWait(u.failures, u.failing)
	u.slots = max(1, u.slots/2)
}

// parkLocked parks a segment that S3 refuses until a person acts. It returns the
// refusal, or nil if the attempt began before [Uploader.Unpark].
func (u *Uploader) parkLocked(a *attempt, refusal *s3put.Error) *Refusal {
	it := a.it
	if a.round != u.round { // it may have begun before it was mended
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
