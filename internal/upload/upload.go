// Package upload decides which sealed segment is put next, how many at once,
// and when to try again.
package upload

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
)

// Settings are fixed for an uploader's life.
type Settings struct {
	// Put makes one attempt. After an error the object is absent or complete,
	// never partial, so a repeat is safe, also beside another attempt of the
	// same segment. An error that is no *s3put.Error is transient. Put returns
	// soon after its context ends.
	Put func(context.Context, Order) (s3put.Result, error)

	Concurrency int
	MinRate     int64         // bytes a second that an attempt must make
	RetryParked time.Duration // between probes of a bucket that needs a person

	// Delivered, Attempted and Parked are told what happened, from the
	// attempt's own goroutine and without a lock.
	Delivered func(Delivery)
	Attempted func(Attempt)
	Parked    func(Refusal)
	Damaged   func(Refusal) // the segment is not tried again
}

// Order is one attempt to make.
type Order struct {
	Segment *spool.Segment

	// Progress is to be called before the request is sent, when the transport
	// reads bytes of the body, and when an answer begins to arrive. It may be
	// called after Put has returned.
	Progress func()

	// NewConnection asks for a new connection: another attempt stalls, and idle
	// connections may be as dead as its connection.
	NewConnection bool
}

// Attempt is one PUT and how it ended. An attempt that was cut off in favor of
// another one, or by Stop, ends with an error that wraps context.Canceled.
type Attempt struct {
	Segment  *spool.Segment
	Number   int // 1 for the first
	Failures int // transient ones of this segment and of the disk, this one included unless it was cut off
	Duration time.Duration
	Err      *s3put.Error // nil: stored
}

// Delivery is a segment that is in S3.
type Delivery struct {
	Segment  *spool.Segment
	Result   s3put.Result
	Attempts int           // those cut off included
	Duration time.Duration // from seal to acknowledgement
}

// Refusal is a segment that waits for a person, or is set aside.
type Refusal struct {
	Segment  *spool.Segment
	Attempts int
	Err      *s3put.Error // of class Parked, or Damaged
}

// Uploader sends segments, lowest sequence first. It is safe for concurrent
// use. It has no goroutine of its own: attempts run on one each, and their
// ends, a timer and [Uploader.Add] decide what starts next.
type Uploader struct {
	set    Settings
	ctx    context.Context // of all attempts; ended by Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	ready   bySequence // may start now
	old     []*item    // likewise, of earlier runs; oldest first
	oldNext bool       // the next start is theirs
	delayed byTime     // wait for their own backoff
	parked  []*item    // wait for a person, oldest refusal first
	running map[*item]struct{}

	callers [2]int // that wait, by Caller
	pace    pace   // follows from callers

	slots     int       // segments that may be sent at once: Concurrency, fewer after failures
	spares    int       // spare attempts that may run beside them
	spareNext bool      // the next spare attempt is for a segment that has none
	failures  int       // transient failures in a row, over all segments; a success takes one off
	failing   time.Time // when the first of them, or the last success, happened
	gate      wait      // nothing starts before
	refusals  [2]int    // parked outcomes in a row, over all segments but those apart, and over those
	wanted    int       // new segments to try in spite of them
	round     int       // of Unpark
	probe     time.Time // when the next parked segment is tried
	why       *Refusal  // the last one, while something is parked
	timer     *time.Timer
}

// item is a segment on its way.
type item struct {
	seg      *spool.Segment
	sealed   time.Time
	attempts int // begun
	running  []*attempt
	stored   *s3put.Result // S3 has it; attempts that still run are cut off
	refusal  *s3put.Error  // likewise: decides what follows when none runs

	failures  int
	failing   time.Time // when the first of them, or the last success, happened
	wait      wait
	notBefore time.Time // the end of wait at the uploader's pace
	lastSpare time.Time // when a spare attempt began beside another one

	unread      int // attempts for which the disk had lost it
	unreadSince time.Time
	unreadWait  wait // until the next one counts
	wasParked   bool
	old         bool // of an earlier run
	apart       int  // 1 if it may be refused where others are not, else 0

	refreshed, reclocked, redirected bool // immediate retries already spent
}

// New returns an uploader without work.
func New(set Settings) *Uploader {
	ctx, cancel := context.WithCancel(context.Background())
	u := &Uploader{set: set, ctx: ctx, cancel: cancel, slots: set.Concurrency, spares: 1, running: map[*item]struct{}{}}
	u.timer = time.AfterFunc(time.Hour, u.wake)
	u.timer.Stop()
	return u
}

// Add takes a sealed segment to deliver. It never blocks.
func (u *Uploader) Add(seg *spool.Segment) {
	u.mu.Lock()
	defer u.mu.Unlock()
	it := &item{seg: seg, sealed: time.Now()}
	u.readyLocked(it)
	u.startLocked()
}

// AddOld is Add for a segment of an earlier run. They come in their order, and
// share the attempts half and half with those of this run. Refusals of
// those that are apart say nothing about the others, nor theirs about them.
func (u *Uploader) AddOld(seg *spool.Segment, apart bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	it := &item{seg: seg, sealed: time.Now(), old: true}
	if apart {
		it.apart = 1
	}
	u.old = append(u.old, it)
	u.startLocked()
}

// readyLocked makes an item wait for its turn.
func (u *Uploader) readyLocked(it *item) {
	if it.old {
		u.old = append(u.old, it)
		return
	}
	heap.Push(&u.ready, it)
}

// nextLocked returns whose turn it is.
func (u *Uploader) nextLocked() *item {
	if len(u.old) > 0 && (u.oldNext || len(u.ready) == 0) {
		it := u.old[0]
		u.old = u.old[1:]
		u.oldNext = false
		return it
	}
	u.oldNext = true
	return heap.Pop(&u.ready).(*item)
}

// Probe tries parked segments before the next interval. It costs a few requests:
// the probe of an interval, and Concurrency new segments.
func (u *Uploader) Probe() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.probe = time.Time{}
	u.wanted = u.set.Concurrency
	u.startLocked()
}

// Unpark tries every parked segment again, because what was wrong may be
// mended; those too whose attempts are under way, if they are refused.
func (u *Uploader) Unpark() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.round++
	u.unparkLocked()
	u.startLocked()
}

// Why returns the refusal for which uploads are parked, or nil.
func (u *Uploader) Why() *Refusal {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.why
}

// Stuck returns the parked segments, if others can be delivered meanwhile. At
// a bucket that refuses everything there is nothing to set them apart from.
func (u *Uploader) Stuck() []*spool.Segment {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.refusedLocked(0) {
		return nil
	}
	var all []*spool.Segment
	for _, it := range u.parked {
		all = append(all, it.seg)
	}
	return all
}

// Stop cancels attempts, waits for them, and returns the segments that are
// not delivered, in no order.
func (u *Uploader) Stop() []*spool.Segment {
	u.mu.Lock()
	u.stopped = true
	u.timer.Stop()
	u.mu.Unlock()
	u.cancel()
	u.wg.Wait()

	u.mu.Lock()
	defer u.mu.Unlock()
	var left []*spool.Segment
	for _, queue := range [][]*item{u.ready, u.old, u.delayed, u.parked} {
		for _, it := range queue {
			left = append(left, it.seg)
		}
	}
	u.ready, u.old, u.delayed, u.parked = nil, nil, nil, nil
	return left
}

func (u *Uploader) wake() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.startLocked()
}

// startLocked starts what may start now, and sets the timer for what may
// start later.
func (u *Uploader) startLocked() {
	if u.stopped {
		return
	}
	now := time.Now()
	for len(u.delayed) > 0 && !u.delayed[0].notBefore.After(now) {
		u.readyLocked(heap.Pop(&u.delayed).(*item))
	}
	u.probeLocked(now)
	taken := len(u.attemptsLocked(false))
	for len(u.ready)+len(u.old) > 0 && taken < u.slots && !u.gate.end(u.pace).After(now) {
		it := u.nextLocked()
		if u.refusedLocked(it.apart) && !it.wasParked {
			if u.wanted == 0 && !u.probe.After(now) {
				u.probe = now.Add(u.set.RetryParked)
			}
			if u.wanted == 0 {
				u.parked = append(u.parked, it) // not even tried: the bucket refuses everything
				it.wasParked = true
				continue
			}
			u.wanted--
		}
		u.beginLocked(it, now, false)
		taken++
	}
	u.startSparesLocked(now)
	u.setTimerLocked(now)
}

// refusedLocked reports whether the bucket has refused so often in a row that
// new segments wait for the next probe instead of each sending their body.
func (u *Uploader) refusedLocked(apart int) bool { return u.refusals[apart] >= u.set.Concurrency }

// probeLocked lets one parked segment try, once an interval.
func (u *Uploader) probeLocked(now time.Time) {
	if len(u.parked) == 0 || u.probe.After(now) {
		return
	}
	u.readyLocked(u.parked[0])
	u.parked = u.parked[1:]
	// One that was never sent may be allowed where the others are not; the
	// newest is likeliest to be what somebody waits for.
	for i := len(u.parked) - 1; i >= 0; i-- {
		if u.parked[i].attempts == 0 {
			u.readyLocked(u.parked[i])
			u.parked = slices.Delete(u.parked, i, i+1)
			break
		}
	}
	u.probe = now.Add(u.set.RetryParked)
}

func (u *Uploader) unparkLocked() {
	for _, it := range u.parked {
		u.readyLocked(it)
	}
	u.parked = nil
	u.refusals = [2]int{}
	u.why = nil
}

func (u *Uploader) setTimerLocked(now time.Time) {
	var next time.Time
	earlier := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if len(u.ready)+len(u.old) > 0 || u.pace != calm {
		earlier(u.gate.end(u.pace))
	}
	if len(u.delayed) > 0 {
		earlier(u.delayed[0].notBefore)
	}
	if len(u.parked) > 0 {
		earlier(u.probe)
	}
	if u.pace != calm {
		for it := range u.running {
			earlier(it.wait.end(u.pace))
			for _, a := range it.running {
				earlier(u.stallsLocked(a, now))
			}
		}
	}
	if next.IsZero() {
		u.timer.Stop()
		return
	}
	u.timer.Reset(next.Sub(now))
}
