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
	// baseTimeout is the time for all of an attempt except sending its bytes:
	// credentials, connection, and the server's processing.
	baseTimeout = 30 * time.Second

	// maxFailures caps the failures in a row before a success subtracts one. A
	// throttling S3 accepts some requests of each sink, so one success must not
	// reset the backoff.
	maxFailures = 5

	// A segment that the disk has lost is set aside after minUnreadable
	// attempts and unreadablePeriod: the disk may become readable again.
	minUnreadable    = 5
	unreadablePeriod = time.Hour
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

// settle records the end of an attempt and starts the next attempts. If two attempts
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
	case a.cancelled:
	case len(it.running) > 0 && (refusal.Class == s3put.Transient || refusal.Class == s3put.Integrity):
		u.failedLocked(a)
		it.running[0].spare = it.running[0].spare && a.spare // inherits the slot
		return outcome{}
	default:
		it.refusal = refusal
		it.cancelOthersLocked()
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
	return u.settleRefusalLocked(a, refusal)
}

// settleRefusalLocked handles a refusal after the last running attempt of the
// segment has ended.
func (u *Uploader) settleRefusalLocked(a *attempt, refusal *s3put.Error) outcome {
	it := a.it
	if it.retryImmediately(refusal.Class) {
		u.readyLocked(it)
		return outcome{}
	}
	switch refusal.Class {
	case s3put.Transient, s3put.Integrity:
		u.failedLocked(a)
		u.delayLocked(it)
		return outcome{}
	case s3put.Unreadable:
		if !a.isLost(refusal) {
			it.startBackoff() // of this segment only: S3 has not failed
			u.delayLocked(it)
			return outcome{}
		}
		refusal.Class = s3put.Damaged
		fallthrough
	case s3put.Damaged:
		if len(u.parked) == 0 { // the bucket has refused no other segment
			u.refusals, u.lastRefusal = [2]int{}, nil
		}
		return outcome{damaged: &Refusal{Segment: it.seg, Attempts: it.attempts, Err: refusal}}
	}
	return outcome{parked: u.parkLocked(a, refusal)}
}

// retryImmediately reports whether to retry without a backoff. Each class that
// allows this allows it once.
func (it *item) retryImmediately(class s3put.Class) bool {
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

// storedLocked records a success. Of two successes it keeps the result with an
// ETag: the other result says that the key already exists.
func (u *Uploader) storedLocked(a *attempt, result s3put.Result) {
	it := a.it
	if it.stored != nil {
		if it.stored.Existed {
			it.stored = &result
		}
		return
	}
	it.stored = &result
	it.cancelOthersLocked()
	u.failures, u.failing = max(0, min(u.failures, maxFailures)-1), time.Now()
	u.refusals[it.parkGroup] = 0
	u.gate = wait{}
	u.slots = min(u.slots+1, u.set.Concurrency)
	if a.spare {
		u.spares = min(2*u.spares, u.set.Concurrency)
		u.spareNext = true // S3 accepts uploads: ready segments come first
	}
	if it.wasParked {
		u.unparkLocked() // the cause of the parking is fixed
	} else if len(u.parked) == 0 {
		u.lastRefusal = nil
	}
}

// isLost reports whether reading a segment has failed so often that the disk has
// lost it. An attempt counts only if it began after a backoff at a calm pace since
// the previous counted attempt, because many attempts in one second prove nothing.
func (a *attempt) isLost(refusal *s3put.Error) bool {
	it := a.it
	var read *spool.ReadError
	if !errors.As(refusal, &read) || !read.Lost() {
		return false
	}
	if it.unreadable == 0 {
		it.unreadableSince = time.Now()
	}
	if !a.started.Before(it.unreadableWait.end(calm)) {
		it.unreadable++
		it.unreadableWait = newWait(it.unreadable, it.unreadableSince)
	}
	return it.unreadable >= minUnreadable && time.Since(it.unreadableSince) >= unreadablePeriod
}

// startBackoff counts a failure of the segment and begins its backoff.
func (it *item) startBackoff() {
	it.failures++
	if it.failures == 1 {
		it.failing = time.Now()
	}
	it.refreshed, it.reclocked, it.redirected = false, false, false
	it.wait = newWait(it.failures, it.failing)
}

// delayLocked queues a segment until the end of its backoff.
func (u *Uploader) delayLocked(it *item) {
	it.notBefore = it.wait.end(u.pace)
	heap.Push(&u.delayed, it)
}

// failedLocked counts a failure of S3. The segment backs off by its own failures,
// and the uploader by the failures in a row: an outage costs one probe at a
// time, and one failing segment does not delay the others. Attempts that fail
// together count as one failure in a row.
func (u *Uploader) failedLocked(a *attempt) {
	a.it.startBackoff()
	if a.spare {
		u.spares = 1
	}
	if !a.started.After(u.gate.from) {
		return // the attempt began before the last counted failure
	}
	u.failures++
	if u.failures == 1 {
		u.failing = time.Now()
	}
	u.gate = newWait(u.failures, u.failing)
	u.slots = max(1, u.slots/2)
}

// parkLocked parks a segment that S3 refuses until an operator acts. It returns
// the refusal. It returns nil and retries the segment if the attempt began before
// the last [Uploader.Unpark].
func (u *Uploader) parkLocked(a *attempt, refusal *s3put.Error) *Refusal {
	it := a.it
	if a.unparks != u.unparks { // it may have begun before the cause was fixed
		u.readyLocked(it)
		return nil
	}
	it.wasParked = true
	it.refreshed, it.reclocked, it.redirected = false, false, false
	if len(u.parked) == 0 && u.probe.Before(time.Now()) {
		u.probe = time.Now().Add(u.set.RetryParked)
	}
	u.parked = append(u.parked, it)
	u.refusals[it.parkGroup]++
	err := *refusal
	err.Class = s3put.Parked // immediate retries of other classes are spent
	u.lastRefusal = &Refusal{Segment: it.seg, Attempts: it.attempts, Err: &err}
	return u.lastRefusal
}
