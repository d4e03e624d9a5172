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

// drainJob asks a child to deliver a spool while it tracks new events.
type drainJob struct {
	Dir    string
	Events int64  // in the spool
	Rate   int    // new events a second
	Unpack bool   // check every object
	Heap   string // file of a heap profile; empty for none
}

type drainResult struct {
	Idle    int64 // resident bytes with an idle sink
	Backlog delivery
	All     time.Duration // from the call of New until the backlog was in the store
	New     int64         // new events tracked until then
	Slowest time.Duration // the slowest Track of a new event
}

// drain starts a sink on a spool, tracks new events until the backlog is
// delivered, and closes the sink. It checks that the store received every event
// once and that the spool is empty.
func drain(ctx context.Context, job drainJob) (result drainResult, err error) {
	store := &nullStore{unpack: job.Unpack}
	cfg := config(job.Dir, store)
	cfg.CompressionLevel = 1
	sink, began, err := openSink(ctx, cfg, &result.Idle)
	if err != nil {
		return result, err
	}
	stop := trackNewEvents(sink, calls(1)[0], job)
	profile := profileHeapPeak(job.Heap)
	for result.Backlog.Events < job.Events {
		if !pause(ctx, time.Millisecond) {
			return result, fmt.Errorf("delivered %d of %d events: %w", result.Backlog.Events, job.Events, context.Cause(ctx))
		}
		result.Backlog = store.deliveredBacklog()
	}
	result.All = result.Backlog.Last.Sub(began)
	if result.New, result.Slowest, err = stop(); err != nil {
		return result, err
	}
	if err := sink.Close(ctx); err != nil {
		return result, err
	}
	return result, errors.Join(profile(), checkAccounting(sink.Stats()), store.checkFirst(job.Events+result.New), checkSpoolEmpty(job.Dir))
}

// trackNewEvents tracks lines at the rate of the job. Their numbers continue
// after the last number in the spool.
func trackNewEvents(sink *s3sink.Sink, line []byte, job drainJob) func() (int64, time.Duration, error) {
	next := job.Events
	return trackAtRate(func() error {
		setNumber(line, next)
		next++
		return sink.TrackLine(line)
	}, job.Rate)
}

// checkSpoolEmpty returns an error if a spool still has files.
func checkSpoolEmpty(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err == nil && len(files) > 0 {
		err = fmt.Errorf("the spool still has %d files after all events were delivered", len(files))
	}
	return err
}

// drainSamples holds one value a round: rates a second, seconds, and bytes of
// memory.
type drainSamples struct{ rate, bytes, all, slowest, peak, above []float64 }

// round delivers the spool in a child and keeps its figures.
func (d *drainSamples) round(ctx context.Context, m *recovery, job drainJob) error {
	dir, err := m.linkCold()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	job.Dir, job.Events = dir, m.spool.Events
	if m.heap != "" {
		job.Heap = m.heap + ".drain"
	}
	got, peak, err := runChild[drainResult](ctx, "drain", job)
	if err != nil {
		return err
	}
	took := got.Backlog.Last.Sub(got.Backlog.First).Seconds()
	m.bench.logf("drained: %d objects in %s s, %v after New, peak %s MB", got.Backlog.Objects, seconds(took), got.All, megabytes(peak))
	d.rate, d.bytes = append(d.rate, float64(got.Backlog.Objects)/took), append(d.bytes, float64(got.Backlog.Bytes)/took)
	d.all, d.slowest = append(d.all, got.All.Seconds()), append(d.slowest, got.Slowest.Seconds())
	d.peak, d.above = append(d.peak, float64(peak)), append(d.above, float64(peak-got.Idle))
	return nil
}

func (d *drainSamples) table(rate int) table {
	t := table{head: []string{"new events/s", "objects/s", "MB/s", "all delivered s", "slowest Track ms", "peak RSS MB", "above idle MB"}}
	t.add(fmt.Sprint(rate), fmt.Sprintf("%.0f", median(d.rate)), megabytes(median(d.bytes)), seconds(median(d.all)), millis(median(d.slowest)),
		megabytes(median(d.peak)), megabytes(median(d.above)))
	return t
}

// measureBacklog measures the start on a spool with many objects, and their
// delivery.
func measureBacklog(f *flags) func(context.Context, *bench) ([]table, error) {
	size := f.size("size", "10GiB", "total `bytes` of the spool's files")
	segments := f.Int("segments", 100_000, "`number` of objects in the spool, about")
	sealed := f.String("sealed", "size", "the `limit` that seals the objects: size (about ten blocks for each object) or events (one block)")
	sources := f.Int("sources", 16, "`number` of sources; each has one open object")
	rate := f.Int("rate", 1000, "new `events` a second during the delivery")
	unpack := f.Bool("unpack", false, unpackUsage)
	heap := f.String("heap", "", "write a heap profile of the recovery at its peak to `file`, and one of the delivery to file.drain; the figures are then invalid")
	return func(ctx context.Context, b *bench) ([]table, error) {
		m := &recovery{bench: b, heap: *heap, fill: manyObjects(int64(*size), int64(*segments), *sealed != "events")}
		m.fill.Sources = *sources
		if err := m.fillSpool(ctx); err != nil {
			return nil, err
		}
		var d drainSamples
		for n := range b.rounds {
			if err := m.round(ctx, n); err != nil {
				return nil, err
			}
			if err := d.round(ctx, m, drainJob{Rate: *rate, Unpack: *unpack}); err != nil {
				return nil, err
			}
		}
		t := m.table()
		above := max(median(m.samples[s3sink.SyncInterval].above), median(m.samples[s3sink.SyncEach].above))
		t.notes = append(t.notes, fmt.Sprintf("Memory above idle: at most %.0f bytes for each sealed object.", above/float64(max(m.spool.Sealed, 1))))
		return []table{t, d.table(*rate)}, nil
	}
}

// manyObjects returns the job for a spool with about the given number of
// objects and total bytes. bySize selects the limit that seals the objects: the
// size or the number of events.
func manyObjects(bytes, objects int64, bySize bool) fillJob {
	object := bytes / max(objects, 1)
	job := fillJob{Bytes: bytes, Line: int(min(max(object/40, 256), 10<<10))}
	if bySize {
		job.ObjectBytes = max(object, 8<<10) * 100 / 95 // a sealed object has at least nine tenths of the limit
		return job
	}
	job.ObjectBytes = s3sink.DefaultMaxObjectBytes
	job.ObjectEvents = max(1, object*4/3/int64(job.Line)) // gzip reduces noise to three quarters
	return job
}
