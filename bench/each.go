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

// eachJob is callers who wait for the disk.
type eachJob struct {
	Dir              string
	Callers, Sources int
	Rounds           int
	For              time.Duration // each round
	Busy             int           // goroutines that compute meanwhile
	Unpack           bool
}

type eachFound struct {
	Idle               int64
	Ours, Bare         []float64 // events a second
	Events             int64     // ours
	ObjBytes, InMemory int64     // of ours, and of the same events in memory mode
}

// trackEach has the sink and a bare file take turns: one begins the first round,
// the other the next one.
func trackEach(ctx context.Context, job eachJob) (found eachFound, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(filepath.Join(job.Dir, "spool"), store)
	cfg.Durability = s3sink.SyncEach
	sink, _, err := start(ctx, cfg, &found.Idle)
	if err != nil {
		return found, err
	}
	sources, err := sourcesOf(sink, job.Sources)
	if err != nil {
		return found, err
	}
	bare, err := newGroupCommit(filepath.Join(job.Dir, "bare"))
	if err != nil {
		return found, err
	}
	defer bare.file.Close()
	c := callers{job: job, lines: calls(4000), tracked: make([]int64, job.Callers)}
	ours := func() error {
		rate, err := c.round(c.tracked, func(caller int, line []byte) error {
			return sources[caller%job.Sources].TrackLine(line)
		})
		found.Ours = append(found.Ours, rate)
		return err
	}
	theirs := func() error {
		rate, err := c.round(make([]int64, job.Callers), func(_ int, line []byte) error { return bare.write(line) })
		found.Bare = append(found.Bare, rate)
		return err
	}
	rest := occupy(job.Busy)
	defer rest()
	for n := range job.Rounds {
		if n%2 == 1 {
			err = errors.Join(theirs(), ours())
		} else {
			err = errors.Join(ours(), theirs())
		}
		if err != nil {
			return found, err
		}
	}
	rest()
	if err := sink.Close(ctx); err != nil {
		return found, err
	}
	for _, n := range c.tracked {
		found.Events += n
	}
	found.ObjBytes = sink.Stats().ObjectBytes
	found.InMemory, err = c.inMemory(ctx, median(found.Ours))
	return found, errors.Join(err, books(sink.Stats()), store.check(found.Events, c.has), emptied(cfg.SpoolDir))
}

// occupy has goroutines compute until it is told to stop.
func occupy(n int) (stop func()) {
	var stopped atomic.Bool
	for range n {
		go func() {
			for !stopped.Load() {
			}
		}()
	}
	return func() { stopped.Store(true) }
}

// callers are goroutines that pass lines on, one after the other.
type callers struct {
	job     eachJob
	lines   [][]byte
	tracked []int64 // of each caller
}

// round calls do for a while, and returns how many events that is a second.
// have counts each caller's.
func (c *callers) round(have []int64, do func(caller int, line []byte) error) (rate float64, err error) {
	errs := make([]error, len(have))
	var events atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for caller := range have {
		wg.Go(func() {
			var own []byte
			for time.Since(began) < c.job.For && errs[caller] == nil {
				own = c.line(own, caller, have[caller])
				if errs[caller] = do(caller, own); errs[caller] == nil {
					have[caller]++
					events.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(events.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

// line returns a caller's n-th, in buf.
func (c *callers) line(buf []byte, caller int, n int64) []byte {
	buf = append(buf[:0], c.lines[(int64(caller)*997+n)%int64(len(c.lines))]...)
	setNumber(buf, n*int64(c.job.Callers)+int64(caller))
	return buf
}

// has reports whether a line with that number was tracked.
func (c *callers) has(number int64) bool {
	return number/int64(c.job.Callers) < c.tracked[number%int64(c.job.Callers)]
}

// inMemory tracks the same events in memory mode, at the same pace, because blocks
// are longer while compressors are busy. It returns the bytes of the objects.
func (c *callers) inMemory(ctx context.Context, rate float64) (int64, error) {
	sink, err := s3sink.New(ctx, config("", new(nullStore)))
	if err != nil {
		return 0, err
	}
	sources, err := sourcesOf(sink, c.job.Sources)
	if err != nil {
		return 0, err
	}
	each := time.Duration(float64(c.job.Callers) / rate * float64(time.Second))
	began := time.Now()
	errs := make([]error, c.job.Callers)
	var wg sync.WaitGroup
	for caller, events := range c.tracked {
		wg.Go(func() {
			var own []byte
			for n := int64(0); n < events && errs[caller] == nil; n++ {
				if early := time.Until(began.Add(time.Duration(n) * each)); early > time.Millisecond {
					time.Sleep(early)
				}
				own = c.line(own, caller, n)
				errs[caller] = sources[caller%c.job.Sources].TrackLineContext(ctx, own)
			}
		})
	}
	wg.Wait()
	err = errors.Join(append(errs, sink.Close(ctx))...)
	return sink.Stats().ObjectBytes, errors.Join(err, books(sink.Stats()))
}

// groupCommit writes to one file, and one sync serves all who wait: the first of
// them makes it, and wakes the others.
type groupCommit struct {
	file *os.File
	mu   sync.Mutex
	busy bool
	next *group
}

type group struct {
	buf  []byte
	done chan struct{}
	lead chan struct{} // whoever gets it makes the sync
	err  error
}

func newGroup() *group { return &group{done: make(chan struct{}), lead: make(chan struct{}, 1)} }

func newGroupCommit(path string) (*groupCommit, error) {
	f, err := os.Create(path)
	return &groupCommit{file: f, next: newGroup()}, err
}

func (g *groupCommit) write(line []byte) error {
	g.mu.Lock()
	mine := g.next
	mine.buf = append(append(mine.buf, line...), '\n')
	if !g.busy {
		g.busy = true
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
	if g.busy = len(g.next.buf) > 0; g.busy {
		g.next.lead <- struct{}{}
	}
	g.mu.Unlock()
	return mine.err
}

// measureEach is what it costs to wait for the disk.
func measureEach(f *flags) func(context.Context, *bench) ([]table, error) {
	d := f.Duration("for", 3*time.Second, "each turn")
	busy := f.Int("busy", 0, "goroutines that compute meanwhile")
	unpack := f.Bool("unpack", false, "look into every object that is delivered: slow")
	return func(ctx context.Context, b *bench) ([]table, error) {
		t := table{head: []string{"callers", "sources", "events/s", "of a bare file", "bare events/s", "bytes of objects, of memory mode", "peak RSS MB", "above idle MB"}}
		for _, c := range [][2]int{{1, 1}, {64, 1}, {64, 64}} {
			dir, err := os.MkdirTemp(b.dir, "each-")
			if err != nil {
				return nil, err
			}
			job := eachJob{Dir: dir, Callers: c[0], Sources: c[1], Rounds: b.rounds, For: *d, Busy: *busy, Unpack: *unpack}
			got, peak, err := ask[eachFound](ctx, "each", job)
			if err != nil {
				return nil, err
			}
			ours, bare := median(got.Ours), median(got.Bare)
			t.add(fmt.Sprint(c[0]), fmt.Sprint(c[1]), fmt.Sprintf("%.0f", ours), ratio(ours/bare), fmt.Sprintf("%.0f", bare),
				fmt.Sprintf("%.3f", float64(got.ObjBytes)/float64(got.InMemory)), mega(peak), mega(peak-got.Idle))
		}
		return []table{t}, nil
	}
}
