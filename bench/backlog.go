package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/s3sink/s3sink"
)

// drainJob is a spool to be delivered while new events come.
type drainJob struct {
	Dir    string
	Events int64 // that are there
	Rate   int   // new events a second
	Unpack bool
	Heap   string // a file for a heap profile, or ""
}

type drained struct {
	Idle    int64
	Left    delivery
	All     time.Duration // until all that was left was in the store
	New     int64         // events tracked meanwhile
	Slowest time.Duration // of their calls
}

// drain delivers what was left, and after it what came meanwhile. Nothing may
// be missing then, or in the spool.
func drain(ctx context.Context, job drainJob) (found drained, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(job.Dir, store)
	cfg.CompressionLevel = 1
	sink, began, err := start(ctx, cfg, &found.Idle)
	if err != nil {
		return found, err
	}
	stop := trackNew(sink, calls(1)[0], job)
	profile := watchHeap(job.Heap)
	for found.Left.Events < job.Events {
		if !pause(ctx, time.Millisecond) {
			return found, fmt.Errorf("delivered %d of %d events: %w", found.Left.Events, job.Events, context.Cause(ctx))
		}
		found.Left = store.delivered()
	}
	found.All = found.Left.Last.Sub(began)
	if found.New, found.Slowest, err = stop(); err != nil {
		return found, err
	}
	if err := sink.Close(ctx); err != nil {
		return found, err
	}
	return found, errors.Join(profile(), books(sink.Stats()), store.checkFirst(job.Events+found.New), emptied(job.Dir))
}

// trackNew tracks lines whose numbers go on where the spool's end.
func trackNew(sink *s3sink.Sink, line []byte, job drainJob) func() (int64, time.Duration, error) {
	next := job.Events
	return trackNow(func() error {
		setNumber(line, next)
		next++
		return sink.TrackLine(line)
	}, job.Rate)
}

// emptied returns an error if a sink that has delivered everything has left
// something.
func emptied(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err == nil && len(files) > 0 {
		err = fmt.Errorf("%d files are left in the spool", len(files))
	}
	return err
}

// drains are what the rounds have found.
type drains struct{ rate, bytes, all, slowest, peak, above []float64 }

func (d *drains) round(ctx context.Context, m *recovery, job drainJob) error {
	dir, err := m.again()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	job.Dir, job.Events = dir, m.left.Events
	if m.heap != "" {
		job.Heap = m.heap + ".drain"
	}
	got, peak, err := ask[drained](ctx, "drain", job)
	if err != nil {
		return err
	}
	took := got.Left.Last.Sub(got.Left.First).Seconds()
	m.bench.say("drained: %d objects in %s s, %v behind New, peak %s MB", got.Left.Objects, seconds(took), got.All, mega(peak))
	d.rate, d.bytes = append(d.rate, float64(got.Left.Objects)/took), append(d.bytes, float64(got.Left.Bytes)/took)
	d.all, d.slowest = append(d.all, got.All.Seconds()), append(d.slowest, got.Slowest.Seconds())
	d.peak, d.above = append(d.peak, float64(peak)), append(d.above, float64(peak-got.Idle))
	return nil
}

func (d *drains) table(rate int) table {
	t := table{head: []string{"new events/s meanwhile", "objects/s", "MB/s", "all delivered s", "slowest Track ms", "peak RSS MB", "above idle MB"}}
	t.add(fmt.Sprint(rate), fmt.Sprintf("%.0f", median(d.rate)), mega(median(d.bytes)), seconds(median(d.all)), millis(median(d.slowest)),
		mega(median(d.peak)), mega(median(d.above)))
	return t
}

// measureBacklog is an outage of many objects.
func measureBacklog(f *flags) func(context.Context, *bench) ([]table, error) {
	size := f.size("size", "10GiB", "of the spool's files")
	segments := f.Int("segments", 100_000, "objects in them, about")
	sealed := f.String("sealed", "size", "by what: size (some ten blocks an object) or events (one block)")
	sources := f.Int("sources", 16, "each leaves an object that is not sealed")
	rate := f.Int("rate", 1000, "new events a second while it drains")
	unpack := f.Bool("unpack", false, "look into every object that is delivered: slow")
	heap := f.String("heap", "", "a `file` for a heap profile of recovery at its fullest, and beside it one of the drain (.drain); no figure counts then")
	return func(ctx context.Context, b *bench) ([]table, error) {
		m := &recovery{bench: b, heap: *heap, fill: manyObjects(int64(*size), int64(*segments), *sealed != "events")}
		m.fill.Sources = *sources
		if err := m.spool(ctx); err != nil {
			return nil, err
		}
		var d drains
		for n := range b.rounds {
			if err := m.round(ctx, n); err != nil {
				return nil, err
			}
			if err := d.round(ctx, m, drainJob{Rate: *rate, Unpack: *unpack}); err != nil {
				return nil, err
			}
		}
		t := m.table()
		above := max(median(m.found[s3sink.SyncInterval].above), median(m.found[s3sink.SyncEach].above))
		t.notes = append(t.notes, fmt.Sprintf("That is up to %.0f bytes of memory for each object.", above/float64(max(m.left.Sealed, 1))))
		return []table{t, d.table(*rate)}, nil
	}
}

// manyObjects is a spool of so many objects that they have so many bytes.
func manyObjects(bytes, objects int64, bySize bool) fillJob {
	object := bytes / max(objects, 1)
	job := fillJob{Bytes: bytes, Line: int(min(max(object/40, 256), 10<<10))}
	if bySize {
		job.ObjectBytes = max(object, 8<<10) * 100 / 95 // they are full at nine tenths or more
		return job
	}
	job.ObjectBytes = s3sink.DefaultMaxObjectBytes
	job.ObjectEvents = max(1, object*4/3/int64(job.Line)) // of which three quarters are left
	return job
}
