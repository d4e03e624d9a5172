// Package upload decides which sealed segment is uploaded next, how many uploads
// run in parallel, and when to retry.
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

// Settings are the fixed settings of an uploader.
type Settings struct {
	// Put makes one attempt. After an error the object is absent or complete,
	// never partial, so a retry is safe, also in parallel to another attempt of
	// the same segment. An error that is not a *s3put.Error is transient. Put
	// must return soon after its context ends.
	Put func(context.Context, Order) (s3put.Result, error)

	Concurrency int
	MinRate     int64         // bytes per second, for the deadline of an attempt
	RetryParked time.Duration // interval of probes while uploads are parked

	// Delivered, Attempted, Parked and Damaged are called on the goroutine of
	// the attempt, without a lock.
	Delivered func(Delivery)
	Attempted func(Attempt)
	Parked    func(Refusal)
	Damaged   func(Refusal) // the segment is not tried again
}

// Order describes one attempt to Put.
type Order struct {
	Segment *spool.Segment

	// Progress must be called before the request is sent, when the transport
	// reads bytes of the body, and when an answer begins to arrive. It may be
	// called after Put has returned.
	Progress func()

	// NewConnection asks for a new connection: another attempt stalls, and idle
	// connections may be as dead as its connection.
	NewConnection bool
}

// Attempt is one PUT and its result. The error of an attempt that was cancelled, by
// Stop or in favor of another attempt, wraps context.Canceled.
type Attempt struct {
	Segment  *spool.Segment
	Number   int // 1 for the first
	Failures int // transient failures and read errors of this segment, including this attempt unless it was cancelled
	Duration time.Duration
	Err      *s3put.Error // nil: stored
}

// Delivery is a segment that is in S3.
type Delivery struct {
	Segment  *spool.Segment
	Result   s3put.Result
	Attempts int           // including cancelled attempts
	Duration time.Duration // from seal to acknowledgement
}

// Refusal is a segment that is parked or set aside.
type Refusal struct {
	Segment  *spool.Segment
	Attempts int
	Err      *s3put.Error // its class is Parked or Damaged
}

// Uploader uploads segments, lowest sequence first. It is safe for concurrent use.
// It has no goroutine of its own. Each attempt runs on one, and the next attempts
// start when an attempt ends, when the timer fires, or in [Uploader.Add].
type Uploader struct {
	set    Settings
	ctx    context.Context // of all attempts; ended by Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu            sync.Mutex
	stopped       bool
	ready         bySequence // segments of this run that may start now
	recovered     []*item    // segments of previous runs that may start now, oldest first
	recoveredNext bool       // the next start takes a recovered segment
	delayed       byTime     // segments in backoff
	parked        []*item    // oldest refusal first
	running       map[*item]struct{}

	callers [2]int // waiting callers, by Caller
	pace    pace   // follows from callers

	slots       int       // attempts that may run in parallel: Concurrency, fewer after failures
	spares      int       // spare attempts that may run in addition
	spareNext   bool      // the next spare attempt is for a segment without a running attempt
	failures    int       // transient failures in a row, over all segments; a success subtracts one
	failing     time.Time // time of the first of these failures, or of the last success
	gate        wait      // no attempt starts before its end
	refusals    [2]int    // refusals in a row, by park group
	newProbes   int       // segments of a refused group that may be tried nevertheless
	unparks     int       // calls of Unpark
	probe       time.Time // when the next parked segment is tried
	lastRefusal *Refusal  // set while segments are parked
	timer       *time.Timer
}

// item is a segment that is not delivered yet.
type item struct {
	seg      *spool.Segment
	sealed   time.Time
	attempts int // begun
	running  []*attempt
	stored   *s3put.Result // the object is in S3; the other attempts are cancelled
	refusal  *s3put.Error  // decides what follows when the cancelled attempts have ended

	failures  int
	failing   time.Time // time of the first of these failures, or of the last success
	wait      wait
	notBefore time.Time // the end of wait at the uploader's pace
	lastSpare time.Time // when a spare attempt began in parallel to another one

	unreadable      int // counted attempts that the disk could not read
	unreadableSince time.Time
	unreadableWait  wait // attempts that begin before its end are not counted
	wasParked       bool
	recovered       bool // of a previous run
	parkGroup       int  // segments of group 0 and of group 1 park independently

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

// Add queues a sealed segment. It never blocks.
func (u *Uploader) Add(seg *spool.Segment) {
	u.mu.Lock()
	defer u.mu.Unlock()
	it := &item{seg: seg, sealed: time.Now()}
	u.readyLocked(it)
	u.startLocked()
}

// AddRecovered queues a segment of a previous run. Recovered segments are uploaded
// in the order of these calls, and alternate with segments of this run. Segments
// with a separate prefix park independently of all others: the bucket may deny
// only their prefix.
func (u *Uploader) AddRecovered(seg *spool.Segment, separatePrefix bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	it := &item{seg: seg, sealed: time.Now(), recovered: true}
	if separatePrefix {
		it.parkGroup = 1
	}
	u.recovered = append(u.recovered, it)
	u.startLocked()
}

// readyLocked queues a segment that may start now.
func (u *Uploader) readyLocked(it *item) {
	if it.recovered {
		u.recovered = append(u.recovered, it)
		return
	}
	heap.Push(&u.ready, it)
}

// nextLocked removes the next segment from the queues and returns it.
func (u *Uploader) nextLocked() *item {
	if len(u.recovered) > 0 && (u.recoveredNext || len(u.ready) == 0) {
		it := u.recovered[0]
		u.recovered = u.recovered[1:]
		u.recoveredNext = false
		return it
	}
	u.recoveredNext = true
	return heap.Pop(&u.ready).(*item)
}

// Probe tries parked segments before the next interval. It costs a few requests:
// the probe of an interval, and Concurrency new segments.
func (u *Uploader) Probe() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.probe = time.Time{}
	u.newProbes = u.set.Concurrency
	u.startLocked()
}

// Unpark tries every parked segment again, because the cause may be fixed. A
// running attempt that is refused is retried too instead of parked.
func (u *Uploader) Unpark() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unparks++
	u.unparkLocked()
	u.startLocked()
}

// Why returns the last refusal while uploads are parked, or nil.
func (u *Uploader) Why() *Refusal {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastRefusal
}

// Stuck returns the parked segments while other segments can be uploaded. It
// returns nil if the bucket refuses every segment.
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
	for _, queue := range [][]*item{u.ready, u.recovered, u.delayed, u.parked} {
		for _, it := range queue {
			left = append(left, it.seg)
		}
	}
	u.ready, u.recovered, u.delayed, u.parked = nil, nil, nil, nil
	return left
}

func (u *Uploader) wake() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.startLocked()
}

// startLocked starts the attempts that may start now, and sets the timer for the
// next ones.
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
	for len(u.ready)+len(u.recovered) > 0 && taken < u.slots && !u.gate.end(u.pace).After(now) {
		it := u.nextLocked()
		if u.refusedLocked(it.parkGroup) && !it.wasParked {
			if u.newProbes == 0 && !u.probe.After(now) {
				u.probe = now.Add(u.set.RetryParked)
			}
			if u.newProbes == 0 {
				u.parked = append(u.parked, it) // without an attempt: the bucket refuses its group
				it.wasParked = true
				continue
			}
			u.newProbes--
		}
		u.beginLocked(it, now, false)
		taken++
	}
	u.startSparesLocked(now)
	u.setTimerLocked(now)
}

// refusedLocked reports whether the bucket has refused so many segments of a park
// group in a row that new ones wait for the next probe instead of each sending
// their body.
func (u *Uploader) refusedLocked(group int) bool { return u.refusals[group] >= u.set.Concurrency }

// probeLocked makes one or two parked segments ready, once per interval.
func (u *Uploader) probeLocked(now time.Time) {
	if len(u.parked) == 0 || u.probe.After(now) {
		return
	}
	u.readyLocked(u.parked[0])
	u.parked = u.parked[1:]
	// A segment without any attempt may be accepted although the others were
	// refused. The newest one is the most likely to be awaited by a caller.
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
	u.lastRefusal = nil
}

func (u *Uploader) setTimerLocked(now time.Time) {
	var next time.Time
	earlier := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if len(u.ready)+len(u.recovered) > 0 || u.pace != calm {
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
