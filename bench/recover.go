package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/s3sink/s3sink"
)

// readJob asks a child to read the files of a spool without recovering them.
// The time is the lower bound of a recovery.
type readJob struct{ Dir string }

type readResult struct {
	Bytes int64
	Took  time.Duration
}

// readFiles reads the files of a spool once and computes their CRC-32C, as
// recovery does.
func readFiles(_ context.Context, job readJob) (result readResult, err error) {
	files, err := filepath.Glob(filepath.Join(job.Dir, "*.journal"))
	if err != nil {
		return result, err
	}
	castagnoli, buf := crc32.MakeTable(crc32.Castagnoli), make([]byte, 256<<10)
	began := time.Now()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return result, err
		}
		sum := crc32.New(castagnoli)
		n, err := io.CopyBuffer(sum, io.LimitReader(f, math.MaxInt64), buf) // LimitReader hides WriteTo, so CopyBuffer uses buf
		f.Close()
		if err != nil {
			return result, err
		}
		result.Bytes += n
	}
	result.Took = time.Since(began)
	return result, nil
}

// reopenJob asks a child to recover a spool while S3 does not answer.
type reopenJob struct {
	Dir        string
	Durability s3sink.Durability
	Events     int64  // in the spool
	Heap       string // file of a heap profile; empty for none
}

type reopenResult struct {
	Idle int64 // resident bytes with an idle sink

	// Since the call of New.
	New   time.Duration // until New returned
	First time.Duration // until the first Track returned
	All   time.Duration // until Stats.Recovered counted every event

	Slowest time.Duration // the slowest Track after the first
}

// reopen starts a sink on a spool of a previous run, and tracks 100 events a
// second until all events are recovered.
func reopen(ctx context.Context, job reopenJob) (result reopenResult, err error) {
	cfg := config(job.Dir, deadStore{})
	cfg.CompressionLevel, cfg.Durability = 1, job.Durability
	line := calls(1)[0]
	sink, began, err := openSink(ctx, cfg, &result.Idle)
	if err != nil {
		return result, err
	}
	result.New = time.Since(began)
	if err := sink.TrackLine(line); err != nil {
		return result, err
	}
	result.First = time.Since(began)
	stop := trackAtRate(func() error { return sink.TrackLine(line) }, 100)
	profile := profileHeapPeak(job.Heap)
	if result.All, err = awaitRecovered(ctx, sink, job.Events, began); err != nil {
		return result, err
	}
	_, result.Slowest, err = stop()
	return result, errors.Join(err, profile(), checkAccounting(sink.Stats()))
}

// awaitRecovered waits until a sink has recovered all events of the spool, and
// returns the time since began.
func awaitRecovered(ctx context.Context, sink *s3sink.Sink, events int64, began time.Time) (time.Duration, error) {
	for {
		asked := time.Now()
		st := sink.Stats()
		took := time.Since(began)
		wait := 20 * time.Since(asked) // Stats holds the lock that Track needs: at most 5 % of the time
		switch {
		case st.Recovered == events:
			return took, nil
		case st.Recovered > events:
			return 0, fmt.Errorf("%d events recovered, but the spool held %d", st.Recovered, events)
		case !pause(ctx, min(max(time.Millisecond, wait), 100*time.Millisecond)):
			return 0, fmt.Errorf("%d of %d events recovered: %w", st.Recovered, events, context.Cause(ctx))
		}
	}
}

// trackAtRate calls track rate times a second until the caller calls stop. stop
// returns the number of calls, the duration of the slowest, and the error that
// ended the calls, if any.
func trackAtRate(track func() error, rate int) (stop func() (int64, time.Duration, error)) {
	var n int64
	var slowest time.Duration
	var failed error
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		due := time.Now()
		for failed == nil {
			due = due.Add(time.Second / time.Duration(rate))
			select {
			case <-end:
				return
			case <-time.After(time.Until(due)):
			}
			began := time.Now()
			if failed = track(); failed == nil {
				n++
			}
			slowest = max(slowest, time.Since(began))
		}
	}()
	return func() (int64, time.Duration, error) {
		close(end)
		<-ended
		return n, slowest, failed
	}
}

// profileHeapPeak writes a heap profile whenever the heap reaches a new
// maximum, until the caller calls stop. Profiling takes time, so the figures of
// a run with a profile are invalid.
func profileHeapPeak(file string) (stop func() error) {
	if file == "" {
		return func() error { return nil }
	}
	var peak uint64
	var failed error
	profile := func() {
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.HeapAlloc > peak+peak/20 {
			peak = m.HeapAlloc
			runtime.GC() // a heap profile shows the state at the last GC
			failed = errors.Join(failed, writeHeap(file))
		}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			profile()
			select {
			case <-time.After(100 * time.Millisecond):
			case <-end:
				return
			}
		}
	}()
	return func() error {
		close(end)
		<-ended
		return failed
	}
}

func writeHeap(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

// recovery measures the start on one spool of a previous run.
type recovery struct {
	bench *bench
	fill  fillJob
	heap  string

	spool      fillResult
	cacheState string    // see dropCache
	readRates  []float64 // bytes a second of readFiles
	samples    map[s3sink.Durability]*reopenSamples
}

// reopenSamples holds one value a round: seconds, and bytes of memory.
type reopenSamples struct{ newReturned, first, slowest, all, peak, above []float64 }

var levels = []s3sink.Durability{s3sink.SyncInterval, s3sink.SyncEach}

// fillSpool creates the spool.
func (m *recovery) fillSpool(ctx context.Context) (err error) {
	m.fill.Dir = filepath.Join(m.bench.dir, "spool")
	m.samples = map[s3sink.Durability]*reopenSamples{}
	for _, level := range levels {
		m.samples[level] = new(reopenSamples)
	}
	m.spool, _, err = runChild[fillResult](ctx, "fill", m.fill)
	if err == nil {
		m.bench.logf("filled a spool with %s MB, %d events and %d sealed objects in %s s", megabytes(m.spool.Bytes), m.spool.Events, m.spool.Sealed, seconds(m.spool.Took.Seconds()))
	}
	return err
}

// round reads the files, and starts a sink on the spool with each durability.
func (m *recovery) round(ctx context.Context, n int) (err error) {
	if err := m.makeCold(); err != nil {
		return err
	}
	r, _, err := runChild[readResult](ctx, "read", readJob{m.fill.Dir})
	if err != nil {
		return err
	}
	m.readRates = append(m.readRates, float64(r.Bytes)/r.Took.Seconds())
	for i := range levels {
		if err := m.reopen(ctx, levels[(i+n)%len(levels)]); err != nil {
			return err
		}
	}
	return nil
}

// makeCold drops the spool from the page cache.
func (m *recovery) makeCold() (err error) {
	m.cacheState, err = dropCache(m.fill.Dir, m.bench.dropAllCache)
	return err
}

// linkCold returns a new directory with links to the spool's files, which are
// not in the page cache.
func (m *recovery) linkCold() (dir string, err error) {
	if dir, err = linkSpool(m.fill.Dir); err == nil {
		err = m.makeCold()
	}
	return dir, err
}

// reopen starts a sink on the spool in a child and keeps its figures.
func (m *recovery) reopen(ctx context.Context, level s3sink.Durability) error {
	dir, err := m.linkCold()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	got, peak, err := runChild[reopenResult](ctx, "recover", reopenJob{Dir: dir, Durability: level, Events: m.spool.Events, Heap: m.heap})
	if err != nil {
		return err
	}
	m.bench.logf("%s: New %v, first Track %v, recovered %v, peak %s MB", nameOf(level), got.New, got.First, got.All, megabytes(peak))
	s := m.samples[level]
	s.newReturned, s.first, s.slowest = append(s.newReturned, got.New.Seconds()), append(s.first, got.First.Seconds()), append(s.slowest, got.Slowest.Seconds())
	s.all = append(s.all, got.All.Seconds())
	s.peak, s.above = append(s.peak, float64(peak)), append(s.above, float64(peak-got.Idle))
	return nil
}

// nameOf returns the name of a durability in the API.
func nameOf(level s3sink.Durability) string {
	if level == s3sink.SyncEach {
		return "SyncEach"
	}
	return "SyncInterval"
}

func (m *recovery) table() table {
	t := table{head: []string{"durability", "spool MB", "sealed objects", "events", "New ms", "first Track ms", "slowest Track ms", "recovered s", "MB/s", "MB/s ÷ plain read", "peak RSS MB", "above idle MB"}}
	for _, level := range levels {
		s := m.samples[level]
		rate := float64(m.spool.Bytes) / median(s.all)
		t.add("`"+nameOf(level)+"`", megabytes(m.spool.Bytes), fmt.Sprint(m.spool.Sealed), fmt.Sprint(m.spool.Events),
			millis(median(s.newReturned)), millis(median(s.first)), millis(median(s.slowest)), seconds(median(s.all)), megabytes(rate),
			ratio(rate/median(m.readRates)), megabytes(median(s.peak)), megabytes(median(s.above)))
	}
	t.notes = append(t.notes, fmt.Sprintf("Page cache before each child: %s. Plain read of the same files, with CRC-32C: %s MB/s.", m.cacheState, megabytes(median(m.readRates))))
	return t
}

// measureRecover measures the start of a process after a process that was
// killed.
func measureRecover(f *flags) func(context.Context, *bench) ([]table, error) {
	size := f.size("size", "1GiB", "total `bytes` of the spool's files")
	sources := f.Int("sources", 16, "`number` of sources; each has one open object")
	objects := f.Int64("objects", 128, "`number` of objects in the spool, about")
	heap := f.String("heap", "", "write a heap profile of the recovery at its peak to `file`; the figures are then invalid")
	return func(ctx context.Context, b *bench) ([]table, error) {
		m := &recovery{bench: b, heap: *heap, fill: fillJob{Bytes: int64(*size), Sources: *sources, ObjectBytes: int64(*size) / max(*objects, 1)}}
		if err := m.fillSpool(ctx); err != nil {
			return nil, err
		}
		for n := range b.rounds {
			if err := m.round(ctx, n); err != nil {
				return nil, err
			}
		}
		return []table{m.table()}, nil
	}
}
