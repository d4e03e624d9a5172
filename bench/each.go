package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink"
)

// eachJob asks a child to track events with callers that wait for the fsync.
type eachJob struct {
	Dir              string
	Callers, Sources int
	Rounds           int
	For              time.Duration // each turn
	Busy             int           // number of goroutines that burn CPU time
	Unpack           bool          // check every object
}

type eachResult struct {
	Idle int64 // resident bytes with an idle sink

	// Events a second in each round.
	SinkRates, BareRates []float64

	Events        int64 // tracked in all rounds
	ObjBytes      int64
	MemoryModeObj int64 // object bytes of the same events in memory mode
}

// trackEach compares a sink with a bare file. They take turns, and the order
// alternates between rounds.
func trackEach(ctx context.Context, job eachJob) (result eachResult, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(filepath.Join(job.Dir, "spool"), store)
	cfg.Durability = s3sink.SyncEach
	sink, _, err := openSink(ctx, cfg, &result.Idle)
	if err != nil {
		return result, err
	}
	sources, err := sourcesOf(sink, job.Sources)
	if err != nil {
		return result, err
	}
	bare, err := newGroupCommit(filepath.Join(job.Dir, "bare"))
	if err != nil {
		return result, err
	}
	defer bare.file.Close()
	c := callers{job: job, lines: calls(4000), tracked: make([]int64, job.Callers)}
	sinkTurn := func() error {
		rate, err := c.round(c.tracked, func(caller int, line []byte) error {
			return sources[caller%job.Sources].TrackLine(line)
		})
		result.SinkRates = append(result.SinkRates, rate)
		return err
	}
	bareTurn := func() error {
		rate, err := c.round(make([]int64, job.Callers), func(_ int, line []byte) error { return bare.write(line) })
		result.BareRates = append(result.BareRates, rate)
		return err
	}
	stopBurning := burnCPU(job.Busy)
	defer stopBurning()
	for n := range job.Rounds {
		if n%2 == 1 {
			err = errors.Join(bareTurn(), sinkTurn())
		} else {
			err = errors.Join(sinkTurn(), bareTurn())
		}
		if err != nil {
			return result, err
		}
	}
	stopBurning()
	if err := sink.Close(ctx); err != nil {
		return result, err
	}
	for _, n := range c.tracked {
		result.Events += n
	}
	result.ObjBytes = sink.Stats().ObjectBytes
	result.MemoryModeObj, err = c.memoryModeBytes(ctx, median(result.SinkRates))
	return result, errors.Join(err, checkAccounting(sink.Stats()), store.check(result.Events, c.wasTracked), checkSpoolEmpty(cfg.SpoolDir))
}

// burnCPU starts n goroutines that compute until the caller calls stop.
func burnCPU(n int) (stop func()) {
	var stopped atomic.Bool
	for range n {
		go func() {
			for !stopped.Load() {
			}
		}()
	}
	return func() { stopped.Store(true) }
}

// callers are goroutines that each write one line after the other.
type callers struct {
	job     eachJob
	lines   [][]byte
	tracked []int64 // number of events by caller
}

// round has all callers call do for the duration of one turn, and returns the
// events a second. It adds the events of each caller to counts.
func (c *callers) round(counts []int64, do func(caller int, line []byte) error) (rate float64, err error) {
	errs := make([]error, len(counts))
	var events atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for caller := range counts {
		wg.Go(func() {
			var buf []byte
			for time.Since(began) < c.job.For && errs[caller] == nil {
				buf = c.line(buf, caller, counts[caller])
				if errs[caller] = do(caller, buf); errs[caller] == nil {
					counts[caller]++
					events.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(events.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

// line writes the n-th line of a caller into buf and returns it.
func (c *callers) line(buf []byte, caller int, n int64) []byte {
	buf = append(buf[:0], c.lines[(int64(caller)*997+n)%int64(len(c.lines))]...)
	setNumber(buf, n*int64(c.job.Callers)+int64(caller))
	return buf
}

// wasTracked reports whether the sink accepted the line with this number.
func (c *callers) wasTracked(number int64) bool {
	return number/int64(c.job.Callers) < c.tracked[number%int64(c.job.Callers)]
}

// memoryModeBytes tracks the same events in memory mode and returns the bytes
// of the objects. It keeps the same rate, because a faster one keeps the
// compressors busy, which makes the blocks longer and the objects smaller.
func (c *callers) memoryModeBytes(ctx context.Context, rate float64) (int64, error) {
	sink, err := s3sink.New(ctx, config("", new(nullStore)))
	if err != nil {
		return 0, err
	}
	sources, err := sourcesOf(sink, c.job.Sources)
	if err != nil {
		return 0, err
	}
	interval := time.Duration(float64(c.job.Callers) / rate * float64(time.Second))
	began := time.Now()
	errs := make([]error, c.job.Callers)
	var wg sync.WaitGroup
	for caller, events := range c.tracked {
		wg.Go(func() {
			var buf []byte
			for n := int64(0); n < events && errs[caller] == nil; n++ {
				if early := time.Until(began.Add(time.Duration(n) * interval)); early > time.Millisecond {
					time.Sleep(early)
				}
				buf = c.line(buf, caller, n)
				errs[caller] = sources[caller%c.job.Sources].TrackLineContext(ctx, buf)
			}
		})
	}
	wg.Wait()
	err = errors.Join(append(errs, sink.Close(ctx))...)
	return sink.Stats().ObjectBytes, errors.Join(err, checkAccounting(sink.Stats()))
}

// groupCommit appends lines to one file. One write and one fdatasync serve all
// callers that wait: one of them, the leader, makes both and wakes the others.
// Lines that arrive during a sync form the next group.
type groupCommit struct {
	file *os.File

	mu      sync.Mutex
	syncing bool
	next    *group
}

// group is the lines of one sync.
type group struct {
	buf  []byte
	done chan struct{} // closed after the sync
	lead chan struct{} // the caller that receives from it is the leader
	err  error         // valid after done is closed
}

func newGroup() *group { return &group{done: make(chan struct{}), lead: make(chan struct{}, 1)} }

func newGroupCommit(path string) (*groupCommit, error) {
	f, err := os.Create(path)
	return &groupCommit{file: f, next: newGroup()}, err
}

// write appends a line and returns after it is synced.
func (g *groupCommit) write(line []byte) error {
	g.mu.Lock()
	mine := g.next
	mine.buf = append(append(mine.buf, line...), '\n')
	if !g.syncing {
		g.syncing = true
		mine.lead <- struct{}{}
	}
	g.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-mine.lead:
	}
	g.mu.Lock()
	g.next = newGroup()
	g.mu.Unlock()
	_, err := g.file.Write(mine.buf)
	mine.err = errors.Join(err, dataSync(g.file))
	close(mine.done)
	g.mu.Lock()
	if g.syncing = len(g.next.buf) > 0; g.syncing {
		g.next.lead <- struct{}{}
	}
	g.mu.Unlock()
	return mine.err
}

// measureEach compares SyncEach with a bare file.
func measureEach(f *flags) func(context.Context, *bench) ([]table, error) {
	d := f.Duration("for", 3*time.Second, "duration of each turn")
	busy := f.Int("busy", 0, "`number` of goroutines that burn CPU time during the turns")
	unpack := f.Bool("unpack", false, unpackUsage)
	return func(ctx context.Context, b *bench) ([]table, error) {
		t := table{head: []string{"callers", "sources", "events/s", "events/s ÷ bare file", "bare file events/s", objectBytesRatio, "peak RSS MB", "above idle MB"}}
		for _, c := range [][2]int{{1, 1}, {64, 1}, {64, 64}} {
			dir, err := os.MkdirTemp(b.dir, "each-")
			if err != nil {
				return nil, err
			}
			job := eachJob{Dir: dir, Callers: c[0], Sources: c[1], Rounds: b.rounds, For: *d, Busy: *busy, Unpack: *unpack}
			got, peak, err := runChild[eachResult](ctx, "each", job)
			if err != nil {
				return nil, err
			}
			sinkRate, bareRate := median(got.SinkRates), median(got.BareRates)
			t.add(fmt.Sprint(c[0]), fmt.Sprint(c[1]), fmt.Sprintf("%.0f", sinkRate), ratio(sinkRate/bareRate), fmt.Sprintf("%.0f", bareRate),
				fmt.Sprintf("%.3f", float64(got.ObjBytes)/float64(got.MemoryModeObj)), megabytes(peak), megabytes(peak-got.Idle))
		}
		return []table{t}, nil
	}
}
