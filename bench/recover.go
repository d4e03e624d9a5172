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

// readJob is files to be read plainly: nobody can recover faster.
type readJob struct{ Dir string }

type readFound struct {
	Bytes int64
	Took  time.Duration
}

// read reads the files of a spool once and makes their CRC-32C, as recovery
// does.
func read(_ context.Context, job readJob) (found readFound, err error) {
	files, err := filepath.Glob(filepath.Join(job.Dir, "*.journal"))
	if err != nil {
		return found, err
	}
	castagnoli, buf := crc32.MakeTable(crc32.Castagnoli), make([]byte, 256<<10)
	began := time.Now()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return found, err
		}
		sum := crc32.New(castagnoli)
		n, err := io.CopyBuffer(sum, io.LimitReader(f, math.MaxInt64), buf) // limited, so that it uses buf
		f.Close()
		if err != nil {
			return found, err
		}
		found.Bytes += n
	}
	found.Took = time.Since(began)
	return found, nil
}

// reopenJob is a spool to be taken over while S3 hangs.
type reopenJob struct {
	Dir        string
	Durability s3sink.Durability
	Events     int64  // that are there
	Heap       string // a file for a heap profile, or ""
}

type reopened struct {
	Idle    int64         // resident before
	New     time.Duration // until New returned
	First   time.Duration // until the first Track did
	Slowest time.Duration // Track, from then on
	All     time.Duration // until every event was in Recovered
}

func reopen(ctx context.Context, job reopenJob) (found reopened, err error) {
	cfg := config(job.Dir, deadStore{})
	cfg.CompressionLevel, cfg.Durability = 1, job.Durability
	line := calls(1)[0]
	sink, began, err := start(ctx, cfg, &found.Idle)
	if err != nil {
		return found, err
	}
	found.New = time.Since(began)
	if err := sink.TrackLine(line); err != nil {
		return found, err
	}
	found.First = time.Since(began)
	stop := trackNow(func() error { return sink.TrackLine(line) }, 100)
	profile := watchHeap(job.Heap)
	if found.All, err = awaitRecovered(ctx, sink, job.Events, began); err != nil {
		return found, err
	}
	_, found.Slowest, err = stop()
	return found, errors.Join(err, profile(), books(sink.Stats()))
}

// awaitRecovered waits until a sink has taken over all events that were left.
func awaitRecovered(ctx context.Context, sink *s3sink.Sink, events int64, began time.Time) (time.Duration, error) {
	for {
		asked := time.Now()
		st := sink.Stats()
		took := time.Since(began)
		wait := 20 * time.Since(asked) // it holds the lock that Track needs
		switch {
		case st.Recovered == events:
			return took, nil
		case st.Recovered > events:
			return 0, fmt.Errorf("%d events recovered, and there were %d", st.Recovered, events)
		case !pause(ctx, min(max(time.Millisecond, wait), 100*time.Millisecond)):
			return 0, fmt.Errorf("%d of %d events recovered: %w", st.Recovered, events, context.Cause(ctx))
		}
	}
}

// trackNow calls track so many times a second, until it is told to stop; then
// it says how often, and how long the slowest call took.
func trackNow(track func() error, each int) (stop func() (int64, time.Duration, error)) {
	var n int64
	var slowest time.Duration
	var failed error
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		due := time.Now()
		for failed == nil {
			due = due.Add(time.Second / time.Duration(each))
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

// watchHeap writes a heap profile of the moment when there was most, until it
// is told to stop. It costs time: what is measured meanwhile is not to be used.
func watchHeap(file string) (stop func() error) {
	if file == "" {
		return func() error { return nil }
	}
	var most uint64
	var failed error
	note := func() {
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.HeapAlloc > most+most/20 {
			most = m.HeapAlloc
			runtime.GC() // a profile is of the last one
			failed = errors.Join(failed, writeHeap(file))
		}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			note()
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

// recovery is what is measured of a spool that was left.
type recovery struct {
	bench *bench
	fill  fillJob
	heap  string

	left  filled
	how   string // caches were dropped
	reads []float64
	found map[s3sink.Durability]*reopenings
}

// reopenings are what the rounds have found.
type reopenings struct{ now, first, slowest, all, peak, above []float64 }

var levels = []s3sink.Durability{s3sink.SyncInterval, s3sink.SyncEach}

// spool leaves one behind.
func (m *recovery) spool(ctx context.Context) (err error) {
	m.fill.Dir = filepath.Join(m.bench.dir, "spool")
	m.found = map[s3sink.Durability]*reopenings{}
	for _, level := range levels {
		m.found[level] = new(reopenings)
	}
	m.left, _, err = ask[filled](ctx, "fill", m.fill)
	if err == nil {
		m.bench.say("a spool of %s MB, %d events and %d sealed objects in %s s", mega(m.left.Bytes), m.left.Events, m.left.Sealed, seconds(m.left.Took.Seconds()))
	}
	return err
}

// round reads the files, and opens the spool with each durability.
func (m *recovery) round(ctx context.Context, n int) (err error) {
	if err := m.cold(); err != nil {
		return err
	}
	r, _, err := ask[readFound](ctx, "read", readJob{m.fill.Dir})
	if err != nil {
		return err
	}
	m.reads = append(m.reads, float64(r.Bytes)/r.Took.Seconds())
	for i := range levels {
		if err := m.reopen(ctx, levels[(i+n)%len(levels)]); err != nil {
			return err
		}
	}
	return nil
}

func (m *recovery) cold() (err error) {
	m.how, err = forget(m.fill.Dir, m.bench.drop)
	return err
}

// again returns a directory with the spool's files, cold, for a child that takes
// them over.
func (m *recovery) again() (dir string, err error) {
	if dir, err = linked(m.fill.Dir); err == nil {
		err = m.cold()
	}
	return dir, err
}

func (m *recovery) reopen(ctx context.Context, level s3sink.Durability) error {
	dir, err := m.again()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	got, peak, err := ask[reopened](ctx, "recover", reopenJob{Dir: dir, Durability: level, Events: m.left.Events, Heap: m.heap})
	if err != nil {
		return err
	}
	m.bench.say("%s: New %v, first Track %v, recovered %v, peak %s MB", nameOf(level), got.New, got.First, got.All, mega(peak))
	f := m.found[level]
	f.now, f.first, f.slowest = append(f.now, got.New.Seconds()), append(f.first, got.First.Seconds()), append(f.slowest, got.Slowest.Seconds())
	f.all = append(f.all, got.All.Seconds())
	f.peak, f.above = append(f.peak, float64(peak)), append(f.above, float64(peak-got.Idle))
	return nil
}

func nameOf(level s3sink.Durability) string {
	if level == s3sink.SyncEach {
		return "SyncEach"
	}
	return "SyncInterval"
}

func (m *recovery) table() table {
	t := table{head: []string{"durability", "spool MB", "sealed objects", "events", "New ms", "first Track ms", "slowest Track ms", "recovered s", "MB/s", "of reading", "peak RSS MB", "above idle MB"}}
	for _, level := range levels {
		f := m.found[level]
		rate := float64(m.left.Bytes) / median(f.all)
		t.add("`"+nameOf(level)+"`", mega(m.left.Bytes), fmt.Sprint(m.left.Sealed), fmt.Sprint(m.left.Events),
			millis(median(f.now)), millis(median(f.first)), millis(median(f.slowest)), seconds(median(f.all)), mega(rate),
			ratio(rate/median(m.reads)), mega(median(f.peak)), mega(median(f.above)))
	}
	t.notes = append(t.notes, fmt.Sprintf("Before each child: %s. Reading the same files and their CRC-32C: %s MB/s.", m.how, mega(median(m.reads))))
	return t
}

// measureRecover is what a process finds that comes after one which was killed.
func measureRecover(f *flags) func(context.Context, *bench) ([]table, error) {
	size := f.size("size", "1GiB", "of the spool's files")
	sources := f.Int("sources", 16, "each leaves an object that is not sealed")
	objects := f.Int64("objects", 128, "that would fill it, sealed or not")
	heap := f.String("heap", "", "a `file` for a heap profile of recovery at its fullest; no figure counts then")
	return func(ctx context.Context, b *bench) ([]table, error) {
		m := &recovery{bench: b, heap: *heap, fill: fillJob{Bytes: int64(*size), Sources: *sources, ObjectBytes: int64(*size) / max(*objects, 1)}}
		if err := m.spool(ctx); err != nil {
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
