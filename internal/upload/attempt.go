package upload

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
)

const (
	// stallTime is the time without progress after which an attempt stalls. The
	// time for kernelBuffer bytes on a slow line is added to it: the transport
	// has read these bytes, although the kernel has not sent them yet.
	stallTime    = time.Second
	kernelBuffer = 4 << 20
	slowLine     = 1 << 20 // bytes a second
)

// errCancelled is the error of an attempt that was cancelled because another
// attempt of the segment has decided its outcome, or because a spare attempt
// stalls.
var errCancelled = fmt.Errorf("cancelled in favor of another attempt: %w", context.Canceled)

// attempt is one running PUT. The uploader's lock guards its variable fields,
// except progress.
type attempt struct {
	it        *item
	number    int
	started   time.Time
	unparks   int  // Uploader.unparks when it began
	spare     bool // runs without a slot
	cancelled bool // its failure is not a failure of S3
	cancel    context.CancelFunc
	progress  atomic.Int64 // nanoseconds from started to the last progress; 0: no request was sent yet
}

// attemptsLocked returns the running spare attempts, or all others.
func (u *Uploader) attemptsLocked(spare bool) []*attempt {
	var all []*attempt
	for it := range u.running {
		for _, a := range it.running {
			if a.spare == spare {
				all = append(all, a)
			}
		}
	}
	return all
}

func (u *Uploader) beginLocked(it *item, now time.Time, spare bool) {
	it.attempts++
	ctx, cancel := context.WithTimeout(u.ctx, attemptTimeout(it.seg.Size(), u.set.MinRate))
	a := &attempt{
		it: it, number: it.attempts, started: now, unparks: u.unparks, spare: spare, cancel: cancel,
	}
	it.running = append(it.running, a)
	u.running[it] = struct{}{}
	u.wg.Go(func() { u.run(ctx, a) })
}

func (u *Uploader) run(ctx context.Context, a *attempt) {
	defer a.cancel()
	result, err := u.set.Put(ctx, Order{
		Segment:       a.it.seg,
		Progress:      func() { a.progress.Store(int64(time.Since(a.started)) + 1) },
		NewConnection: a.spare,
	})
	refusal := asError(err)
	u.set.Attempted(u.report(a, refusal))
	o := u.settle(a, result, refusal)
	switch {
	case o.delivered != nil:
		u.set.Delivered(*o.delivered)
	case o.damaged != nil:
		u.set.Damaged(*o.damaged)
	case o.parked != nil:
		u.set.Parked(*o.parked)
	}
}

// report describes the end of an attempt.
func (u *Uploader) report(a *attempt, refusal *s3put.Error) Attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	report := Attempt{Segment: a.it.seg, Number: a.number, Failures: a.it.failures, Duration: time.Since(a.started), Err: refusal}
	switch {
	case refusal == nil:
	case a.cancelled:
		report.Err = &s3put.Error{Class: s3put.Transient, Err: errCancelled}
	case refusal.Class == s3put.Transient, refusal.Class == s3put.Unreadable:
		report.Failures++
	}
	return report
}

// cancelOthersLocked cancels the running attempts of a segment. The attempt that
// has just ended is no longer among them.
func (it *item) cancelOthersLocked() {
	for _, a := range it.running {
		a.cancelLocked()
	}
}

func (a *attempt) cancelLocked() {
	a.cancelled = true
	a.cancel()
}

// stallsLocked returns the time at which an attempt stalls unless it makes
// progress. Spare attempts have twice as long as others. An attempt that
// waits for credentials never stalls: a second attempt would wait for the same
// credentials.
func (u *Uploader) stallsLocked(a *attempt, now time.Time) time.Time {
	var failing time.Duration
	if u.failures > 0 {
		failing = now.Sub(u.failing)
	}
	long := max(stallTime, u.pace.limit(failing)) + time.Duration(min(a.it.seg.Size(), kernelBuffer))*time.Second/slowLine
	if a.spare {
		long *= 2
	}
	progress := a.progress.Load()
	if progress == 0 {
		return now.Add(long)
	}
	return a.started.Add(time.Duration(progress) + long)
}

// startSparesLocked starts spare attempts while a caller waits and other attempts
// stall. A connection can be dead although S3 has recovered, and its attempt
// ends only at its deadline:
//
//  1. S3 hangs. Failures have left one slot, and its attempt hangs too.
//  2. The application calls Close, with a ctx of 25 seconds.
//  3. S3 recovers. The attempt hangs for another 28 seconds.
//
// A spare attempt sends a segment whose attempt stalls, or a ready segment if
// stalled attempts hold all slots. The two kinds alternate; after a success,
// ready segments come first. A spare attempt that stalls is cancelled, and the next
// one starts. An attempt with a slot is never cancelled before its deadline: a
// slow S3 may answer it. One spare attempt runs at a time. Each success doubles
// that number, up to Concurrency; a failure or a stall resets it.
func (u *Uploader) startSparesLocked(now time.Time) {
	if u.pace == calm || u.gate.end(u.pace).After(now) {
		return
	}
	spares := u.attemptsLocked(true)
	for _, a := range spares {
		if !a.cancelled && !u.stallsLocked(a, now).After(now) {
			u.spares = 1
			a.cancelLocked()
		}
	}
	for n := len(spares); n < u.spares; n++ {
		it := u.nextSpareLocked(now)
		if it == nil {
			return
		}
		u.beginLocked(it, now, true)
	}
}

// nextSpareLocked returns the segment for the next spare attempt, or nil.
func (u *Uploader) nextSpareLocked(now time.Time) *item {
	var stalled *item // the segment that has gone longest without a spare attempt
	progress := false // an attempt with a slot makes progress
	holders := u.attemptsLocked(false)
	for _, a := range holders {
		switch {
		case u.stallsLocked(a, now).After(now):
			progress = true
		case len(a.it.running) > 1 || a.cancelled || a.it.wait.end(u.pace).After(now):
		case stalled == nil || a.it.lastSpare.Before(stalled.lastSpare):
			stalled = a.it
		}
	}
	others := len(u.ready)+len(u.recovered) > 0 && !progress && len(holders) > 0 && !u.refusedLocked(0) && !u.refusedLocked(1)
	if others && (u.spareNext || stalled == nil) {
		u.spareNext = false
		return u.nextLocked()
	}
	u.spareNext = true
	if stalled != nil {
		stalled.lastSpare = now
	}
	return stalled
}
